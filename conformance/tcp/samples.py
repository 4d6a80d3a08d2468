"""The listeners of the README, and what every built-in codec says of its own samples: over real sockets, to a real client."""

import json
import re
import tomllib
import unittest

import harness
from tcp.kit.place import Device, Gateway

TEXT = (harness.HOUSE / "gateways/tcp/README.md").read_text()
LISTENERS = tomllib.loads(re.search(r"```toml\n(.*?)```", TEXT, re.S)[1])["tcp"]["listeners"]


def flat(keys, before=""):
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    for key, value in keys.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{key}.")
        elif key != "bind":
            yield before + key, value


class Samples(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Gateway()
        cls.codecs = [line.split()[0] for line in cls.server.cli("codec", "list").stdout.splitlines()]
        for name, keys in LISTENERS.items():
            if keys["codec"] in cls.codecs:
                cls.server.listener(name, **dict(flat(keys)))
        for codec in cls.codecs:
            # Samples are of several devices, and some of them of nobody.
            cls.server.listener(f"sample-{codec}", codec=codec, device="address-port")
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def test_every_built_in_codec_has_a_listener_in_the_readme_and_each_listens(self):
        self.assertLessEqual(set(self.codecs), {keys["codec"] for keys in LISTENERS.values()})
        for name, keys in LISTENERS.items():
            if keys.get("transport") != "udp" and name in self.server.ports:
                self.assertTrue(harness.reachable(self.server.port(name)), name)

    def test_values_of_samples_are_published_and_answered(self):
        mqtt = self.server.mqtt("tcp/+/up/#")
        self.addCleanup(mqtt.close)
        for codec in self.codecs:
            played = 0
            for frame in self.server.items("codec", "show", codec):
                said = frame.get("up") or []
                ups = [up for up in said if "kind" in up]
                # Who shows something that it was never issued is not let in; the address names the others.
                if not ups or any(len(up.get("login", {})) > 1 for up in said):
                    continue
                with self.subTest(codec=codec, frame=frame["bytes"]):
                    device = Device(self.server.port(f"sample-{codec}"))
                    device.say(bytes.fromhex(frame["bytes"]), each=200)
                    for up in ups:
                        came = mqtt.next()
                        self.assertIsNotNone(came, up)
                        self.assertTrue(came.topic.endswith(f"/up/{up['kind']}"), came.topic)
                        if "hex" in up:
                            self.assertEqual(came.payload.hex(), up["hex"])
                        else:
                            self.assertEqual(json.loads(came.payload), up["data"])
                    if frame["answer"] and codec == "teltonika":
                        device.hears(bytes.fromhex(frame["answer"]))
                    device.close()
                    played += 1
            self.assertGreater(played, 0, codec)


if __name__ == "__main__":
    unittest.main()
