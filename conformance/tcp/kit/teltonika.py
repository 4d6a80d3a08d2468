"""Teltonika's protocol as the vendor's pages have it, from the side of a tracker."""

import struct

CODEC_8, CODEC_8E, CODEC_16, CODEC_12 = 0x08, 0x8e, 0x10, 0x0c
COMMAND, RESPONSE = 5, 6
# IO elements: the ignition, one byte; the odometer of the journey, four.
IGNITION, ODOMETER = 239, 199


def crc16(data):
    """CRC-16/IBM."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xa001 if crc & 1 else crc >> 1
    return crc


def packet(data):
    """Preamble, length, data, CRC."""
    return struct.pack(">II", 0, len(data)) + data + struct.pack(">I", crc16(data))


def login(imei):
    return struct.pack(">H", len(imei)) + imei.encode()


def luhn(fourteen):
    """An IMEI of fourteen digits and its check digit."""
    total = sum(sum(divmod(int(digit) * (1 + place % 2), 10)) for place, digit in enumerate(fourteen))
    return fourteen + str(-total % 10)


def record(codec, number):
    """An AVL record whose odometer is `number`."""
    head = struct.pack(">QBiihHBH", 1_763_726_400_000 + 1000 * number, 0, 252_700_000 + number, 546_900_000, 120, 90, 9, 60)
    if codec == CODEC_8:
        return head + struct.pack(">BB BBB B BBI B", 0, 2, 1, IGNITION, 1, 0, 1, ODOMETER, number, 0)
    if codec == CODEC_16:
        return head + struct.pack(">HBB BHB B BHI B", 0, 7, 2, 1, IGNITION, 1, 0, 1, ODOMETER, number, 0)
    return head + struct.pack(">HH HHB H HHI H H", 0, 2, 1, IGNITION, 1, 0, 1, ODOMETER, number, 0, 0)


def data(codec, numbers):
    """Codec id, count, records, count."""
    count = bytes([len(numbers)])
    return bytes([codec]) + count + b"".join(record(codec, number) for number in numbers) + count


def records(codec, numbers):
    return packet(data(codec, numbers))


def datagram(packet_id, avl_packet_id, imei, codec, numbers):
    """The same over UDP."""
    body = struct.pack(">HBB", packet_id, 1, avl_packet_id) + login(imei) + data(codec, numbers)
    return struct.pack(">H", len(body)) + body


def response(text):
    """What answers a command with Codec 12."""
    return packet(struct.pack(">BBBI", CODEC_12, 1, RESPONSE, len(text)) + text.encode() + b"\1")


def command(data):
    """The text of a command with Codec 12."""
    codec, count, kind, length = struct.unpack_from(">BBBI", data)
    assert (codec, count, kind, data[-1], len(data)) == (CODEC_12, 1, COMMAND, 1, length + 8), data.hex()
    return data[7:-1].decode()


async def heard(reader):
    """The next thing that the server says after the login: a count, or the text of a command."""
    count, = struct.unpack(">I", await reader.readexactly(4))
    if count:
        return count
    length, = struct.unpack(">I", await reader.readexactly(4))
    data = await reader.readexactly(length)
    crc, = struct.unpack(">I", await reader.readexactly(4))
    assert crc == crc16(data), f"the CRC is wrong: {data.hex()}"
    return command(data)


def number_of(location):
    """The odometer of a record that the gateway has published."""
    return location["io"][str(ODOMETER)]
