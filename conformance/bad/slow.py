"""Who is slow on purpose: connections that say nothing, or a byte now and then, or half a packet."""

import socket
import time
import unittest

import harness
import packets
from probe import Probe

CONNECTIONS = 500
MIB = 1 << 20


class Slow(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Tidegate({"mqtt.connect_timeout": "2 s"})
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)

    def opened(self, count, port="tcp"):
        found = [socket.create_connection((harness.HOST, self.server.port(port))) for _ in range(count)]
        for one in found:
            self.addCleanup(one.close)
        return found

    def all_closed(self, connections, seconds):
        """The server closes all of them."""
        end = time.monotonic() + seconds
        for number, one in enumerate(connections):
            one.settimeout(max(end - time.monotonic(), 0.01))
            try:
                while one.recv(4096):
                    pass
            except ConnectionError:
                pass
            except TimeoutError:
                self.fail(f"{number} of {len(connections)} are closed after {seconds} s")

    def test_who_says_nothing_is_closed_on_every_listener(self):
        with Probe(self.server) as probe:
            began = time.monotonic()
            silent = {port: self.opened(CONNECTIONS // 5, port) for port in ("tcp", "ws", "tls", "wss")}
            self.all_closed(silent["tcp"], 5)
            self.assertGreater(time.monotonic() - began, 1.5, "not before the time is over")
            # Handshakes of TLS and WebSocket may last 10 s.
            for port in ("ws", "tls", "wss"):
                self.all_closed(silent[port], max(14 - (time.monotonic() - began), 1))
        probe.check(self, 1.0)

    def test_a_byte_now_and_then_does_not_lengthen_the_time_to_connect(self):
        first = packets.connect("slow-" + "x" * 100)
        with Probe(self.server) as probe:
            connections = self.opened(CONNECTIONS)
            began, sent = time.monotonic(), 0
            while time.monotonic() - began < 3.5:
                for one in connections:
                    try:
                        one.send(first[sent:sent + 1])
                    except ConnectionError:
                        pass
                sent += 1
                time.sleep(0.1)
            self.assertLess(sent, len(first), "they were never done")
            self.all_closed(connections, 3)
        probe.check(self, 1.0)

    def test_half_packets_hold_no_more_memory_than_was_sent_and_end_with_the_keep_alive(self):
        # Each says that a mebibyte comes and sends a sixteenth of it.
        whole = packets.publish("half", b"x" * (MIB - 100))
        before = self.server.memory()
        clients = []
        with Probe(self.server) as probe:
            for number in range(200):
                client = packets.Client(self.server.port("tcp"))
                self.addCleanup(client.socket.close)
                self.assertEqual(client.connect(f"half-{number}", keep_alive=2), 0)
                client.send(whole[:MIB // 16])
                clients.append(client)
            time.sleep(0.5)
            self.assertLess(self.server.memory() - before, 200 * (MIB // 16) * 3 + 16 * MIB)
            # 1.5 times the keep-alive (MQTT-3.1.2-22).
            self.all_closed([client.socket for client in clients], 8)
        probe.check(self, 1.0)

    def test_a_packet_over_the_limit_is_refused_before_its_body_comes(self):
        client = packets.Client(self.server.port("tcp"), 5)
        self.addCleanup(client.socket.close)
        client.connect("huge")
        client.send(b"\x30" + packets.varint(200 * MIB))
        self.assertEqual(client.ends(3), 0x95)

    def test_a_packet_byte_by_byte_is_a_packet(self):
        client = packets.Client(self.server.port("tcp"))
        self.addCleanup(client.socket.close)
        client.connect("drops")
        client.subscribe("drop/by/drop")
        for byte in packets.publish("drop/by/drop", b"payload"):
            client.send(bytes([byte]))
        self.assertEqual(client.message()[:2], ("drop/by/drop", b"payload"))


if __name__ == "__main__":
    unittest.main()
