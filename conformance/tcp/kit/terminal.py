"""A terminal of JT/T 808: registers once, authenticates whenever it comes."""

import asyncio
import struct

from tcp.kit import jt808
from tcp.kit.device import Device


class Terminal(Device):
    kind, number_of, asides = "location", staticmethod(jt808.number_of), ("register", "auth", "params")

    @staticmethod
    def order(name):
        return "text", {"id": name, "text": name}

    def __init__(self, name, port, ledger, chance, is_2019=False):
        super().__init__(name, port, ledger, chance)
        self.speaker, self.code, self.waiting = jt808.Speaker(name, is_2019), None, {}

    async def next(self):
        """The next message of the platform."""
        frame = b""
        while not frame:
            frame = (await self.line.reader.readuntil(b"\x7e"))[:-1]
        message = jt808.Message.read(frame)
        assert message.phone == self.name, f"{self.name} is told what is for {message.phone}"
        return message

    async def log_in(self):
        self.waiting = {}
        if self.code is None:
            serial, frame = self.speaker.register()
            self.line.say(frame)
            message = await self.next()
            to, result = struct.unpack_from(">HB", message.body)
            if (message.kind, to, result) != (jt808.REGISTERED, serial, jt808.DONE):
                self.ledger.fail(f"{self.name} could not register: {message}")
                raise TimeoutError
            self.code = message.body[3:]
        serial, frame = self.speaker.authenticate(self.code)
        self.line.say(frame)
        message = await self.next()
        if message.body != struct.pack(">HHB", serial, jt808.AUTHENTICATE, jt808.DONE):
            self.ledger.fail(f"{self.name} was not let in: {message}")
            raise TimeoutError

    def frame(self, numbers):
        serial, frame = self.speaker.locations(numbers)
        self.waiting[serial] = asyncio.get_running_loop().create_future()
        return frame, self.waiting[serial]

    async def listen(self):
        """Until the line ends."""
        while True:
            message = await self.next()
            if message.kind == jt808.GENERAL:
                serial, _, result = struct.unpack(">HHB", message.body)
                if result != jt808.DONE:
                    self.ledger.fail(f"{self.name} was refused: {message}")
                if serial in self.waiting:
                    self.waiting.pop(serial).set_result(result)
            elif message.kind == jt808.TEXT:
                self.obey(self.speaker.text_of(message))
                self.line.say(self.speaker.reply(message)[1])
            elif message.kind == jt808.ASK_PARAMETERS:
                self.ledger.figures["parameters asked for"] += 1
                self.line.say(self.speaker.parameters(message)[1])
            else:
                self.ledger.fail(f"{self.name} does not understand {message}")
