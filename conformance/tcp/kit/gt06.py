"""A tracker that speaks GT06, as Concox's documents have it."""

import asyncio
import struct

from tcp.kit.device import Device

LOGIN, LOCATION, STRING, COMMAND = 0x01, 0x22, 0x15, 0x80


def crc_itu(data):
    """CRC-ITU: X.25's."""
    crc = 0xffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0x8408 if crc & 1 else crc >> 1
    return crc ^ 0xffff


def packet(number, content, serial):
    body = struct.pack(">BB", len(content) + 5, number) + content + struct.pack(">H", serial & 0xffff)
    return b"\x78\x78" + body + struct.pack(">H", crc_itu(body)) + b"\r\n"


def location(number):
    """Where it is; the odometer is `number`."""
    gps = bytes([26, 11, 21, 12, 0, 0, 0xc9]) + struct.pack(">IIBH", 40_500_000, 205_000_000, 60, 0x1400 | 90)
    return gps + struct.pack(">HBHBH", 460, 0, 10_365, 0, 8049) + struct.pack(">BBBI", 1, 0, 0, number)


class Gt06(Device):
    kind, has_many = "location", True

    @staticmethod
    def number_of(value):
        return value["mileage"]

    @staticmethod
    def order(name):
        return "command", {"id": name, "command": name}

    def __init__(self, name, port, ledger, chance):
        super().__init__(name, port, ledger, chance)
        self.serial, self.waiting = 0, {}

    def packet(self, number, content):
        self.serial += 1
        return packet(number, content, self.serial)

    async def next(self):
        """Number, content and serial number of the next packet."""
        start = await self.line.reader.readexactly(3)
        rest = await self.line.reader.readexactly(start[2] + 2)
        crc, = struct.unpack(">H", rest[-4:-2])
        assert start[:2] == b"\x78\x78" and rest[-2:] == b"\r\n", start + rest
        assert crc == crc_itu(start[2:] + rest[:-4]), start + rest
        return rest[0], rest[1:-6], struct.unpack(">H", rest[-6:-4])[0]

    async def log_in(self):
        self.waiting = {}
        self.line.say(self.packet(LOGIN, bytes.fromhex("0" + self.name)))
        answer = await self.next()
        if answer != (LOGIN, b"", self.serial & 0xffff):
            self.ledger.fail(f"{self.name} was not let in: {answer}")
            raise TimeoutError

    def frame(self, numbers):
        said = b""
        for number in numbers:
            said += self.packet(LOCATION, location(number))
            self.waiting[self.serial & 0xffff] = answer = asyncio.get_running_loop().create_future()
        return said, answer

    async def listen(self):
        """Until the line ends."""
        while True:
            number, content, serial = await self.next()
            if number == LOCATION and serial in self.waiting:
                self.waiting.pop(serial).set_result(serial)
            elif number == COMMAND:
                # Length, server flag, text: the answer repeats the flag.
                flag, text = content[1:5], content[5:].decode()
                self.obey(text)
                self.line.say(self.packet(STRING, bytes([8]) + flag + b"done" + b"\0\2"))
            else:
                self.ledger.fail(f"{self.name} does not understand {number:#x} {content.hex()} {serial}")
