"""MQTT-SN 1.2 frames as bytes (section 5), read as strictly as the specification is."""

import dataclasses

DUP, RETAIN, WILL, CLEAN = 0x80, 0x10, 0x08, 0x04
NORMAL, PREDEFINED, SHORT = 0, 1, 2
ACCEPTED, CONGESTION, INVALID_TOPIC, NOT_SUPPORTED = range(4)
FORWARDER = 0xFE
# Number and fields of each kind (5.4); a field is an octet unless it is in WORDS, or REST, which takes what is left.
KINDS = {
    "ADVERTISE": (0x00, "gateway duration"), "SEARCHGW": (0x01, "radius"), "GWINFO": (0x02, "gateway address"),
    "CONNECT": (0x04, "flags protocol duration client_id"), "CONNACK": (0x05, "code"),
    "WILLTOPICREQ": (0x06, ""), "WILLTOPIC": (0x07, "flags topic"), "WILLMSGREQ": (0x08, ""), "WILLMSG": (0x09, "data"),
    "REGISTER": (0x0A, "topic_id id topic"), "REGACK": (0x0B, "topic_id id code"),
    "PUBLISH": (0x0C, "flags topic_id id data"), "PUBACK": (0x0D, "topic_id id code"),
    "PUBCOMP": (0x0E, "id"), "PUBREC": (0x0F, "id"), "PUBREL": (0x10, "id"),
    "SUBSCRIBE": (0x12, "flags id topic"), "SUBACK": (0x13, "flags topic_id id code"),
    "UNSUBSCRIBE": (0x14, "flags id topic"), "UNSUBACK": (0x15, "id"),
    "PINGREQ": (0x16, "client_id"), "PINGRESP": (0x17, ""), "DISCONNECT": (0x18, "duration"),
    "WILLTOPICUPD": (0x1A, "flags topic"), "WILLTOPICRESP": (0x1B, "code"),
    "WILLMSGUPD": (0x1C, "data"), "WILLMSGRESP": (0x1D, "code"),
}
NAMES = {number: name for name, (number, _) in KINDS.items()}
WORDS = {"duration", "topic_id", "id"}
REST = {"address", "client_id", "topic", "data"}
# What a gateway may send to a client, and the flags that are no mistake there (5.3.4).
OF_GATEWAY = {"ADVERTISE", "GWINFO", "CONNACK", "WILLTOPICREQ", "WILLMSGREQ", "REGISTER", "REGACK", "PUBLISH", "PUBACK",
              "PUBCOMP", "PUBREC", "PUBREL", "SUBACK", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "WILLTOPICRESP",
              "WILLMSGRESP"}
FLAGS = {"PUBLISH": 0xF3, "SUBACK": 0x60}


def qos_flag(qos):
    """The QoS bits (5.3.4); -1 is 0b11."""
    return (qos & 3) << 5


@dataclasses.dataclass
class Frame:
    """A frame; fields that its kind does not have are None."""

    name: str
    flags: int = None
    topic_id: int = None
    id: int = None
    code: int = None
    topic: bytes = None
    data: bytes = None
    duration: int = None
    gateway: int = None
    radius: int = None
    protocol: int = None
    client_id: bytes = None
    address: bytes = None

    @property
    def qos(self):
        return [0, 1, 2, -1][self.flags >> 5 & 3]

    @property
    def kind_of_topic(self):
        return self.flags & 3

    def encode(self):
        number, fields = KINDS[self.name]
        body = bytearray()
        for field in fields.split():
            value = getattr(self, field)
            if value is None:
                # The optional fields: the duration of DISCONNECT, what may be empty, an empty WILLTOPIC's flags too.
                continue
            body += value if field in REST else value.to_bytes(2 if field in WORDS else 1, "big")
        return sized(bytes([number]) + body)


def sized(rest):
    """With its length in front, in the shortest form (5.2.1)."""
    length = len(rest) + 1
    return bytes([length]) + rest if length < 256 else b"\x01" + (length + 2).to_bytes(2, "big") + rest


def encode(kind, **fields):
    """`encode("PUBACK", topic_id=1, id=2, code=0)`."""
    return Frame(kind, **fields).encode()


def _length(datagram):
    """The length that it says, and where its kind stands."""
    assert len(datagram) >= 2, f"too short: {datagram.hex()}"
    if datagram[0] != 1:
        return datagram[0], 1
    assert len(datagram) >= 4, f"too short: {datagram.hex()}"
    length = int.from_bytes(datagram[1:3], "big")
    assert length > 255, f"the long form for {length} octets: {datagram.hex()}"
    return length, 3


def decode(datagram):
    """What a gateway has sent. What it must not send is an AssertionError."""
    length, at = _length(datagram)
    assert length == len(datagram), f"says {length} octets, has {len(datagram)}: {datagram.hex()}"
    name = NAMES.get(datagram[at])
    assert name in OF_GATEWAY, f"no gateway sends {name or datagram[at]}: {datagram.hex()}"
    frame, body = Frame(name), datagram[at + 1:]
    for field in KINDS[name][1].split():
        if field == "duration" and name == "DISCONNECT" and not body:
            break
        size = len(body) if field in REST else 2 if field in WORDS else 1
        assert len(body) >= size, f"{name} ends before {field}: {datagram.hex()}"
        value, body = body[:size], body[size:]
        setattr(frame, field, value if field in REST else int.from_bytes(value, "big"))
    assert not body, f"{name} has more than its fields: {datagram.hex()}"
    _check(frame, datagram)
    return frame


def _check(frame, datagram):
    if frame.flags is not None:
        assert frame.flags & ~FLAGS[frame.name] == 0, f"flags {frame.flags:#x} of a {frame.name}: {datagram.hex()}"
        assert frame.qos != -1, f"a gateway sends no QoS -1: {datagram.hex()}"
    if frame.code is not None:
        assert frame.code <= NOT_SUPPORTED, f"a reserved return code: {datagram.hex()}"
    if frame.name == "PUBLISH":
        assert frame.kind_of_topic != 3, f"the reserved kind of topic id: {datagram.hex()}"
        assert (frame.id == 0) == (frame.qos == 0), f"MsgId 0 is QoS 0's alone (5.3.7): {datagram.hex()}"
        assert frame.qos or not frame.flags & DUP, f"DUP with QoS 0: {datagram.hex()}"
    if frame.name in ("PUBLISH", "REGISTER"):
        assert frame.topic_id not in (0, 0xFFFF), f"a reserved topic id (5.3.11): {datagram.hex()}"
    if frame.name == "REGISTER":
        assert frame.id, f"a REGISTER without MsgId: {datagram.hex()}"


def wrap(node, datagram, radius=0):
    """As a forwarder sends it (5.5): the length is of the head alone."""
    return bytes([3 + len(node), FORWARDER, radius]) + node + datagram


def unwrap(datagram):
    """Node and frame of what a gateway has sent to a forwarder."""
    length, at = _length(datagram)
    assert at == 1 and datagram[1] == FORWARDER and 3 <= length < len(datagram), f"no encapsulation: {datagram.hex()}"
    assert datagram[2] & 0xFC == 0, f"reserved bits of Ctrl: {datagram.hex()}"
    return datagram[3:length], datagram[length:]
