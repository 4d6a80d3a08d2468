"""10,000 connections a second that talk nonsense, and a storm of clients of one name."""

import multiprocessing
import random
import socket
import struct
import threading
import time
import unittest

import harness
import packets
from probe import Probe

RATE, SECONDS, PROCESSES = 10_000, 4, 2
MIB = 1 << 20


def spew(port, seed, rate, seconds, count):
    """Connects at this rate, writes nonsense and leaves; half of them without a goodbye. Each thousand has an address of
    its own within 127.0.0.0/8, or the ports of one would run out."""
    rng = random.Random(seed)
    rubbish = [rng.randbytes(rng.choice((1, 2, 14, 100, 1000))) for _ in range(64)]
    rubbish += [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x10\xff\xff\xff\xff",
                packets.connect("x" * 200)[:50], packets.publish("before/connect", b"x"), b"PROXY TCP4 1.1.1.1"]
    began, done = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        if done > (time.monotonic() - began) * rate:
            time.sleep(0.001)
            continue
        with socket.socket() as one:
            one.bind((f"127.{seed + 1}.{done // 1000 % 250}.1", 0))
            if done % 2:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.settimeout(5)
            try:
                one.connect((harness.HOST, port))
                one.send(rubbish[done % len(rubbish)])
            except OSError:
                # The backlog is full, or it was closed before all was said.
                pass
        done += 1
    count.value = done


class Garbage(unittest.TestCase):
    def test_ten_thousand_connects_a_second_of_nonsense_slow_nobody_for_long_and_leave_nothing(self):
        with harness.Tidegate() as server:
            with Probe(server) as warm:
                time.sleep(0.5)
            warm.check(self, 1.0)
            before = server.memory()
            for listener in ("tcp", "ws"):
                with self.subTest(listener=listener), Probe(server) as probe:
                    counts = [multiprocessing.Value("q", 0) for _ in range(PROCESSES)]
                    spewers = [multiprocessing.Process(target=spew, args=(
                        server.port(listener), seed, RATE / PROCESSES, SECONDS, count))
                        for seed, count in enumerate(counts)]
                    for one in spewers:
                        one.start()
                    for one in spewers:
                        one.join(SECONDS + 20)
                        self.assertEqual(one.exitcode, 0)
                    made = sum(count.value for count in counts)
                    print(f"     {made / SECONDS:.0f} connections a second of nonsense")
                    self.assertGreater(made, 200 * SECONDS, "this machine is too slow to tell")
                    # Each has been closed; the two of the probe are left.
                    harness.until(lambda: self.open(server) <= 2, "all are closed", 15)
                    probe.check(self, 2.0)
            self.assertLess(server.memory() - before, 64 * MIB)
            self.assertEqual(server.get("/health")[0], 200)

    @staticmethod
    def open(server):
        return server.metric("tidegate_connections", protocol="mqtt")


class Storm(unittest.TestCase):
    THREADS, ROUNDS = 16, 50

    def test_clients_of_one_name_that_take_over_from_each_other_leave_one_session(self):
        with harness.Tidegate() as server, Probe(server) as probe:
            before = server.memory()
            codes, failures = [], []

            def storm(number):
                version = 5 if number % 2 else 4
                for turn in range(self.ROUNDS):
                    try:
                        client = packets.Client(server.port("tcp"), version)
                        codes.append(client.connect("same", clean=turn % 3 == 0))
                        client.send(packets.subscribe([f"storm/{number}/{turn % 5}"], 1, 1, version))
                        held.append(client)
                    except packets.Closed:
                        codes.append("taken over before CONNACK")
                    except Exception as failure:  # told to the test's thread
                        failures.append(failure)

            held = []
            threads = [threading.Thread(target=storm, args=(number,)) for number in range(self.THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(failures, [])
            self.assertEqual(len(codes), self.THREADS * self.ROUNDS)
            self.assertLessEqual(set(codes), {0, "taken over before CONNACK"})
            same = [client for client in server.items("clients", "list") if client["client_id"] == "same"]
            self.assertEqual(len(same), 1)
            harness.until(lambda: Garbage.open(server) <= 3, "one of them and the probe's two are connected")
            last = packets.Client(server.port("tcp"), 5)
            self.assertEqual(last.connect("same"), 0)
            last.send(packets.packet(packets.DISCONNECT))
            last.ends()
            harness.until(lambda: not server.items("clients", "list", "same"), "a clean start leaves nothing")
            for client in [*held, last]:
                client.socket.close()
            self.assertLess(server.memory() - before, 32 * MIB)
        probe.check(self, 1.0)


if __name__ == "__main__":
    unittest.main()
