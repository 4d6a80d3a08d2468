"""What packets.py leaves out: CONNECT with a will, PUBLISH with DUP and properties, and reading of both directions."""

import dataclasses
import struct

import packets

MESSAGE_EXPIRY, RECEIVE_MAXIMUM, WILL_DELAY = 0x02, 0x21, 0x18


@dataclasses.dataclass
class Publication:
    """A PUBLISH as it came."""

    topic: str
    payload: bytes
    qos: int
    dup: bool
    retain: bool
    packet_id: int
    properties: dict


@dataclasses.dataclass
class Will:
    """What a CONNECT says about its will."""

    topic: str
    payload: bytes
    qos: int
    delay: int = 0


def connect(client_id, version, clean, properties=None, will=None):
    """CONNECT without keep-alive."""
    flags = (2 if clean else 0) | (4 | will.qos << 3 if will else 0)
    body = packets.text("MQTT") + bytes([version, flags, 0, 0])
    if version == 5:
        body += packets.properties(properties or {})
    body += packets.text(client_id)
    if will:
        if version == 5:
            body += packets.properties({WILL_DELAY: will.delay})
        body += packets.text(will.topic) + packets.text(will.payload)
    return packets.packet(packets.CONNECT, body)


def publish(publication, version):
    """PUBLISH."""
    body = packets.text(publication.topic)
    if publication.qos:
        body += struct.pack(">H", publication.packet_id)
    if version == 5:
        body += packets.properties(publication.properties)
    flags = (8 if publication.dup else 0) | publication.qos << 1 | (1 if publication.retain else 0)
    return packets.packet(packets.PUBLISH, body + publication.payload, flags)


def read_publish(flags, body, version):
    """The fields of a PUBLISH."""
    qos, size = flags >> 1 & 3, struct.unpack(">H", body[:2])[0]
    topic, rest = body[2:2 + size].decode(), body[2 + size:]
    packet_id, properties = 0, {}
    if qos:
        packet_id, rest = struct.unpack(">H", rest[:2])[0], rest[2:]
    if version == 5:
        properties, rest = packets.read_properties(rest)
    return Publication(topic, rest, qos, bool(flags & 8), bool(flags & 1), packet_id, properties)


def answer(kind, packet_id):
    """PUBACK, PUBREC, PUBREL or PUBCOMP that says success."""
    return packets.packet(kind, struct.pack(">H", packet_id), 2 if kind == packets.PUBREL else 0)


def read_answer(body):
    """Packet id and reason code."""
    return struct.unpack(">H", body[:2])[0], body[2] if len(body) > 2 else 0


def subscribe(filters, packet_id, version):
    """SUBSCRIBE; `filters` are pairs of filter and QoS."""
    body = struct.pack(">H", packet_id) + (b"\0" if version == 5 else b"")
    return packets.packet(packets.SUBSCRIBE, body + b"".join(packets.text(f) + bytes([qos]) for f, qos in filters), 2)


def unsubscribe(filters, packet_id, version):
    """UNSUBSCRIBE."""
    body = struct.pack(">H", packet_id) + (b"\0" if version == 5 else b"")
    return packets.packet(packets.UNSUBSCRIBE, body + b"".join(packets.text(f) for f in filters), 2)


class Splitter:
    """Whole packets out of the bytes that came."""

    def __init__(self):
        self.buffer = bytearray()

    def feed(self, data):
        """Kind, flags and body of each packet that is whole by now."""
        self.buffer += data
        while len(self.buffer) >= 2:
            try:
                length, digits = packets.read_varint(self.buffer[1:5])
            except ValueError:
                return
            end = 1 + digits + length
            if len(self.buffer) < end:
                return
            first, body = self.buffer[0], bytes(self.buffer[1 + digits:end])
            del self.buffer[:end]
            yield first >> 4, first & 15, body
