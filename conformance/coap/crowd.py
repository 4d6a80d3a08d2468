"""More addresses than there is room for: those who are nobody make room for those who come."""

import socket
import unittest

import harness
from coap.kit.backend import gateway
from coap.kit.wire import PUT, Peer

MOST = 50


class Crowd(unittest.TestCase):
    def setUp(self):
        self.server = gateway({"coap.listeners.udp.max_connections": MOST})
        self.server.__enter__()
        self.addCleanup(self.server.kill)

    def strangers(self, count, datagram):
        """Each from an address of its own, which nobody answers from again."""
        for _ in range(count):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.sendto(datagram, (harness.HOST, self.server.port("coap")))

    def test_who_says_nothing_of_use_keeps_nobody_out(self):
        # No message at all, an answer to nothing, a login that is refused.
        wrong = b"\x50\x02\x00\x07\xb2ps\x01x\x49c=a&u=b&p\x02no"
        for datagram in (b"\xff\xff\xff\xff", b"\x60\x00\x00\x01", wrong):
            with self.subTest(datagram):
                self.strangers(3 * MOST, datagram)
                with Peer(self.server.port("coap")) as device:
                    self.assertEqual(device.ask(PUT, "/ps/up/x", b"1").says, "2.04")

    def test_who_is_somebody_stays(self):
        with Peer(self.server.port("coap")) as device:
            token = device.observe("/ps/down/x").token
            self.strangers(3 * MOST, b"\xff\xff\xff\xff")
            with Peer(self.server.port("coap")) as backend:
                self.assertEqual(backend.ask(PUT, "/ps/down/x", b"1").says, "2.04")
            self.assertEqual(device.notification(token).payload, b"1")


if __name__ == "__main__":
    unittest.main()
