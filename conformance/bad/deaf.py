"""A subscriber that never reads while 100,000 messages arrive for it."""

import threading
import unittest

import harness
import packets
from probe import Probe

MESSAGES, SIZE, WINDOW = 100_000, 1000, 500
MIB = 1 << 20


class Deaf(unittest.TestCase):
    def test_memory_stays_under_the_bound_and_others_keep_their_latency(self):
        for qos in (0, 1):
            with self.subTest(qos=qos), harness.Tidegate({"router.max_queued_bytes": "8 MiB"}) as server:
                with packets.Client(server.port("tcp")) as deaf, packets.Client(server.port("tcp"), timeout=60) as good, \
                        packets.Client(server.port("tcp"), timeout=60) as pub, Probe(server) as probe:
                    deaf.connect("deaf")
                    self.assertEqual(deaf.subscribe("flood", qos=qos), [qos])
                    good.connect("good")
                    good.subscribe("flood", qos=0)
                    pub.connect("pub")
                    before = server.memory()
                    self.heard, self.failure = 0, None
                    listener = threading.Thread(target=self.listen, args=(good,), daemon=True)
                    listener.start()
                    peak = self.flood(pub, server)
                    listener.join(60)
                    self.assertIsNone(self.failure)
                    self.assertEqual(self.heard, MESSAGES, "who reads has heard all of it")
                    # 8 MiB wait, some are in flight or in an output of 256 KiB; the messages are 100 MB.
                    print(f"     {(peak - before) / MIB:.1f} MiB more at most")
                    self.assertLess(peak - before, 48 * MIB)
                    self.assertGreater(server.metric("tidegate_drops_total"), MESSAGES // 2)
                probe.check(self, 1.0, 50)

    def listen(self, client):
        """Who reads: all messages, in order."""
        try:
            for number in range(MESSAGES):
                _, payload, _ = client.message()
                assert int(payload[:8]) == number, (payload[:8], number)
                self.heard = number + 1
        except Exception as failure:  # told to the test's thread
            self.failure = failure

    def flood(self, client, server):
        """QoS 1, at most WINDOW unacknowledged; the most memory that was seen."""
        peak = 0
        for first in range(0, MESSAGES, WINDOW):
            numbers = range(first, first + WINDOW)
            client.send(b"".join(packets.publish("flood", b"%08d" % n + b"x" * (SIZE - 8), 1, n % WINDOW + 1)
                                 for n in numbers))
            for _ in numbers:
                client.expect(packets.PUBACK)
            # Who reads is a slow program itself: it is waited for, or it would lose messages of QoS 0 by right.
            harness.until(lambda: self.heard >= first - 2000 or self.failure, f"{first} are heard", 30)
            if first % 5000 == 0:
                peak = max(peak, server.memory())
        return max(peak, server.memory())


if __name__ == "__main__":
    unittest.main()
