"""MQTT packets by hand, for what no client library does: bad bytes, SCRAM, thousands of connections.

Only as much of the standard as these tests need, in versions 3.1.1 (4) and 5.0 (5).
"""

import socket
import struct

HOST = "127.0.0.1"
CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(8, 16)
# Properties of 5.0 that are written or read here, with the kind of their value (MQTT-2.2.2.2).
SESSION_EXPIRY, AUTHENTICATION_METHOD, AUTHENTICATION_DATA = 0x11, 0x15, 0x16
KINDS = {0x01: 1, 0x02: 4, 0x03: "text", 0x08: "text", 0x09: "text", 0x0B: "varint", 0x11: 4, 0x12: "text", 0x13: 2,
         0x15: "text", 0x16: "text", 0x17: 1, 0x18: 4, 0x19: 1, 0x1A: "text", 0x1C: "text", 0x1F: "text", 0x21: 2,
         0x22: 2, 0x23: 2, 0x24: 1, 0x25: 1, 0x26: "pair", 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1}


def varint(number):
    """Variable byte integer."""
    out = bytearray()
    while True:
        number, digit = divmod(number, 128)
        out.append(digit | (0x80 if number else 0))
        if not number:
            return bytes(out)


def text(value):
    """Length and bytes; bytes are taken as they are."""
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack(">H", len(raw)) + raw


def packet(kind, body=b"", flags=0):
    """A packet of these bytes."""
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


def properties(values):
    """A property list; values of binary or text kind are bytes or str."""
    body = b""
    for name, value in values.items():
        kind = KINDS[name]
        body += bytes([name]) + (text(value) if kind == "text" else value.to_bytes(kind, "big"))
    return varint(len(body)) + body


def connect(client_id, version=4, clean=True, keep_alive=0, props=None, user=None, password=None):
    """CONNECT."""
    flags = (2 if clean else 0) | (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
    body = text("MQTT") + bytes([version, flags]) + struct.pack(">H", keep_alive)
    if version == 5:
        body += properties(props or {})
    body += text(client_id)
    for field in (user, password):
        if field is not None:
            body += text(field)
    return packet(CONNECT, body)


def publish(topic, payload=b"", qos=0, packet_id=1, version=4, retain=False):
    """PUBLISH."""
    body = text(topic) + (struct.pack(">H", packet_id) if qos else b"")
    if version == 5:
        body += b"\0"
    return packet(PUBLISH, body + payload, qos << 1 | (1 if retain else 0))


def subscribe(filters, qos=0, packet_id=1, version=4):
    """SUBSCRIBE."""
    body = struct.pack(">H", packet_id) + (b"\0" if version == 5 else b"")
    return packet(SUBSCRIBE, body + b"".join(text(f) + bytes([qos]) for f in filters), 2)


class Closed(Exception):
    """The server has closed the connection."""


class Client:
    """A blocking connection."""

    def __init__(self, port, version=4, timeout=10.0):
        self.version = version
        self.socket = socket.create_connection((HOST, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        """Writes all of it."""
        self.socket.sendall(data)

    def _fill(self, count):
        while len(self.buffer) < count:
            try:
                data = self.socket.recv(65536)
            except ConnectionError as error:
                raise Closed from error
            if not data:
                raise Closed
            self.buffer += data

    def receive(self):
        """The next packet: kind, flags, body."""
        self._fill(2)
        length, shift, at = 0, 0, 1
        while True:
            self._fill(at + 1)
            digit = self.buffer[at]
            length |= (digit & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if not digit & 0x80:
                break
        self._fill(at + length)
        kind, flags = self.buffer[0] >> 4, self.buffer[0] & 15
        body = bytes(self.buffer[at:at + length])
        del self.buffer[:at + length]
        return kind, flags, body

    def expect(self, kind):
        """The body of the next packet, which has to be of this kind."""
        found, _, body = self.receive()
        assert found == kind, f"packet {found} in place of {kind}: {body!r}"
        return body

    def connect(self, client_id, **words):
        """CONNECT; the return or reason code of CONNACK."""
        self.send(connect(client_id, self.version, **words))
        return self.expect(CONNACK)[1]

    def subscribe(self, *filters, qos=0):
        """SUBSCRIBE; the reason codes of SUBACK."""
        self.send(subscribe(filters, qos, 1, self.version))
        body = self.expect(SUBACK)
        return list(body[-len(filters):])

    def message(self):
        """Topic, payload and QoS of the next PUBLISH, acknowledged where QoS 1 asks for it."""
        kind, flags, body = self.receive()
        assert kind == PUBLISH, f"packet {kind} in place of PUBLISH: {body!r}"
        qos, length = flags >> 1 & 3, struct.unpack(">H", body[:2])[0]
        topic, rest = body[2:2 + length].decode(), body[2 + length:]
        if qos:
            packet_id, rest = rest[:2], rest[2:]
            if qos == 1:
                self.send(packet(PUBACK, packet_id))
        if self.version == 5:
            count, size = read_varint(rest)
            rest = rest[count + size:]
        return topic, rest, qos

    def ping(self):
        """PINGREQ and its answer: what was sent before has been worked on."""
        self.send(packet(PINGREQ))
        self.expect(PINGRESP)

    def ends(self, seconds=10.0):
        """Reads until the server closes; its reason if it says one in a DISCONNECT."""
        self.socket.settimeout(seconds)
        reason = None
        try:
            while True:
                kind, _, body = self.receive()
                if kind == DISCONNECT:
                    reason = body[0] if body else 0
        except Closed:
            return reason


def read_varint(data):
    """Value, and how many bytes it has."""
    value, shift = 0, 0
    for index, digit in enumerate(data):
        value |= (digit & 0x7F) << shift
        shift += 7
        if not digit & 0x80:
            return value, index + 1
    raise ValueError("cut off")


def read_properties(data):
    """A property list as a dictionary, and what comes after it."""
    length, at = read_varint(data)
    rest, data, found = data[at + length:], data[at:at + length], {}
    while data:
        name, data = data[0], data[1:]
        kind = KINDS[name]
        if isinstance(kind, int):
            found[name], data = int.from_bytes(data[:kind], "big"), data[kind:]
        elif kind == "varint":
            found[name], size = read_varint(data)
            data = data[size:]
        else:
            for _ in range(2 if kind == "pair" else 1):
                size = struct.unpack(">H", data[:2])[0]
                found[name], data = data[2:2 + size], data[2 + size:]
    return found, rest
