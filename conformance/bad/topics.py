"""Topics and filters as long, as deep, as wrong and as many as the wire allows."""

import time
import unittest

import harness
import packets
from probe import Probe

MIB = 1 << 20
# Overlong, surrogate, cut off, never a byte, above U+10FFFF, and U+0000 (MQTT-1.5.4-1, MQTT-1.5.4-2).
WRONG = [b"a\xc0\xaf", b"a\xed\xa0\x80", b"a\xe2\x82", b"a\xff", b"a\xf4\x90\x80\x80", b"a\0b"]


class Topics(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Tidegate({"router.max_retained": 50_000})
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)

    def client(self, client_id, version=5):
        client = packets.Client(self.server.port("tcp"), version, timeout=60)
        self.addCleanup(client.socket.close)
        self.assertEqual(client.connect(client_id), 0)
        return client

    def test_wrong_utf8_closes_that_connection_alone(self):
        with Probe(self.server) as probe:
            for version in (4, 5):
                for wrong in WRONG:
                    for data in (packets.publish(wrong, b"x", version=version),
                                 packets.subscribe([wrong], version=version)):
                        with self.subTest(version=version, data=data):
                            client = self.client("utf8", version)
                            client.send(data)
                            self.assertIn(client.ends(3), (0x81, 0x82, 0x90, 0x8F) if version == 5 else (None,))
                client = packets.Client(self.server.port("tcp"), version)
                self.addCleanup(client.socket.close)
                client.send(packets.connect(wrong, version))
                client.ends(3)
        probe.check(self, 1.0)

    def test_filters_of_65535_bytes_and_30000_levels_are_answered_one_by_one(self):
        client, before = self.client("long"), self.server.memory()
        deep = ["a/" * 30_000 + "#", "+/" * 30_000 + "+", "/" * 65535, "$share/g/" + "+/" * 20_000 + "#"]
        with Probe(self.server) as probe:
            began = time.monotonic()
            for filter_ in ("x" * 65535, "é" * 32767):
                self.assertEqual(client.subscribe(filter_), [0])
            for filter_ in deep:
                # More levels than the house takes: that filter is refused and the connection stays.
                self.assertEqual(client.subscribe(filter_), [0x8F])
            for number in range(500):
                client.subscribe(f"{number}/" + "+/" * 30_000 + "#")
            client.send(packets.publish("x" * 65535, b"1", 1, 9, 5))
            self.assertEqual({client.receive()[0], client.receive()[0]}, {packets.PUBACK, packets.PUBLISH})
            for number in range(100):
                other = self.client(f"deep-{number}")
                other.send(packets.publish("a/" * 30_000 + "b", b"1", 1, 9, 5))
                self.assertEqual(other.ends(), 0x90)
            self.assertLess(time.monotonic() - began, 20)
            grown = self.server.memory() - before
            print(f"     {grown / MIB:.1f} MiB more")
            self.assertLess(grown, 16 * MIB)
        probe.check(self, 1.0)

    def test_10000_subscriptions_of_128_levels_cost_what_they_are_long(self):
        client, before = self.client("many"), self.server.memory()
        for first in range(0, 10_000, 100):
            client.subscribe(*(f"{number}/" + "+/" * 126 + "x" for number in range(first, first + 100)))
        with Probe(self.server) as probe:
            for _ in range(100):
                client.send(packets.publish("7/" + "y/" * 126 + "y", b"1", 0, version=5))
            client.ping()
        probe.check(self, 1.0)
        grown = self.server.memory() - before
        print(f"     {grown / MIB:.1f} MiB more")
        # 10,000 filters of 128 levels: 1.3 million levels.
        self.assertLess(grown, 400 * MIB)

    def test_a_million_topics_leave_no_memory_behind(self):
        client = self.client("million", 4)
        self.flood(client, 0, 50_000, retain=False)
        before = self.server.memory()
        with Probe(self.server) as probe:
            self.flood(client, 50_000, 1_000_000, retain=False)
        probe.check(self, 1.0, 50)
        grown = self.server.memory() - before
        print(f"     {grown / MIB:.1f} MiB more")
        self.assertLess(grown, 32 * MIB)

    def test_retained_topics_end_at_their_bound_and_what_is_over_is_counted(self):
        client, before = self.client("kept", 4), self.server.memory()
        self.flood(client, 0, 100_000, retain=True)
        dropped = self.server.metric("tidegate_drops_total", reason="retained_full")
        # The gateway's own `$SYS` messages are retained too, and a few of them find no room.
        self.assertGreaterEqual(dropped, 50_000)
        self.assertLess(dropped, 51_000)
        self.assertEqual(self.server.metric("tidegate_retained_messages"), 50_000)
        grown = self.server.memory() - before
        print(f"     {grown / MIB:.1f} MiB more for 50,000 retained messages")
        self.assertLess(grown, 64 * MIB)

    @staticmethod
    def flood(client, first, last, retain):
        for start in range(first, last, 5000):
            client.send(b"".join(packets.publish(f"million/{n % 1000}/{n}", b"x", retain=retain)
                                 for n in range(start, min(start + 5000, last))))
            client.ping()


if __name__ == "__main__":
    unittest.main()
