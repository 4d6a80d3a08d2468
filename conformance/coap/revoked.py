"""A key that got out: `psk remove` and SIGHUP end what it opened, also what sleeps, and a new key for the same identity does
not bring it back."""

import os
import signal
import unittest

import harness
from coap.kit import dtls
from coap.kit.backend import credential, secure_gateway
from coap.kit.links import Udp
from coap.kit.wire import PUT, Peer


class Revoked(unittest.TestCase):
    def setUp(self):
        # Who says nothing is forgotten soon; its association sleeps on.
        self.server = secure_gateway({"coap.idle_timeout": "1 s"})
        self.identity, self.key = credential(self.server, "meter")
        credential(self.server, "other")
        self.server.__enter__()
        self.addCleanup(self.server.kill)

    def associate(self):
        link = Udp(self.server.port("dtls"))
        self.addCleanup(link.close)
        return dtls.Client(link, self.identity, self.key).connect()

    def put(self, client, seconds=5.0):
        return Peer(client).ask(PUT, "/ps/up/meter", b"x", seconds)

    def remove(self):
        self.server.cli("psk", "remove", self.identity)
        self.server.reload()

    def bring_back(self):
        self.key = os.urandom(16)
        self.server.cli("psk", "add", "--client", "meter", "--key", self.key.hex(), self.identity)
        self.server.reload()

    def is_out(self, client):
        """Nothing that it says is answered any more when the identity has a new key; whoever has that is served."""
        self.bring_back()
        with self.assertRaises((AssertionError, dtls.Closed)):
            self.put(client, 1.5)
        self.assertEqual(self.put(self.associate()).says, "2.04")

    def test_an_association_that_sleeps_ends_with_its_key(self):
        # It has asked for nothing: what was asked is remembered for minutes, and the conversation with it.
        client = self.associate()
        is_gone = lambda: not any(c["connected"] for c in self.server.items("clients", "list"))
        harness.until(is_gone, "its conversation has ended")
        self.remove()
        self.is_out(client)

    def test_an_association_that_is_awake_ends_with_its_key(self):
        client = self.associate()
        self.assertEqual(self.put(client).says, "2.04")
        self.remove()
        self.is_out(client)

    def test_an_association_ends_with_its_key_that_was_removed_while_the_gateway_was_off(self):
        client = self.associate()
        self.assertEqual(self.put(client).says, "2.04")
        self.server.process.send_signal(signal.SIGTERM)
        self.server.process.wait(30)
        self.server.cli("psk", "remove", self.identity)
        self.server.spawn()
        self.server.ready()
        self.is_out(client)

    def test_an_association_ends_when_its_key_is_exchanged_at_one_stroke(self):
        client, other = self.associate(), self.associate()
        self.assertEqual(self.put(client).says, "2.04")
        self.server.cli("psk", "remove", self.identity)
        self.is_out(client)
        with self.assertRaises((AssertionError, dtls.Closed)):
            self.put(other, 1.5)

    def test_an_association_goes_on_while_its_key_is_rotated(self):
        client = self.associate()
        self.assertEqual(self.put(client).says, "2.04")
        self.server.cli("psk", "rotate", self.identity)
        self.server.reload()
        self.assertEqual(self.put(client).says, "2.04")
