"""One identity across address changes: NAT rebinds, devices wake up behind another port, and the gateway restarts meanwhile."""

import signal
import unittest

import harness
from coap.kit.backend import Backend, Life, again, gateway
from coap.kit.links import Hopping, Moving
from coap.kit.wire import POST, PUT, Peer

# Address changes that a client has to live through.
CHANGES = 1000


class Case(unittest.TestCase):
    overrides = {}

    def setUp(self):
        self.server = gateway(self.overrides)
        self.server.__enter__()
        self.addCleanup(self.server.kill)
        self.backend = Backend(self.server)
        self.addCleanup(self.backend.__exit__)

    def ends_well(self):
        """The gateway is none the worse."""
        self.server.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.server.process.wait(30), 0, self.server.said()[-3000:])
        self.assertNotIn("panicked", self.server.said())

    def named(self, name, query=""):
        """Opens a session by name; its token."""
        with Peer(self.server.port("coap")) as opener:
            opened = opener.ask(POST, f"/mqtt/connection?clientid={name}&keepalive=600{query}")
        self.assertEqual(opened.says, "2.01", opened)
        return opened.payload.decode()

    def lives(self, life, link):
        """Reports and takes orders through the changes, half of them before the gateway is started anew."""
        life.observe()
        while link.hops < CHANGES // 2:
            life.report()
            life.order()
        again(self.server, signal.SIGTERM)
        # The device does not know of it; what it is told meanwhile waits for it.
        life.report()
        while link.hops < CHANGES:
            life.order()
            life.report()
        life.check()
        client = [c for c in self.server.items("clients", "list") if c["client_id"] == life.name]
        self.assertEqual(len(client), 1, "one client, however many ports it had")
        filters = [s for s in self.server.items("subscriptions") if s["filter"] == f"down/{life.name}"]
        self.assertEqual(len(filters), 1, "one observation")


class Token(Case):
    """Plain UDP: who shows clientid and token is the client, wherever it is."""

    def live(self, link, query=""):
        self.addCleanup(link.close)
        token = self.named("meter", query)
        life = Life(Peer(link), self.backend, "meter", f"c=meter&t={token}")
        return life

    def test_a_client_with_a_token_lives_on_through_a_new_port_at_every_datagram_and_a_restart(self):
        link = Hopping(self.server.port("coap"))
        self.lives(self.live(link), link)
        self.ends_well()

    def test_a_client_that_sleeps_wakes_up_behind_another_port_and_its_orders_follow(self):
        link = Moving(self.server.port("coap"))
        life = self.live(link)
        life.observe()
        for turn in range(30):
            life.order()
            # Asleep: the port that the gateway knows is closed, and an order waits.
            link.move()
            life.orders += 1
            self.backend.tell("down/meter", b"%d" % life.orders)
            if turn == 15:
                again(self.server, signal.SIGTERM)
            life.report()
            life.takes()
        life.check()
        self.ends_well()

    def test_who_does_not_know_the_token_moves_nobody(self):
        link = Moving(self.server.port("coap"))
        life = self.live(link, "&username=alice&password=secret of alice")
        life.observe()
        life.order()
        with Peer(self.server.port("coap")) as thief:
            for query in ("c=meter", "c=meter&t=" + "0" * 32, "c=meter&t=", "c=meter&u=alice&p=guess"):
                self.assertEqual(thief.ask(PUT, f"/ps/up/meter?{query}", b"stolen").says[0], "4", query)
                life.order()
            thief.silence()
        life.report()
        life.check()
        self.ends_well()


if __name__ == "__main__":
    unittest.main()
