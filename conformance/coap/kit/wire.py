"""CoAP messages as bytes (RFC 7252, section 3), read strictly, and a peer that exchanges them."""

import dataclasses
import os
import random
import time

from coap.kit import links

CON, NON, ACK, RST = range(4)
GET, POST, PUT, DELETE = 1, 2, 3, 4
IF_MATCH, ETAG, IF_NONE_MATCH, OBSERVE, LOCATION_PATH, URI_PATH, CONTENT_FORMAT = 1, 4, 5, 6, 8, 11, 12
MAX_AGE, URI_QUERY, ACCEPT, LOCATION_QUERY, BLOCK2, BLOCK1, SIZE2, SIZE1 = 14, 15, 17, 20, 23, 27, 28, 60
PROXY_URI, PROXY_SCHEME, ECHO, REQUEST_TAG = 35, 39, 252, 292
# Options that may come more than once in a response, and those that are numbers (RFC 7252, 5.10).
REPEATABLE = {LOCATION_PATH, LOCATION_QUERY}
NUMBERS = {OBSERVE: 3, CONTENT_FORMAT: 2, MAX_AGE: 4, BLOCK2: 3, BLOCK1: 3, SIZE2: 4, SIZE1: 4}


def code(text):
    """`code("2.05")` as a byte."""
    kind, detail = text.split(".")
    return int(kind) << 5 | int(detail)


def uint(value):
    """A number in as few bytes as it needs (3.2)."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def block(number, more, size):
    """The value of a Block option (RFC 7959, 2.2); `size` in bytes."""
    return uint(number << 4 | bool(more) << 3 | size.bit_length() - 5)


@dataclasses.dataclass
class Message:
    """A message; options are pairs of number and bytes, in order."""

    kind: int = CON
    code: int = 0
    id: int = 0
    token: bytes = b""
    options: list = dataclasses.field(default_factory=list)
    payload: bytes = b""

    @property
    def says(self):
        """The code in the form of the RFC, `2.05`."""
        return f"{self.code >> 5}.{self.code & 31:02}"

    def all(self, number):
        """All values of an option."""
        return [value for n, value in self.options if n == number]

    def uint(self, number):
        """The first value of an option as a number; None if it is absent."""
        values = self.all(number)
        return int.from_bytes(values[0], "big") if values else None

    def block(self, number):
        """Number, more, and size of a Block option."""
        value = self.uint(number)
        return None if value is None else (value >> 4, bool(value & 8), 1 << (value & 7) + 4)

    def encode(self):
        out = bytearray([1 << 6 | self.kind << 4 | len(self.token), self.code])
        out += self.id.to_bytes(2, "big") + self.token
        return bytes(out + encode_rest(self.options, self.payload))


def _nibble(value):
    if value < 13:
        return value, b""
    if value < 269:
        return 13, bytes([value - 13])
    return 14, (value - 269).to_bytes(2, "big")


def encode_rest(options, payload):
    """Options and payload: what every transport has in common."""
    out, last = bytearray(), 0
    for number, value in sorted(options, key=lambda option: option[0]):
        delta, more = _nibble(number - last)
        length, longer = _nibble(len(value))
        out += bytes([delta << 4 | length]) + more + longer + value
        last = number
    return out + (b"\xff" + payload if payload else b"")


def decode_rest(data, at):
    """Options and payload of a response. What a sender may not do is an AssertionError."""
    options, number = [], 0
    while at < len(data):
        first = data[at]
        at += 1
        if first == 0xFF:
            assert at < len(data), "a payload marker without payload (3)"
            return options, data[at:]
        fields = []
        for field in (first >> 4, first & 15):
            assert field < 15, "a reserved option field (3.1)"
            if field >= 13:
                width, least = (1, 13) if field == 13 else (2, 269)
                field = int.from_bytes(data[at:at + width], "big") + least
                at += width
            fields.append(field)
        number += fields[0]
        value = data[at:at + fields[1]]
        assert len(value) == fields[1], "an option that ends behind the message"
        at += fields[1]
        assert number in REPEATABLE or number not in [n for n, _ in options], f"option {number} twice (5.4.5)"
        assert number not in NUMBERS or len(value) <= NUMBERS[number], f"option {number} is too long"
        assert number not in NUMBERS or value[:1] != b"\0", f"option {number} is not in its shortest form (3.2)"
        options.append((number, value))
    return options, b""


def decode(data):
    """Reads a datagram of the gateway."""
    assert len(data) >= 4 and data[0] >> 6 == 1, f"no CoAP message: {data.hex()}"
    kind, length = data[0] >> 4 & 3, data[0] & 15
    assert length <= 8, "a token longer than 8 bytes"
    message = Message(kind, data[1], int.from_bytes(data[2:4], "big"), data[4:4 + length])
    assert len(message.token) == length, "a token that ends behind the message"
    if message.code == 0:
        assert len(data) == 4 and kind != NON, f"an empty message is four bytes, and not Non-confirmable: {data.hex()}"
    assert kind != RST or message.code == 0, "a Reset is empty"
    message.options, message.payload = decode_rest(data, 4 + length)
    return message


def path_options(uri):
    """Uri-Path and Uri-Query of `/a/b?c=d&e`."""
    path, _, query = uri.partition("?")
    return [(URI_PATH, part.encode()) for part in path[1:].split("/")] \
        + [(URI_QUERY, part.encode()) for part in query.split("&") if query]


class Peer:
    """A device. `link` is what carries its messages: the port of the gateway, or something with `send` and `receive`."""

    def __init__(self, link):
        self.link = links.Udp(link) if isinstance(link, int) else link
        self.id = random.randrange(65536)
        self.waiting = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.link.close()

    def next_id(self):
        self.id = (self.id + 1) & 0xFFFF
        return self.id

    def request(self, method, uri, payload=b"", kind=CON, token=None, options=()):
        """A request that was not sent yet."""
        token = os.urandom(4) if token is None else token
        options = path_options(uri) + [(n, uint(v) if isinstance(v, int) else v) for n, v in options]
        return Message(kind, method, self.next_id(), token, options, payload)

    def send(self, message):
        self.link.send(message if isinstance(message, bytes) else message.encode())

    def receive(self, seconds=5.0):
        """The next message, or None."""
        if self.waiting:
            return self.waiting.pop(0)
        datagram = self.link.receive(max(seconds, 0.001))
        return None if datagram is None else decode(datagram)

    def expect(self, matches, what, seconds=5.0):
        """The next message for which `matches` holds; others wait for their turn."""
        held, end = [], time.monotonic() + seconds
        try:
            while True:
                message = self.receive(end - time.monotonic())
                if message is None:
                    raise AssertionError(f"not within {seconds} s: {what}; others: {held}")
                if matches(message):
                    return message
                held.append(message)
        finally:
            self.waiting[:0] = held

    def acknowledge(self, message):
        """An empty acknowledgement if it asks for one."""
        if message.kind == CON:
            self.send(Message(ACK, 0, message.id))

    def reset(self, message):
        self.send(Message(RST, 0, message.id))

    def exchange(self, request, seconds=5.0):
        """Sends a request; its response, whether it comes in the acknowledgement or on its own."""
        self.send(request)
        response = self.expect(lambda m: m.token == request.token and m.code and m.uint(OBSERVE) is None
                               or m.code and m.kind == ACK and m.id == request.id
                               or m.kind == RST and m.id == request.id, f"an answer to {request}", seconds)
        self.acknowledge(response)
        return response

    def ask(self, method, uri, payload=b"", seconds=5.0, **words):
        """Makes a request and sends it; see `request`."""
        return self.exchange(self.request(method, uri, payload, **words), seconds)

    def observe(self, uri, token=None, **words):
        """Begins an observation; its first response."""
        request = self.request(GET, uri, token=token, options=[(OBSERVE, b""), *words.pop("options", [])], **words)
        self.send(request)
        response = self.expect(lambda m: m.token == request.token and m.code, f"the first response for {uri}")
        self.acknowledge(response)
        return response

    def notification(self, token, seconds=5.0, answer=True):
        """The next notification with this token, acknowledged unless `answer` is false."""
        message = self.expect(lambda m: m.token == token and m.code, f"a notification of {token.hex()}", seconds)
        if answer:
            self.acknowledge(message)
        return message

    def silence(self, seconds=0.4):
        """Nothing comes."""
        message = self.receive(seconds)
        assert message is None, f"nothing was to come: {message}"
