"""Devices whose language is one of the shipped scripts: frames in, JSON out, commands back, and a script's mistakes."""

import functools
import json
import operator
import unittest

import harness
from tcp.kit.place import Device, Gateway

LISTENERS = {
    "weather": {"codec": "weather", "device": "json:station", "framing.kind": "line", "framing.begin": "24",
                "framing.checksum": "xor", "framing.checksum_form": "hex", "framing.checksum_from": 1,
                "framing.checksum_to": -3},
    "meters": {"codec": "powermeter"},
    "climate": {"codec": "climate", "transport": "udp", "device": "address-port", "port": 2},
    "pause": {"codec": "climate", "device": "address-port", "port": 2},
}


def sentence(text):
    """With its checksum: the exclusive or of all between `$` and `*`."""
    return f"${text}*{functools.reduce(operator.xor, text.encode()):02X}\r\n"


class Scripts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Gateway(**LISTENERS).__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def device(self, name, kind="tcp"):
        device = Device(self.server.port(name), kind)
        self.addCleanup(device.close)
        return device

    def mqtt(self, topic):
        client = self.server.mqtt(topic)
        self.addCleanup(client.close)
        return client

    def hears(self, mqtt, topic, payload):
        came = mqtt.next()
        self.assertIsNotNone(came, f"nothing at {topic}")
        self.assertEqual((came.topic, json.loads(came.payload)), (topic, payload))

    def test_a_line_protocol(self):
        mqtt = self.mqtt("tcp/WS-0042/up/#")
        device = self.device("weather")
        device.say(sentence("WS-0042,21.5,48,1013.2,3.4"), each=3)
        self.hears(mqtt, "tcp/WS-0042/up/data",
                   {"station": "WS-0042", "temperature": 21.5, "humidity": 48, "pressure": 1013.2, "wind": 3.4})
        failed, damaged = self.server.dropped("script_failed"), self.server.dropped("codec_frame")
        device.say(sentence("WS-0042") + "$WS-0042,0,0,0,0*00\r\n" + sentence("WS-0042,1,,,"))
        self.hears(mqtt, "tcp/WS-0042/up/data", {"station": "WS-0042", "temperature": 1})
        self.assertEqual(self.server.dropped("script_failed"), failed + 1)
        self.assertEqual(self.server.dropped("codec_frame"), damaged + 1)
        mqtt.publish("tcp/WS-0042/dn/settings", '{"interval":60}')
        device.hears(sentence("SET,INT,60").replace("\r", ""))
        mqtt.publish("tcp/WS-0042/dn/settings", '{"id":1,"interval":5}')
        came = mqtt.next()
        self.assertIn(b"from 10 to 3600", came.payload)

    def test_a_binary_meter_that_is_answered_and_answers(self):
        mqtt = self.mqtt("tcp/202600012345/up/#")
        device = self.device("meters")
        device.say(bytes.fromhex("68 07 01 202600012345 13b0"), each=1)
        device.hears(bytes.fromhex("68 02 81 00 ddd4"))
        device.say(bytes.fromhex("68 10 02 0007 08fd 01b0 000003e2 0012d687 01 b7b8"))
        self.hears(mqtt, "tcp/202600012345/up/reading",
                   {"voltage": 230.1, "current": 4.32, "power": 994, "energy": 1234567, "relay": True})
        device.hears(bytes.fromhex("68 03 82 0007 a467"))
        mqtt.publish("tcp/202600012345/dn/relay", '{"id":"r","on":true}')
        device.hears(bytes.fromhex("68 02 90 01 1044"))
        device.say(bytes.fromhex("68 03 03 90 00 d98d"))
        self.hears(mqtt, "tcp/202600012345/up/reply", {"id": "r", "kind": "relay", "ok": True})

    def test_a_published_payload_codec_in_datagrams_and_in_a_stream(self):
        for name, kind in (("climate", "udp"), ("pause", "tcp")):
            device = self.device(name, kind)
            topic = f"tcp/{harness.HOST}:{device.socket.getsockname()[1]}"
            mqtt = self.mqtt(f"{topic}/up/#")
            device.say(bytes.fromhex("64ffba57"))
            self.hears(mqtt, f"{topic}/up/data", {"battery": 3, "temperature": -7, "humidity": 87})
            normalized = mqtt.next()
            self.assertEqual(normalized.topic, f"{topic}/up/normalized")
            mqtt.publish(f"{topic}/dn/interval", '{"interval":15}')
            device.hears(bytes([0, 15]))


if __name__ == "__main__":
    unittest.main()
