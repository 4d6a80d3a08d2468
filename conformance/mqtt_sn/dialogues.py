"""Dialogues octet by octet: every kind of message, every return code, and what other gateways get wrong, named by the
section of MQTT-SN 1.2. The cases stand in `dialogues/*.case`; each is a test here."""

import pathlib
import re
import unittest

from mqtt_sn.kit import gateway, script

FOLDER = pathlib.Path(__file__).parent / "dialogues"
CASES = [case for path in sorted(FOLDER.glob("*.case")) for case in script.read(path)]


class Dialogues(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = gateway.start()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)


def test(case):
    def run(self):
        script.Player(self.server.port("mqtt_sn"), self.server.port("tcp")).play(case)
    return run


for found in CASES:
    name = "test_" + re.sub(r"\W+", "_", f"{found.section}_{found.title}")
    assert not hasattr(Dialogues, name), f"two cases {name}"
    setattr(Dialogues, name, test(found))
