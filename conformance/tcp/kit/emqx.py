"""A client of EMQX's private TCP protocol. Its data has no answer, but a PING behind it has: answers come in order."""

import asyncio
import struct

from tcp.kit.device import Device

CONNECT, CONNACK, DATA, PING, PONG = 0x11, 0x20, 0x30, b"\x40", 0x50


def framed(kind, payload):
    """Type, flags and length before it."""
    return struct.pack(">BH", kind, len(payload)) + payload


class Emqx(Device):
    kind, number_of, has_many = "data", int, True

    @staticmethod
    def order(_name):
        """None: nobody can know that it was heard."""

    def __init__(self, name, port, ledger, chance):
        super().__init__(name, port, ledger, chance)
        self.waiting = []

    async def next(self):
        """Type and flags, and the payload, of the next frame."""
        kind, = await self.line.reader.readexactly(1)
        if kind == PONG:
            return kind, b""
        length, = struct.unpack(">H", await self.line.reader.readexactly(2))
        return kind, await self.line.reader.readexactly(length)

    async def log_in(self):
        self.waiting = []
        own = self.name.encode()
        self.line.say(framed(CONNECT, struct.pack(">BH", 60, len(own)) + own))
        kind, text = await self.next()
        if kind != CONNACK:
            self.ledger.fail(f"{self.name} was not let in: {kind:#x} {text}")
            raise TimeoutError

    def frame(self, numbers):
        self.waiting.append(asyncio.get_running_loop().create_future())
        return b"".join(framed(DATA, str(number).encode()) for number in numbers) + PING, self.waiting[-1]

    async def listen(self):
        """Until the line ends."""
        while True:
            kind, payload = await self.next()
            if kind == PONG and self.waiting:
                self.waiting.pop(0).set_result(kind)
            else:
                self.ledger.fail(f"{self.name} does not understand {kind:#x} {payload}")
