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


class Limits(unittest.TestCase):
    """A gateway where some things are full, forbidden or elsewhere: `dialogues/limits.case`."""

    @classmethod
    def setUpClass(cls):
        cls.server = gateway.Gateway({"max_topics": 2, "rebind": "same-ip"})
        rules = cls.server.folder / "etc" / "acl.conf"
        rules.write_text("deny everyone publish de\ndeny everyone subscribe se\ndefault allow\n", encoding="utf-8")
        cls.server.keys["auth.acl"] = str(rules)
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)


def test(case):
    def run(self):
        script.Player(self.server.port("mqtt_sn"), self.server.port("tcp")).play(case)
    return run


def add(case, tests):
    name = "test_" + re.sub(r"\W+", "_", f"{case.section}_{case.title}")
    assert not hasattr(tests, name), f"two cases {name}"
    setattr(tests, name, test(case))


for found in CASES:
    add(found, Limits if found.file == "limits.case" else Dialogues)
