"""A tracker of Teltonika: says its IMEI, and then packets of records."""

import asyncio

from tcp.kit import teltonika
from tcp.kit.device import Device


class Tracker(Device):
    kind, number_of = "location", staticmethod(teltonika.number_of)

    @staticmethod
    def order(name):
        return "command", {"id": name, "command": name}

    def __init__(self, name, port, ledger, chance, codec=teltonika.CODEC_8):
        super().__init__(name, port, ledger, chance)
        self.codec, self.waiting = codec, []

    async def log_in(self):
        self.waiting = []
        self.line.say(teltonika.login(self.name))
        answer = await self.line.reader.readexactly(1)
        if answer != b"\1":
            self.ledger.fail(f"{self.name} was not let in: {answer}")
            raise TimeoutError

    def frame(self, numbers):
        answer = asyncio.get_running_loop().create_future()
        self.waiting.append((len(numbers), answer))
        return teltonika.records(self.codec, numbers), answer

    async def listen(self):
        """Until the line ends."""
        while True:
            said = await teltonika.heard(self.line.reader)
            if isinstance(said, str):
                self.obey(said)
                self.line.say(teltonika.response(f"done {said}"))
            elif not self.waiting or said != self.waiting[0][0]:
                self.ledger.fail(f"{self.name} was told {said} for {self.waiting}")
            else:
                self.waiting.pop(0)[1].set_result(said)
