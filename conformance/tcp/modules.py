"""Codecs in WebAssembly within the gateway: the meter of `etc/codecs/examples` in C, beside modules that mean harm."""

import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import unittest

import harness
from tcp.kit.place import Device, Gateway

EXAMPLE = harness.HOUSE / "etc" / "codecs" / "examples" / "powermeter.c"
# What happens with a first byte; every other is a frame by itself.
HOSTILE = """
static unsigned char input[65536];
static volatile unsigned sum;
#define EXPORT(name) __attribute__((export_name(#name))) name
unsigned EXPORT(tidegate_abi)(void) { return 1; }
unsigned char *EXPORT(alloc)(unsigned len) { return len <= sizeof input ? input : 0; }
static unsigned deeper(unsigned n) { return n ? deeper(n + 1) + sum : 0; }
unsigned long long EXPORT(decode)(const unsigned char *b, unsigned len) {
  static const char json[] = "{\\"consumed\\":1,\\"up\\":[{\\"kind\\":\\"byte\\",\\"data\\":1}]}";
  switch (*b) {
    case 'l': for (;;) sum++;
    case 'r': return deeper(1);
    case 'm': for (;;) if (__builtin_wasm_memory_grow(0, 1) == -1) __builtin_trap();
    case 'p': return 0xffffffffffffffffull;
    case 'j': return (unsigned long long)(unsigned)json << 32 | 5;
  }
  return (unsigned long long)(unsigned)json << 32 | (sizeof json - 1);
}
"""


def crc16(data):
    """CRC-16/MODBUS."""
    crc = 0xFFFF
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc.to_bytes(2, "little")


def frame(kind, body):
    """68, length, type, body, CRC."""
    head = bytes([0x68, 1 + len(body), kind]) + body
    return head + crc16(head)


def reading(number, decivolts):
    """A reading of a meter that is at rest."""
    return frame(2, number.to_bytes(2, "big") + decivolts.to_bytes(2, "big") + bytes(11))


def build(source, to):
    """The module of a source file in C, with the command in the head of the example."""
    head = re.search(r"clang --.*? -o", EXAMPLE.read_text(), re.S)[0].replace("\\\n *", " ")
    subprocess.run(["sh", "-c", f"{head} {to} {source}"], check=True, capture_output=True)


class Modules(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-modules-"))
        build(EXAMPLE, cls.folder / "meter.wasm")
        shutil.copy(harness.HOUSE / "etc" / "codecs" / "powermeter.yaml", cls.folder / "meter.yaml")
        (cls.folder / "hostile.c").write_text(HOSTILE)
        build(cls.folder / "hostile.c", cls.folder / "hostile.wasm")
        cls.server = Gateway(meters={"codec": "meter", "command_timeout": "2 s"},
                             hostile={"codec": "hostile", "device": "address-port"})
        cls.server.keys |= {"codecs.folder": str(cls.folder)}
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)
        shutil.rmtree(cls.folder)

    def meter(self, serial):
        device = Device(self.server.port("meters"))
        self.addCleanup(device.close)
        device.say(frame(1, bytes.fromhex(serial)))
        device.hears(frame(0x81, b"\0"))
        return device

    def mqtt(self, topic):
        client = self.server.mqtt(topic)
        self.addCleanup(client.close)
        return client

    def test_a_meter_logs_in_and_each_of_its_readings_is_published_and_answered(self):
        mqtt = self.mqtt("tcp/260000000001/up/#")
        device = self.meter("260000000001")
        device.say(b"".join(reading(n, 2300 + n) for n in range(100)), each=17)
        for n in range(100):
            came = mqtt.next()
            self.assertEqual(came.topic, "tcp/260000000001/up/reading")
            self.assertEqual(json.loads(came.payload)["voltage"], (2300 + n) / 10)
            device.hears(frame(0x82, n.to_bytes(2, "big")))

    def test_a_command_is_over_when_the_meter_says_so(self):
        mqtt = self.mqtt("tcp/260000000002/up/#")
        device = self.meter("260000000002")
        mqtt.publish("tcp/260000000002/dn/relay", '{"id": 7, "on": true}')
        device.hears(frame(0x90, b"\1"))
        device.say(frame(3, b"\x90\0"))
        outcome = json.loads(mqtt.next().payload)
        self.assertEqual((outcome["id"], outcome["ok"]), (7, True))
        mqtt.publish("tcp/260000000002/dn/relay", '{"id": 8, "on": 2}')
        outcome = json.loads(mqtt.next().payload)
        self.assertEqual((outcome["id"], outcome["ok"]), (8, False))
        self.assertIn("a meter takes", outcome["error"])

    def test_a_module_that_fails_costs_its_frame_and_neither_its_connection_nor_others(self):
        mqtt = self.mqtt("tcp/+/up/byte")
        before = self.server.dropped("codec_frame")
        hostile = Device(self.server.port("hostile"))
        self.addCleanup(hostile.close)
        for number, harm in enumerate(b"lrmpj"):
            hostile.say(bytes([harm]))
            harness.until(lambda n=number: self.server.dropped("codec_frame") > before + n, f"{chr(harm)} is counted")
            # Stopped again and again it rests, at most 400 ms here.
            time.sleep(0.5)
            hostile.say(b".")
            self.assertEqual(mqtt.next().payload, b"1")
        meter = self.meter("260000000003")
        meter.say(reading(1, 2300))
        meter.hears(frame(0x82, b"\0\1"))

    def test_others_are_answered_soon_while_one_connection_loops(self):
        loops = Device(self.server.port("hostile"))
        self.addCleanup(loops.close)
        meter = self.meter("260000000004")
        times = []
        for number in range(100):
            loops.say(b"l")
            began = time.monotonic()
            meter.say(reading(number, 2300))
            meter.hears(frame(0x82, number.to_bytes(2, "big")))
            times.append(time.monotonic() - began)
        self.assertLess(sorted(times)[90], 0.5)

    def test_a_module_that_breaks_its_examples_is_not_taken(self):
        # The meter says something else at once: its examples are for the one that is in use.
        good = (self.folder / "meter.wasm").read_bytes()
        self.addCleanup((self.folder / "meter.wasm").write_bytes, good)
        source = EXAMPLE.read_text().replace("decimal(u16_at(b + 2), 10)", "decimal(u16_at(b + 2), 100)")
        (self.folder / "other.c").write_text(source)
        build(self.folder / "other.c", self.folder / "meter.wasm")
        done = self.server.cli("codec", "reload", "meter", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("two readings in one segment", done.stdout + done.stderr)
        mqtt = self.mqtt("tcp/260000000005/up/#")
        self.meter("260000000005").say(reading(1, 2301))
        self.assertEqual(json.loads(mqtt.next().payload)["voltage"], 230.1)


if __name__ == "__main__":
    unittest.main()
