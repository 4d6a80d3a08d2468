"""Scripts that are replaced while devices send: no connection ends, no frame is lost, and none is decoded by half a version."""

import contextlib
import os
import signal
import time
import unittest

import harness
from tcp.kit.field import Counter, Fleet, Numbers, ask, workers
from tcp.kit.place import Device, Gateway

SCRIPT = """const first = %(version)s;
function decodeUplink(input) {
  const n = Number(String.fromCharCode(...input.bytes));
  return { data: { n, first, last } };
}
const last = %(version)s;
"""
EXAMPLES = """uplinkDecoder:
  examples:
    - description: a number
      input: { fPort: 1, bytes: [52, 50] }
      output: { data: { n: 42, first: %(version)s, last: %(version)s } }
"""
# In place of a good version: what is wrong with it, and what the operator is told.
BROKEN = [
    ("function decodeUplink(input) { return {", "SyntaxError"),
    ("throw new Error('not today'); function decodeUplink() {}", "not today"),
    ("const nothing = 1;", "decodeUplink"),
    ("function decodeUplink() { return { data: { n: 41 } }; }", "a number"),
    ("while (true) {} function decodeUplink() {}", ""),
]


class Place(unittest.TestCase):
    def setUp(self):
        listeners = {"fleet": {"codec": "counted", "device": "first-frame", "framing.kind": "line", "qos": 1}}
        self.server = Gateway(**listeners)
        # Whoever is late is killed by the wall's clock: on a busy machine that is no fault of a script, and no matter here.
        self.server.keys |= {"codecs.watch": "200 ms", "codecs.folder": "brought", "codecs.time": "3 s"}
        self.folder = self.server.folder / "brought"
        self.folder.mkdir()
        self.write(1)
        self.server.__enter__()
        self.addCleanup(self.server.__exit__, None, None, None)

    def write(self, version, script=SCRIPT):
        """A version; its examples expect what that version of the good script says."""
        (self.folder / "counted.yaml").write_text(EXAMPLES % {"version": version})
        hidden = self.folder / ".counted.js.new"
        hidden.write_text(script % {"version": version} if script is SCRIPT else script)
        hidden.rename(self.folder / "counted.js")

    def reload(self):
        return ask(self.server, do="codecs.reload", codec="counted")

    def versions(self):
        return self.server.items("codec", "versions", "counted")

    def none_failed(self):
        """A pool that is full refuses calls, and they are tried again soon: nothing has failed of that."""
        reasons = ("program", "limit", "suspended", "unknown")
        failures = {reason: self.server.metric("tidegate_script_failures_total", codec="counted", reason=reason)
                    for reason in reasons}
        self.assertEqual(failures, dict.fromkeys(reasons, 0))

    def current(self):
        return next(v["version"] for v in self.versions() if v["use"] == "current")


class Swapped(Place):
    def test_a_hundred_versions_under_load_and_twenty_of_them_broken(self):
        rate = int(os.environ.get("TIDEGATE_SWAP_RATE", "10000"))
        numbers = Numbers()
        counter = Counter(self.server.port("tcp"), "tcp/+/up/data", numbers.hear)
        self.addCleanup(counter.close)
        fleet = Fleet(self.server.port("fleet"), 20, rate, numbers.next)
        self.addCleanup(fleet.close)
        harness.until(lambda: len(numbers.next) == 20, "all devices are heard")
        began, good, refused = time.monotonic(), 1, 0
        for number in range(2, 102):
            if number % 5 == 0:
                script, told = BROKEN[refused % len(BROKEN)]
                self.write(good, script)
                answer = self.reload()
                self.assertIsInstance(answer, str, f"{script} was taken")
                self.assertIn(told, answer)
                refused += 1
            else:
                self.write(number)
                self.assertIsInstance(self.reload(), list)
                good = number
            time.sleep(0.02)
        sent = fleet.stop()
        took = time.monotonic() - began
        harness.until(lambda: dict(numbers.next) == sent or numbers.wrong, "everything that was sent has come", 30)
        self.assertEqual(numbers.wrong[:5], [], self.server.said()[-3000:])
        self.assertEqual((dict(numbers.next), refused), (sent, 20))
        print(f"     {sum(sent.values()) / took:.0f} frames a second of {rate}")
        self.assertGreater(min(sent.values()), 1000, "each sent while versions came")
        for device, seen in numbers.versions.items():
            self.assertEqual(seen, sorted(seen), f"{device} goes back")
            self.assertTrue(all(v == 1 or v % 5 for v in seen))
        most = max(len(seen) for seen in numbers.versions.values())
        self.assertGreater(most, 40, "the versions were used, and not only read")
        listed = self.versions()
        self.assertLessEqual(len(listed), 11)
        self.none_failed()

    def test_a_file_that_is_written_is_taken_without_a_word_and_a_half_written_one_is_not(self):
        script = SCRIPT % {"version": 2}
        (self.folder / "counted.yaml").write_text(EXAMPLES % {"version": 2})
        with open(self.folder / "counted.js", "w") as file:
            for at in range(0, len(script), 20):
                file.write(script[at:at + 20])
                file.flush()
                time.sleep(0.05)
        harness.until(lambda: self.current() == 2, "the second version is used")
        self.assertEqual([v["version"] for v in self.versions()], [1, 2])
        self.write(3, BROKEN[0][0])
        harness.until(lambda: self.versions()[-1]["error"], "the mistake is shown")
        self.assertIn("SyntaxError", self.versions()[-1]["error"])
        self.assertEqual(self.current(), 2)
        self.assertIn("SyntaxError", self.server.said())
        self.write(4)
        self.server.reload()
        harness.until(lambda: self.current() == 3, "SIGHUP reads it")

    def dies(self, number):
        """Kills a worker; whether more than `number` have died by now. One that the gateway itself was ending is none."""
        there = harness.until(lambda: workers(self.server), "a worker runs")
        with contextlib.suppress(ProcessLookupError):
            os.kill(there[number % len(there)], signal.SIGKILL)
        with contextlib.suppress(AssertionError):
            return harness.until(lambda: self.server.metric("tidegate_script_worker_deaths_total") > number, "it is dead", 8)
        return False

    def test_workers_that_are_killed_cost_no_frame(self):
        numbers = Numbers()
        counter = Counter(self.server.port("tcp"), "tcp/+/up/data", numbers.hear)
        self.addCleanup(counter.close)
        fleet = Fleet(self.server.port("fleet"), 10, 2000, numbers.next)
        self.addCleanup(fleet.close)
        harness.until(lambda: len(numbers.next) == 10, "all devices are heard")
        for number in range(10):
            # One at a time: a call that is tried again at another worker must not find that dead too.
            # A frame is tried once more and not twice: nothing in flight now was in flight before.
            harness.until(lambda: self.dies(number), "a worker is known to be dead", 30)
            sent = list(zip(fleet.names, fleet.sent))
            harness.until(lambda: all(numbers.next[d] >= n for d, n in sent), "what was sent has come", 30)
        sent = fleet.stop()
        harness.until(lambda: dict(numbers.next) == sent or numbers.wrong, "everything that was sent has come", 30)
        self.assertEqual((numbers.wrong[:5], dict(numbers.next)), ([], sent), self.server.said()[-3000:])
        self.none_failed()

    def test_a_share_of_the_devices_tries_a_version_first(self):
        self.assertIn("new version", self.server.cli("codec", "canary", "counted", "--share", "30").stdout)
        self.write(2)
        self.assertIn("version 2 by 30 of 100", self.server.cli("codec", "reload", "counted").stdout)
        numbers = Numbers()
        counter = Counter(self.server.port("tcp"), "tcp/+/up/data", numbers.hear)
        self.addCleanup(counter.close)
        fleet = Fleet(self.server.port("fleet"), 100, 500, numbers.next)
        self.addCleanup(fleet.close)

        def using(version):
            return {device for device, seen in numbers.versions.items() if seen[-1] == version}

        harness.until(lambda: len(numbers.next) == 100 and using(2), "all devices are heard", 20)
        time.sleep(1)
        trying = using(2)
        self.assertTrue(15 <= len(trying) <= 45, trying)
        self.assertEqual(len(using(1)), 100 - len(trying))
        self.server.cli("codec", "promote", "counted")
        harness.until(lambda: len(using(2)) == 100, "everybody uses it")
        self.server.cli("codec", "rollback", "counted")
        harness.until(lambda: len(using(1)) == 100, "everybody is back")
        self.assertEqual(self.server.cli("codec", "rollback", "counted", check=False).returncode, 1)
        sent = fleet.stop()
        harness.until(lambda: dict(numbers.next) == sent or numbers.wrong, "everything that was sent has come")
        self.assertEqual(numbers.wrong[:5], [], self.server.said()[-3000:])

    def test_a_restart_goes_on_with_the_version_that_was_rolled_back_to(self):
        for version in (2, 3):
            self.write(version)
            self.reload()
        self.server.cli("codec", "rollback", "counted")
        self.server.killed()
        self.assertEqual(self.current(), 2)
        mqtt = self.server.mqtt("tcp/d/up/data")
        self.addCleanup(mqtt.close)
        device = Device(self.server.port("fleet"))
        self.addCleanup(device.close)
        device.say("d\n7\n")
        self.assertEqual(mqtt.next().payload, b'{"n":7,"first":2,"last":2}')
        self.write(4)
        self.assertEqual(self.reload(), ["counted: version 4 is used"])
        device.say("8\n")
        self.assertEqual(mqtt.next().payload, b'{"n":8,"first":4,"last":4}')
