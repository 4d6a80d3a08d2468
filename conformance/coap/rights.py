"""What an operator does to CoAP clients: the access list, and the end of a connection."""

import unittest

import harness
import packets
from coap.kit import wire
from coap.kit.wire import GET, POST, PUT


class Operator(unittest.TestCase):
    """A gateway where CoAP is open to all, as the access list says."""

    def setUp(self):
        self.server = harness.Tidegate({"coap.listeners.udp.anonymous": "always"})
        self.server.__enter__()
        self.addCleanup(self.server.__exit__, None, None, None)

    def mqtt(self, *messages):
        """Publishes with QoS 1, retained."""
        with packets.Client(self.server.port("tcp")) as client:
            self.assertEqual(client.connect("teller"), 0)
            for number, (topic, payload) in enumerate(messages, 1):
                client.send(packets.publish(topic, payload, 1, number, retain=True))
                client.expect(packets.PUBACK)

    def test_a_client_finds_the_topics_that_it_may_read_among_many_that_it_may_not(self):
        (self.server.folder / "etc/acl.conf").write_text(
            "allow client teller all #\nallow client dev1 subscribe z/dev1/#\ndefault deny\n")
        self.server.reload()
        self.mqtt(*((f"a/{n}", b"x") for n in range(300)), ("z/dev1/value", b"1"))
        with wire.Peer(self.server.port("coap")) as peer:
            self.assertEqual(peer.ask(POST, "/mqtt/connection?c=dev1").says, "2.01")
            links = peer.ask(GET, "/.well-known/core").payload
        self.assertIn(b"</ps/z/dev1/value>", links)
        self.assertNotIn(b"</ps/a/", links)

    def test_a_named_client_that_is_kicked_goes_on_with_what_it_observes(self):
        with wire.Peer(self.server.port("coap")) as peer:
            token = peer.ask(POST, "/mqtt/connection?c=dev1").payload.decode()
            query = f"?c=dev1&t={token}"
            peer.observe(f"/ps/order{query}&qos=1", token=b"order")
            self.server.cli("clients", "kick", "dev1")
            harness.until(lambda: not self.server.items("clients", "show", "dev1")[0]["connected"], "it is gone")
            self.mqtt(("order", b"first"))
            peer.silence()
            self.assertEqual(peer.ask(PUT, f"/mqtt/connection{query}").says, "2.04")
            self.assertEqual(peer.notification(b"order").payload, b"first")
            self.mqtt(("order", b"second"))
            self.assertEqual(peer.notification(b"order").payload, b"second")
