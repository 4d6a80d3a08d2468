// An electricity meter that speaks in binary frames with a checksum:
//
//   68 | length | type | body … | CRC-16/MODBUS, low byte first
//
// The length counts type and body; all other numbers are big endian.
//
//   01 hello    the serial number, 12 digits in 6 bytes      answer 81, one byte: 0 welcome, 1 go away
//   02 reading  number (2), 0.1 V (2), 0.01 A (2), W (4, signed), Wh (4), flags (1; bit 0: the relay is on)
//                                                            answer 82, the reading's number (2)
//   03 done     which command (1), 0 or why not (1)          no answer
//   90 relay    to the meter: 1 on, 0 off (1)                answered with 03
//   91 interval to the meter: seconds between readings (2)   answered with 03
//
// This is a stream codec: codecs/README.md walks through it. `etc/codecs/examples` has the same in Rust and in C.

const START = 0x68;
const LENGTHS = { 0x01: 6, 0x02: 15, 0x03: 2 };
const FAILURES = ["", "not supported", "bad value", "locked"];

function decode(buffer, context) {
  if (buffer.length < 2) return { consumed: 0 };
  if (buffer[0] !== START) {
    const next = buffer.indexOf(START);
    throw { message: "a frame begins with 68", skip: next < 0 ? buffer.length : next };
  }
  const end = 2 + buffer[1];
  if (buffer.length < end + 2) return { consumed: 0 };
  const sum = buffer[end] | (buffer[end + 1] << 8);
  const right = crc16(buffer.subarray(0, end));
  if (sum !== right) {
    throw { message: `the CRC is ${sum.toString(16)}, and ${right.toString(16)} would be right`, skip: end + 2 };
  }
  const type = buffer[2];
  const body = buffer.subarray(3, end);
  if (body.length < LENGTHS[type]) throw { message: `type ${type} has ${LENGTHS[type]} bytes`, skip: end + 2 };
  return { consumed: end + 2, ...meaning(type, body) };
}

function meaning(type, body) {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  switch (type) {
    case 0x01: {
      const device = Array.from(body, (b) => b.toString(16).padStart(2, "0")).join("");
      return { up: { login: { device } }, answer: frame(0x81, [0]), refuse: frame(0x81, [1]) };
    }
    case 0x02:
      return {
        up: {
          kind: "reading",
          data: {
            voltage: view.getUint16(2) / 10,
            current: view.getUint16(4) / 100,
            power: view.getInt32(6),
            energy: view.getUint32(10),
            relay: (body[14] & 1) === 1,
          },
        },
        answer: frame(0x82, [body[0], body[1]]),
      };
    case 0x03: {
      const ok = body[1] === 0;
      const reply = { key: body[0], ok };
      if (!ok) reply.data = { reason: FAILURES[body[1]] || `code ${body[1]}` };
      return { up: { reply } };
    }
    default:
      // A newer meter may say more than this codec knows.
      return { up: { kind: "unknown", data: { type } } };
  }
}

// What was published on tcp/{device}/dn/{kind}. The key is how the answer is known: a second `relay` waits for the first.
function encode({ kind, value }) {
  if (kind === "relay" && typeof value.on === "boolean") {
    return { bytes: frame(0x90, [value.on ? 1 : 0]), key: 0x90 };
  }
  const seconds = value.seconds;
  if (kind === "interval" && Number.isInteger(seconds) && seconds >= 1 && seconds <= 0xffff) {
    return { bytes: frame(0x91, [seconds >> 8, seconds & 0xff]), key: 0x91 };
  }
  throw new Error('a meter takes relay {"on": true} and interval {"seconds": 1 to 65535}');
}

function frame(type, body) {
  const bytes = [START, 1 + body.length, type, ...body];
  const sum = crc16(bytes);
  return [...bytes, sum & 0xff, sum >> 8];
}

function crc16(bytes) {
  let crc = 0xffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >> 1) ^ 0xa001 : crc >> 1;
  }
  return crc;
}
