"""JT/T 808 as its tables have it, from the side of a terminal: messages of 2013 and of 2019."""

import dataclasses
import struct

REGISTER, AUTHENTICATE, HEARTBEAT, LOCATION, LOCATIONS = 0x0100, 0x0102, 0x0002, 0x0200, 0x0704
REPLY, PARAMETERS = 0x0001, 0x0104
GENERAL, REGISTERED, TEXT, ASK_PARAMETERS = 0x8001, 0x8100, 0x8300, 0x8104
# Result of a general answer.
DONE, FAILED = 0, 1
# Item of a location: the odometer, in tenths of a kilometre.
ODOMETER = 0x01
# Parameter: seconds between heartbeats.
HEARTBEAT_INTERVAL = 0x0001


def bcd(digits, size):
    """Two digits a byte, filled with zeros from the left."""
    return bytes.fromhex(digits.rjust(2 * size, "0"))


def escape(body):
    """Between two 7e, with its check byte."""
    check = 0
    for byte in body:
        check ^= byte
    body += bytes([check])
    return b"\x7e" + body.replace(b"\x7d", b"\x7d\x01").replace(b"\x7e", b"\x7d\x02") + b"\x7e"


def unescape(frame):
    """What is between two 7e, without the check byte, which has to be right."""
    body = frame.replace(b"\x7d\x02", b"\x7e").replace(b"\x7d\x01", b"\x7d")
    check = 0
    for byte in body:
        check ^= byte
    assert check == 0, f"the check byte is wrong: {frame.hex()}"
    return body[:-1]


@dataclasses.dataclass
class Message:
    """One of the platform's."""

    kind: int
    phone: str
    serial: int
    body: bytes

    @staticmethod
    def read(frame):
        raw = unescape(frame)
        kind, properties = struct.unpack_from(">HH", raw)
        at, digits = (5, 10) if properties & 0x4000 else (4, 6)
        phone = raw[at:at + digits].hex().lstrip("0")
        serial, = struct.unpack_from(">H", raw, at + digits)
        body = raw[at + digits + 2:]
        assert not properties & 0x2000, f"in parts: {frame.hex()}"
        assert len(body) == properties & 0x3ff, f"the length is wrong: {frame.hex()}"
        return Message(kind, phone, serial, body)


class Speaker:
    """Makes the messages of one terminal."""

    def __init__(self, phone, is_2019):
        self.phone, self.is_2019, self.serial = phone, is_2019, 0

    def message(self, kind, body=b""):
        """The serial number and the frame."""
        serial, self.serial = self.serial, (self.serial + 1) & 0xffff
        if self.is_2019:
            head = struct.pack(">HHB", kind, len(body) | 0x4000, 1) + bcd(self.phone, 10)
        else:
            head = struct.pack(">HH", kind, len(body)) + bcd(self.phone, 6)
        return serial, escape(head + struct.pack(">H", serial) + body)

    def register(self):
        maker, model, own = (11, 30, 30) if self.is_2019 else (5, 20, 7)
        body = struct.pack(">HH", 44, 300) + b"TIDE".ljust(maker, b"\0") + b"T-1".ljust(model, b"\0")
        return self.message(REGISTER, body + self.phone[-7:].encode().ljust(own, b"\0") + b"\1" + "粤B12345".encode("gbk"))

    def authenticate(self, code):
        if self.is_2019:
            body = bytes([len(code)]) + code + b"860000000000000" + b"1.0".ljust(20, b"\0")
            return self.message(AUTHENTICATE, body)
        return self.message(AUTHENTICATE, code)

    @staticmethod
    def location(number):
        """The body of a location whose odometer is `number`."""
        body = struct.pack(">IIIIHHH", 0, 3, 22_500_000 + number, 113_900_000, 10, 600, 90) + bytes.fromhex("261121120000")
        return body + struct.pack(">BBI", ODOMETER, 4, number)

    def locations(self, numbers):
        """One message with one or several of them."""
        if len(numbers) == 1:
            return self.message(LOCATION, self.location(numbers[0]))
        bodies = [self.location(number) for number in numbers]
        body = struct.pack(">HB", len(bodies), 0) + b"".join(struct.pack(">H", len(b)) + b for b in bodies)
        return self.message(LOCATIONS, body)

    def text_of(self, message):
        """Of 0x8300: after a flag, and in 2019 a type."""
        return message.body[2 if self.is_2019 else 1:].decode("gbk")

    def reply(self, to, result=DONE):
        return self.message(REPLY, struct.pack(">HHB", to.serial, to.kind, result))

    def parameters(self, to):
        return self.message(PARAMETERS, struct.pack(">HBIBI", to.serial, 1, HEARTBEAT_INTERVAL, 4, 60))


def number_of(location):
    """The odometer of a location that the gateway has published."""
    return round(location["mileage_km"] * 10)
