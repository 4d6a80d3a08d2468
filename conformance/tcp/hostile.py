"""Scripts that nobody should have written: each costs its own frames, and every other device is served as before."""

import json
import threading
import time
import unittest

import harness
from tcp.kit.field import Counter, ask, workers
from tcp.kit.place import Device, Gateway

GOOD = """function decodeUplink(input) { return { data: { at: Number(String.fromCharCode(...input.bytes)) } }; }
function encodeDownlink(input) { return { bytes: [111, 107], fPort: 1 }; }
"""
# What each does with a frame, and how its calls end: "program" is an error of its own, "limit" one that was stopped.
HOSTILE = {
    "loop": ("while (true) {}", "limit"),
    "bomb": ("const kept = []; while (true) kept.push(new Uint8Array(65536));", "limit"),
    "string": ("return { data: new Array(1e8) + '' };", "limit"),
    "recursion": ("return (function again(n) { return again(n + 1) + 1; })(0);", "any"),
    "regex": ("return { data: /^(a+)+$/.test('a'.repeat(64) + '!') };", "limit"),
    "index": ("return { data: 'x'.repeat(1 << 29).indexOf('xy') };", "any"),
    "contexts": ("const kept = []; while (true) kept.push(new Function('return ' + kept.length), new Proxy({}, {}));",
                 "limit"),
    "exit": ("for (const end of ['exit', 'quit', 'abort']) globalThis[end](1);", "program"),
    "prototype": ("""Object.prototype.toJSON = () => { throw new Error('no'); };
        Array.prototype.push = Object.prototype.toString = undefined;
        Object.defineProperty(Object.prototype, 'data', { get() { while (true) {} } });
        return Object.create(null);""", "any"),
    "getter": ("return { get data() { while (true) {} } };", "limit"),
    "huge": ("return { data: 'x'.repeat(7e6) };", "any"),
    "cycle": ("const data = {}; data.data = data; return { data };", "program"),
}


def script(body):
    return "function decodeUplink(input) {\n%s\n}\n" % body


class Watch:
    """A device of each kind that says the time again and again, and how late it comes to a subscriber."""

    def __init__(self, server, names):
        self.late, self.sent, self.is_over = {name: [] for name in names}, dict.fromkeys(names, 0), False
        self.counter = Counter(server.port("tcp"), "tcp/+/up/+", self._hear)
        self.devices = {name: Device(server.port(name)) for name in names}
        for name, device in self.devices.items():
            device.say(f'{{"login":{{"device":"{name}"}}}}\n' if name == "rust" else f"{name}\n")
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _hear(self, topic, payload, now):
        name = topic.split("/")[1]
        if name in self.late:
            self.late[name].append(now - json.loads(payload)["at"])

    def _run(self):
        while not self.is_over:
            for name, device in self.devices.items():
                at = time.monotonic()
                device.say(f'{{"at":{at}}}\n' if name == "rust" else f"{at}\n")
                self.sent[name] += 1
            time.sleep(0.01)

    def stop(self):
        """All that was sent has come; the times, sorted."""
        self.is_over = True
        self.thread.join()
        try:
            harness.until(lambda: all(len(self.late[n]) == self.sent[n] for n in self.sent), f"{self.sent} has come")
        finally:
            self.counter.close()
            for device in self.devices.values():
                device.close()
        return {name: sorted(late) for name, late in self.late.items()}


def p99(times):
    return times[len(times) * 99 // 100]


class Hostile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        lines = {"device": "first-frame", "framing.kind": "line"}
        names = {"good": lines | {"codec": "good"}, "rust": {"codec": "json-lines"}}
        names |= {name: lines | {"codec": f"evil-{name}"} for name in HOSTILE}
        cls.server = Gateway(**names)
        cls.server.keys |= {"codecs.folder": "brought", "codecs.watch": "200 ms"}
        folder = cls.server.folder / "brought"
        folder.mkdir()
        (folder / "good.js").write_text(GOOD)
        for name, (body, _) in HOSTILE.items():
            (folder / f"evil-{name}.js").write_text(script(body))
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def failures(self, name):
        """By reason."""
        reasons = ("program", "limit", "suspended", "unknown", "busy")
        return {reason: self.server.metric("tidegate_script_failures_total", codec=f"evil-{name}", reason=reason)
                for reason in reasons}

    def test_each_costs_its_own_frames_and_nobody_elses(self):
        for name, (_, ends) in HOSTILE.items():
            with self.subTest(name):
                watch = Watch(self.server, ["good", "rust"])
                device = Device(self.server.port(name))
                device.say(f"evil-{name}-1\n")
                before = self.server.metric("tidegate_script_calls_total", codec=f"evil-{name}")
                for _ in range(20):
                    device.say("aaaa\n" * 3)
                    time.sleep(0.1)
                calls = self.server.metric("tidegate_script_calls_total", codec=f"evil-{name}")
                self.assertGreater(calls, before, "it was called")
                late = watch.stop()
                device.say("still there\n")
                device.is_silent(0.1)
                device.close()
                failures = self.failures(name)
                if ends != "any":
                    self.assertGreater(failures[ends], 0, failures)
                self.assertEqual(failures["unknown"], 0)
                for kind, bound in (("rust", 0.5), ("good", 1.5)):
                    self.assertGreater(len(late[kind]), 50)
                    self.assertLess(p99(late[kind]), bound, f"{kind} while {name}: {late[kind][-5:]}")
                print(f"{name}: p99 rust {p99(late['rust']) * 1e3:.1f} ms, good {p99(late['good']) * 1e3:.1f} ms, "
                      f"longest {late['good'][-1] * 1e3:.0f} ms, {failures}", flush=True)
        self.assertEqual(self.server.metric("tidegate_script_failures_total", codec="good"), 0)
        self.assertLess(self.server.memory(), 400 << 20)
        self.assertLessEqual(len(workers(self.server)), 3)

    def test_the_operator_sees_what_failed_with_its_input(self):
        device = Device(self.server.port("exit"))
        self.addCleanup(device.close)
        device.say("curious\nhello\n")

        def mine():
            return [e for e in self.server.items("codec", "errors", "evil-exit") if e["device"] == "curious"]

        harness.until(mine, "the error is shown")
        seen = mine()[-1]
        self.assertEqual((seen["input"], seen["bytes"], seen["version"]), (b"hello".hex(), 5, 1))
        self.assertIn("not a function", seen["error"])

    def test_a_script_that_was_stopped_too_often_rests_and_a_new_version_works_at_once(self):
        device = Device(self.server.port("loop"))
        self.addCleanup(device.close)
        device.say("looper\n")

        def rests():
            device.say("x\n")
            return self.failures("loop")["suspended"] > 0

        harness.until(rests, "it rests", 30)
        self.assertIn("rests", self.server.said())
        (self.server.folder / "brought/evil-loop.js").write_text(GOOD)
        harness.until(lambda: self.server.items("codec", "versions", "evil-loop")[-1]["version"] == 2, "it is read")
        mqtt = self.server.mqtt("tcp/looper/up/data")
        self.addCleanup(mqtt.close)
        device.say("7\n")
        self.assertEqual(mqtt.next(2).payload, b'{"at":7}')
        mqtt.publish("tcp/looper/dn/anything", "{}")
        device.hears("ok\n")

    def test_what_does_not_come_to_its_end_when_it_is_read_is_not_taken(self):
        brought = self.server.folder / "brought"
        for name, text in {"top-loop": "while (true) {}", "top-string": "const a = new Array(1e8) + '';",
                           "top-memory": "const a = []; while (true) a.push(new Uint8Array(1e6));"}.items():
            (brought / f"{name}.js").write_text(text + "\nfunction decodeUplink(input) { return { data: 1 }; }")
            began = time.monotonic()
            answer = ask(self.server, do="codecs.reload", codec=name)
            self.assertIsInstance(answer, str, f"{name} was taken")
            self.assertLess(time.monotonic() - began, 8)
            (brought / f"{name}.js").unlink()
