"""Devices of simple languages, from end to end: logins, values, commands, take-over, silence, garbage, restarts."""

import json
import re
import subprocess
import time
import unittest

import harness
from tcp.kit.place import Device, Gateway, trusting

LISTENERS = {
    "lines": {"codec": "lines", "device": "first-frame", "keep_alive": "2 s", "login_timeout": "2 s"},
    "json": {"codec": "json-lines", "command_timeout": "1 s", "command_retries": 1},
    "users": {"codec": "json-lines", "anonymous": "never"},
    "meters": {"codec": "raw", "device": "address", "framing.kind": "length", "framing.begin": "68",
               "framing.offset": 1, "framing.length_size": 1, "framing.adjust": 2, "framing.checksum": "crc16-modbus",
               "framing.checksum_endian": "little"},
    "pause": {"codec": "raw", "device": "address-port", "framing.kind": "idle", "framing.pause": "100 ms"},
    "udp": {"codec": "json-lines", "transport": "udp", "device": "json:id", "mountpoint": "field/"},
}


def crc16_modbus(data):
    """As the Modbus specification computes it."""
    crc = 0xFFFF
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc.to_bytes(2, "little")


def meter(payload):
    """A frame: 0x68, length, payload, CRC."""
    head = b"\x68" + bytes([len(payload)]) + payload
    return head + crc16_modbus(head)


class Place(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Gateway(**LISTENERS)
        authority = cls.server.authority
        cls.server.listener("sealed", codec="lines", device="certificate", **{
            "tls.certificate": str(authority.server), "tls.key": str(authority.server_key),
            "tls.client_ca": str(authority.ca)})
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def device(self, name, kind="tcp", **words):
        device = Device(self.server.port(name), kind, **words)
        self.addCleanup(device.close)
        return device

    def mqtt(self, topic=None):
        client = self.server.mqtt(topic)
        self.addCleanup(client.close)
        return client

    def hears(self, mqtt, topic, payload):
        came = mqtt.next()
        self.assertIsNotNone(came, f"nothing at {topic}")
        value = json.loads(came.payload) if isinstance(payload, dict) else came.payload
        self.assertEqual((came.topic, value), (topic, payload))

    def json(self, device, **words):
        """A device of JSON lines that is let in."""
        link = self.device("json")
        link.say(json.dumps({"login": {"device": device} | words}) + "\n")
        link.hears('{"login":{"ok":true}}\n')
        return link


class Devices(Place):
    def test_a_line_is_a_message_and_a_message_a_line_for_mosquitto_too(self):
        device = self.device("lines")
        device.say("pump-1\n")
        port = str(self.server.port("tcp"))
        listener = subprocess.Popen(["mosquitto_sub", "-p", port, "-t", "tcp/pump-1/up/#", "-v", "-C", "2", "-W", "10"],
                                    stdout=subprocess.PIPE, text=True)
        harness.until(lambda: "tcp/pump-1/up/#" in self.server.cli("subscriptions").stdout, "it subscribes")
        device.say("hel", each=1)
        device.say("lo\r\nworld\n")
        out, _ = listener.communicate(timeout=15)
        self.assertEqual(out, "tcp/pump-1/up/data hello\ntcp/pump-1/up/data world\n")
        subprocess.run(["mosquitto_pub", "-p", port, "-q", "1", "-t", "tcp/pump-1/dn/data", "-m", "on"], check=True)
        device.hears("on\n")

    def test_frames_with_a_checksum_however_they_are_cut(self):
        mqtt = self.mqtt("tcp/127.0.0.1/up/#")
        device = self.device("meters")
        device.say(meter(b"one") + meter(b"two"), each=1)
        self.hears(mqtt, "tcp/127.0.0.1/up/data", b"one")
        self.hears(mqtt, "tcp/127.0.0.1/up/data", b"two")
        before = self.server.dropped("codec_frame")
        device.say(meter(b"bad")[:-1] + b"\0" + meter(b"four"))
        self.hears(mqtt, "tcp/127.0.0.1/up/data", b"four")
        self.assertEqual(self.server.dropped("codec_frame"), before + 1)
        mqtt.publish("tcp/127.0.0.1/dn/data", b"\x01\x02")
        device.hears(meter(b"\x01\x02"))

    def test_a_pause_ends_a_frame(self):
        mqtt = self.mqtt("tcp/+/up/data")
        device = self.device("pause")
        device.say("AT")
        device.say("+X")
        topic = f"tcp/{harness.HOST}:{device.socket.getsockname()[1]}/up/data"
        self.hears(mqtt, topic, b"AT+X")
        time.sleep(0.2)
        device.say("again")
        self.hears(mqtt, topic, b"again")

    def test_tls_certificates_name_devices(self):
        authority = self.server.authority
        mqtt = self.mqtt("tcp/device-1/up/#")
        context = trusting(authority, (authority.client, authority.client_key))
        device = self.device("sealed", context=context)
        device.say("sealed\n")
        self.hears(mqtt, "tcp/device-1/up/data", b"sealed")
        mqtt.publish("tcp/device-1/dn/data", "back")
        device.hears("back\n")
        self.device("sealed", context=trusting(authority)).is_closed()

    def test_datagrams_name_their_device(self):
        mqtt = self.mqtt("field/#")
        device = self.device("udp", "udp")
        device.say('{"id":"a","v":1}\n')
        self.hears(mqtt, "field/a/up/data", {"id": "a", "v": 1})
        # From another port, as behind a translator that has forgotten it.
        other = self.device("udp", "udp")
        other.say('{"id":"a","v":2}')
        self.hears(mqtt, "field/a/up/data", {"id": "a", "v": 2})
        mqtt.publish("field/a/dn/led", '{"id":1,"on":true}')
        other.hears('{"kind":"led","value":{"id":1,"on":true}}\n')
        self.hears(mqtt, "field/a/dn/led", {"id": 1, "on": True})
        other.say('{"reply":{"key":1}}')
        self.hears(mqtt, "field/a/up/reply", {"id": 1, "kind": "led", "ok": True})


class Lifecycle(Place):
    def test_who_has_a_password_has_to_say_it(self):
        mqtt = self.mqtt("tcp/alice-1/up/#")
        login = {"device": "alice-1", "username": "alice", "password": "wrong"}
        device = self.device("users")
        device.say(json.dumps({"login": login}) + '\n{"v":0}\n')
        device.hears('{"login":{"ok":false}}\n')
        device.is_closed()
        device = self.device("users")
        device.say(json.dumps({"login": login | {"password": harness.USERS["alice"]}}) + '\n{"v":1}\n')
        device.hears('{"login":{"ok":true}}\n')
        self.hears(mqtt, "tcp/alice-1/up/data", {"v": 1})
        # Somebody else cannot be her device.
        other = self.device("users")
        bob = {"device": "alice-1", "username": "bob", "password": harness.USERS["bob"]}
        other.say(json.dumps({"login": bob}) + "\n")
        other.hears('{"login":{"ok":false}}\n')
        device.say('{"v":2}\n')
        self.hears(mqtt, "tcp/alice-1/up/data", {"v": 2})

    def test_nothing_is_published_before_the_login(self):
        mqtt = self.mqtt("tcp/#")
        before = self.server.dropped("no_login")
        device = self.device("json")
        device.say('{"v":1}\n')
        harness.until(lambda: self.server.dropped("no_login") > before, "it is counted")
        device.say('{"login":{"device":"late"}}\n{"v":2}\n')
        device.hears('{"login":{"ok":true}}\n')
        self.hears(mqtt, "tcp/late/up/data", {"v": 2})

    def test_a_second_connection_takes_the_session_over(self):
        mqtt = self.mqtt("tcp/twice/up/#")
        first = self.json("twice")
        second = self.json("twice")
        first.is_closed()
        mqtt.publish("tcp/twice/dn/led", "1")
        second.hears('{"kind":"led","value":1}\n')
        second.say('{"v":1}\n')
        self.hears(mqtt, "tcp/twice/up/data", {"v": 1})

    def test_two_devices_in_one_connection_are_two_sessions(self):
        mqtt = self.mqtt("tcp/+/up/#")
        device = self.json("one")
        device.say('{"v":1}\n{"login":{"device":"two"}}\n{"v":2}\n')
        device.hears('{"login":{"ok":true}}\n')
        self.hears(mqtt, "tcp/one/up/data", {"v": 1})
        self.hears(mqtt, "tcp/two/up/data", {"v": 2})

    def test_who_is_silent_is_closed(self):
        before = self.server.closed("keep_alive")
        device, stranger = self.device("lines"), self.device("lines")
        device.say("silent-1\n")
        time.sleep(1)
        device.say("\n")
        stranger.is_closed(2)
        device.is_closed(4)
        self.assertEqual(self.server.closed("keep_alive"), before + 1)

    def test_garbage_ends_the_connection_of_who_sends_it_and_of_nobody_else(self):
        mqtt = self.mqtt("tcp/good/up/#")
        good, bad = self.json("good"), self.json("bad")
        bad.say("no json\n" * 5000)
        bad.is_closed()
        endless = self.device("json")
        endless.say("x" * 200_000)
        endless.is_closed()
        good.say('{"v":1}\n')
        self.hears(mqtt, "tcp/good/up/data", {"v": 1})


class Commands(Place):
    def test_the_outcome_of_a_command_has_its_id(self):
        mqtt = self.mqtt("tcp/c1/up/#")
        device = self.json("c1")
        mqtt.publish("tcp/c1/dn/interval", '{"id":7,"seconds":60}')
        device.hears('{"kind":"interval","value":{"id":7,"seconds":60}}\n')
        device.say('{"reply":{"key":7,"data":{"was":30}}}\n')
        self.hears(mqtt, "tcp/c1/up/reply", {"id": 7, "kind": "interval", "ok": True, "data": {"was": 30}})

    def test_a_command_without_an_answer_is_sent_again_and_given_up(self):
        mqtt = self.mqtt("tcp/c2/up/#")
        device = self.json("c2")
        mqtt.publish("tcp/c2/dn/led", '{"id":8}')
        sent = '{"kind":"led","value":{"id":8}}\n'
        device.hears(sent + sent)
        self.hears(mqtt, "tcp/c2/up/reply", {"id": 8, "kind": "led", "ok": False, "error": "timeout"})
        device.is_silent()

    def test_commands_wait_for_a_device_that_is_away_and_are_over_when_it_answers(self):
        self.json("c3").close()
        mqtt = self.mqtt("tcp/c3/up/#")
        for number in range(5):
            mqtt.publish("tcp/c3/dn/led", json.dumps({"id": number}))
        device = self.json("c3")
        for number in range(5):
            device.hears(f'{{"kind":"led","value":{{"id":{number}}}}}\n')
        device.say('{"reply":{"key":0}}\n{"reply":{"key":1}}\n')
        for number in range(2):
            self.hears(mqtt, "tcp/c3/up/reply", {"id": number, "kind": "led", "ok": True})
        device.close()
        device = self.json("c3")
        for number in range(2, 5):
            device.hears(f'{{"kind":"led","value":{{"id":{number}}}}}\n')


class Restarts(unittest.TestCase):
    """A gateway for each test, which ends it."""

    def setUp(self):
        self.server = Gateway(json={"codec": "json-lines"}).__enter__()
        self.addCleanup(lambda: self.server.__exit__(None, None, None))

    def login(self, name):
        device = Device(self.server.port("json"))
        self.addCleanup(device.close)
        device.say(f'{{"login":{{"device":"{name}"}}}}\n')
        device.hears('{"login":{"ok":true}}\n')
        return device

    def test_a_command_outlives_the_gateway(self):
        self.login("r1").close()
        mqtt = self.server.mqtt()
        mqtt.publish("tcp/r1/dn/led", '{"id":1}')
        mqtt.close()
        for end in (self.server.again, self.server.killed):
            end()
            self.login("r1").hears('{"kind":"led","value":{"id":1}}\n')


class Readme(unittest.TestCase):
    def test_the_example_does_what_it_says(self):
        """With the configuration of the README, at other ports."""
        text = (harness.HOUSE / "gateways/tcp/README.md").read_text()
        toml = re.search(r"<<EOF\n(.*?)EOF", text, re.S)[1]
        server = Gateway()
        server.listener("try")
        toml = toml.replace(":1883", f":{server.port('tcp')}").replace(":7000", f":{server.port('try')}")
        (server.folder / "etc" / "tidegate.toml").write_text(toml)
        (server.folder / "etc" / "passwd").unlink()
        server.keys = {"http.bind": server.keys["http.bind"]}
        server._spawn([str(harness.binary())], server.environment())
        self.addCleanup(server.kill)
        harness.until(lambda: harness.reachable(server.port("try")), "it listens")
        mqtt = server.mqtt("tcp/#")
        self.addCleanup(mqtt.close)
        device = Device(server.port("try"))
        self.addCleanup(device.close)
        device.say("pump-1\nhello\n")
        came = mqtt.next()
        self.assertEqual((came.topic, came.payload), ("tcp/pump-1/up/data", b"hello"))
        mqtt.publish("tcp/pump-1/dn/data", "on")
        device.hears("on\n")


if __name__ == "__main__":
    unittest.main()
