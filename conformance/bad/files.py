"""No file descriptor is left for those who come: nothing spins, who is connected is served, the operator too, and it recovers."""

import contextlib
import socket
import time
import unittest

import harness
import packets
from probe import Probe

FILES = 256


class Shell(harness.Tidegate):
    """Started by hand: a shell's limit is low, and may be raised."""

    def _spawn(self, command, environment):
        super()._spawn(["prlimit", f"--nofile={FILES // 4}:{FILES * 4}", *command], environment)


class Files(unittest.TestCase):
    def crowd(self, server, count):
        for _ in range(count):
            self.addCleanup(socket.create_connection((harness.HOST, server.port("tcp")), 5).close)

    def test_a_crowd_leaves_the_operator_and_the_store_what_they_need(self):
        with harness.Tidegate(files=FILES) as server:
            self.crowd(server, FILES + 200)
            said = server.cli("pub", "-r", "kept", "x", timeout=10).stdout
            self.assertIn("published", said)
            topics = server.items("topics", "kept")
            self.assertEqual([t["topic"] for t in topics], ["kept"])
            self.assertEqual(server.get("/health")[0], 200)
            self.assertNotIn("cannot accept", server.said())

    def test_the_limit_of_a_shell_is_raised(self):
        with Shell() as server:
            self.crowd(server, FILES)
            with packets.Client(server.port("tcp")) as client:
                self.assertEqual(client.connect("one more"), 0)

    def test_without_descriptors_accepting_pauses_does_not_spin_and_recovers(self):
        with harness.Tidegate(files=FILES) as server:
            with Probe(server) as probe:
                crowd = []
                for _ in range(FILES + 200):
                    one = socket.create_connection((harness.HOST, server.port("tcp")), 5)
                    self.addCleanup(one.close)
                    crowd.append(one)
                # They connect, are sent away, or wait unaccepted; none is served wrongly.
                for number, one in enumerate(crowd):
                    with contextlib.suppress(ConnectionError):
                        one.sendall(packets.connect(f"crowd-{number}"))
                time.sleep(1)
                before = server.cpu()
                time.sleep(3)
                spent = server.cpu() - before
                self.assertLess(spent, 1.0, "of 3 s, with a probe of 200 messages a second beside it")
                answered = sum(self.answered(one) for one in crowd)
                self.assertGreater(answered, FILES // 2)
                self.assertLess(answered, FILES)
                for one in crowd:
                    one.close()
                harness.until(lambda: self.enters(server), "somebody comes in again", 15)
            probe.check(self, 1.0, 50)
            self.assertEqual(server.get("/health")[0], 200)

    @staticmethod
    def answered(connection):
        connection.setblocking(False)
        try:
            return connection.recv(4) == b"\x20\x02\0\0"
        except (BlockingIOError, ConnectionError):
            return False

    @staticmethod
    def enters(server):
        try:
            with packets.Client(server.port("tcp"), timeout=1) as client:
                return client.connect("after") == 0
        except (TimeoutError, ConnectionError, packets.Closed):
            return False


if __name__ == "__main__":
    unittest.main()
