"""A vehicle of GB/T 32960.3-2016, as its tables have it."""

import asyncio
import struct

from tcp.kit.device import Device

LOGIN, REALTIME, CONTROL = 0x01, 0x02, 0x82
# Answer flags: done, and what is no answer.
DONE, COMMAND = 0x01, 0xfe
# A block of measurements: the whole vehicle.
WHOLE = 0x01
UPGRADE = 0x01
TIME = bytes([26, 11, 21, 12, 0, 0])


def packet(command, flag, vin, unit):
    """Two `#`, and behind the data unit the exclusive or of all but these."""
    body = struct.pack(">BB17sBH", command, flag, vin.encode(), 1, len(unit)) + unit
    check = 0
    for byte in body:
        check ^= byte
    return b"##" + body + bytes([check])


def measured(number):
    """A data unit with the block of the whole vehicle, whose odometer is `number`."""
    block = struct.pack(">BBBHIHHBBBHBB", 1, 3, 1, 600, number, 4000, 10_100, 80, 1, 0x0f, 500, 10, 0)
    return TIME + bytes([WHOLE]) + block


class Vehicle(Device):
    kind, asides, has_many = "realtime", ("login",), True

    @staticmethod
    def number_of(value):
        return round(value["vehicle"]["mileage_km"] * 10)

    @staticmethod
    def order(name):
        return "control", {"id": name, "command": "upgrade", "text": name}

    def __init__(self, name, port, ledger, chance):
        super().__init__(name, port, ledger, chance)
        self.waiting = []

    async def next(self):
        """Command, flag and data unit of the next packet."""
        head = await self.line.reader.readexactly(24)
        start, command, flag, vin, _, length = struct.unpack(">2sBB17sBH", head)
        rest = await self.line.reader.readexactly(length + 1)
        check = 0
        for byte in head[2:] + rest:
            check ^= byte
        assert (start, vin, check) == (b"##", self.name.encode(), 0), head + rest
        return command, flag, rest[:-1]

    async def log_in(self):
        self.waiting = []
        unit = TIME + struct.pack(">H20sBB", 1, b"89860000000000000000", 1, 4) + b"PACK"
        self.line.say(packet(LOGIN, COMMAND, self.name, unit))
        answer = await self.next()
        if answer != (LOGIN, DONE, TIME):
            self.ledger.fail(f"{self.name} was not let in: {answer}")
            raise TimeoutError

    def frame(self, numbers):
        answers = [asyncio.get_running_loop().create_future() for _ in numbers]
        self.waiting += answers
        packets = (packet(REALTIME, COMMAND, self.name, measured(number)) for number in numbers)
        return b"".join(packets), answers[-1]

    async def listen(self):
        """Until the line ends."""
        while True:
            command, flag, unit = await self.next()
            if (command, flag) == (REALTIME, DONE) and self.waiting:
                self.waiting.pop(0).set_result(unit)
            elif (command, flag) == (CONTROL, COMMAND) and unit[6] == UPGRADE:
                self.obey(unit[7:].decode())
                self.line.say(packet(CONTROL, DONE, self.name, unit[:6]))
            else:
                self.ledger.fail(f"{self.name} does not understand {command:#x} {flag:#x} {unit.hex()}")
