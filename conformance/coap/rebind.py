"""One identity across address changes: NAT rebinds, devices wake up behind another port, and the gateway restarts meanwhile."""

import random
import signal
import time
import unittest

import harness
import packets
from coap.kit import dtls
from coap.kit.backend import Backend, Life, again, credential, gateway, secure_gateway
from coap.kit.links import Hopping, Moving, Udp
from coap.kit.wire import POST, PUT, Peer

# Address changes that a client has to live through.
CHANGES = 1000


class Case(unittest.TestCase):
    make = staticmethod(gateway)

    def setUp(self):
        self.server = self.make()
        self.prepare()
        self.server.__enter__()
        self.addCleanup(self.server.kill)
        self.backend = Backend(self.server)
        self.addCleanup(self.backend.__exit__)

    def prepare(self):
        """What has to be there before it starts."""

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

    def test_a_login_that_is_refused_changes_nothing_at_the_address_that_it_came_from(self):
        life = self.live(Udp(self.server.port("coap")), "&username=alice&password=secret of alice")
        life.observe()
        life.order()
        # Of another user: whoever can write the device's address can say this.
        with packets.Client(self.server.port("tcp")) as other:
            self.assertEqual(other.connect("others", user="bob", password="secret of bob"), 0)
            query = "clientid=others&username=alice&password=secret of alice"
            self.assertEqual(life.peer.ask(POST, f"/mqtt/connection?{query}").says, "4.01")
        life.order()
        life.report()
        life.check()
        self.ends_well()


class ConnectionId(Case):
    """DTLS: who has the connection id and the keys is the client, wherever it is; nobody else is."""

    make = staticmethod(secure_gateway)

    def prepare(self):
        self.secret = credential(self.server, "meter")

    def live(self, link, own_id=b""):
        self.addCleanup(link.close)
        link.stays = True
        self.client = dtls.Client(link, *self.secret, own_id=own_id).connect()
        link.stays = False
        self.assertTrue(self.client.their_id, "the gateway has given a connection id")
        return Life(Peer(self.client), self.backend, "meter")

    def is_still_the_first(self):
        """One handshake in all of its life, and no record number of the gateway twice."""
        self.assertEqual(self.client.handshakes, 1)
        self.assertEqual(self.client.repeated(), [])

    def test_a_client_with_a_connection_id_lives_on_through_a_new_port_at_every_datagram_and_a_restart(self):
        for own_id in (b"", b"device's"):
            with self.subTest(own_id):
                self.backend.heard.clear()
                link = Hopping(self.server.port("dtls"))
                self.lives(self.live(link, own_id), link)
                self.is_still_the_first()
                link.close()
        self.ends_well()

    def test_a_client_that_sleeps_wakes_up_behind_another_port_and_its_orders_follow(self):
        link = Moving(self.server.port("dtls"))
        life = self.live(link)
        life.observe()
        for turn in range(30):
            life.order()
            link.move()
            life.orders += 1
            self.backend.tell("down/meter", b"%d" % life.orders)
            if turn == 15:
                again(self.server, signal.SIGTERM)
            life.report()
            life.takes()
        life.check()
        self.is_still_the_first()
        self.ends_well()

    def test_who_is_sent_away_hears_it_at_once(self):
        life = self.live(Udp(self.server.port("dtls")), b"device's")
        life.report()
        self.server.cli("clients", "kick", "meter")
        with self.assertRaises(dtls.Closed):
            self.client.receive(1)
        self.ends_well()

    def thief(self):
        thief = Udp(self.server.port("dtls"))
        self.addCleanup(thief.close)
        return thief

    def goes_on(self, life):
        """The victim is where it was: it is told, it reports, and nothing is heard that it did not say."""
        for _ in range(3):
            life.order()
            life.report()
        life.check()
        self.is_still_the_first()

    def test_records_that_are_replayed_from_another_address_move_nobody(self):
        life = self.live(Udp(self.server.port("dtls")))
        life.observe()
        self.goes_on(life)
        thief = self.thief()
        for _ in range(3):
            for datagram in self.client.sent:
                thief.send(datagram)
            self.goes_on(life)
        self.assertIsNone(thief.receive(1))
        self.ends_well()

    def test_records_that_are_forged_from_another_address_move_nobody(self):
        life = self.live(Udp(self.server.port("dtls")))
        life.observe()
        thief, numbers = self.thief(), random.Random(4)
        for turn in range(3):
            for number in range(200):
                last = self.client.sent[-1]
                forged = bytearray(last)
                if number % 2:
                    # The number of a record to come, and what was said before.
                    forged[5:11] = (self.client.next[1] + numbers.randrange(1 << 20)).to_bytes(6, "big")
                else:
                    forged[-1 - numbers.randrange(16)] ^= 1 << numbers.randrange(8)
                thief.send(bytes(forged))
            self.goes_on(life)
        self.assertIsNone(thief.receive(1))
        self.ends_well()

    def test_who_asks_for_a_new_handshake_without_the_key_ends_nothing(self):
        life = self.live(Udp(self.server.port("dtls")))
        life.observe()
        for _ in range(3):
            thief = dtls.Client(self.thief(), self.secret[0], b"not the right key")
            with self.assertRaises((AssertionError, dtls.Closed)):
                thief.connect(2)
            self.goes_on(life)
        self.ends_well()

    def test_the_newest_record_raced_from_another_address_gets_nothing_of_what_follows(self):
        life = self.live(Udp(self.server.port("dtls")))
        life.observe()
        for _ in range(5):
            thief = self.thief()
            # On the way of the victim's record there is somebody who is faster, from an address of its own.
            life.reports += 1
            request = life.peer.request(PUT, life.up, b"%d" % life.reports)
            record = self.client.seal(dtls.DATA, request.encode())
            thief.send(record)
            time.sleep(0.1)
            self.client.link.send(record)
            # The application's orders come to the victim all the same, while nobody has answered from there.
            life.order()
            self.goes_on(life)
            got = b""
            while (more := thief.receive(0.2)) is not None:
                got += more
            self.assertLessEqual(len(got), max(3 * len(record), 136) + 200, "little goes where nobody was shown to be")
            thief.send(record)
            self.goes_on(life)
        self.ends_well()


class LongSleep(Case):
    """Devices that sleep for longer than a notification is sent again: all that was for them is there when they wake up."""

    @staticmethod
    def make():
        return secure_gateway({"coap.ack_timeout": "200 ms", "coap.max_retransmit": 3})

    def prepare(self):
        self.secret = credential(self.server, "meter")

    def sleeps(self, life, link, turns=3):
        def is_told():
            life.hear(0.2)
            return life.notified[-1:] == [life.orders]

        life.observe()
        for turn in range(turns):
            life.order()
            link.move()
            for _ in range(2):
                life.orders += 1
                self.backend.tell("down/meter", b"%d" % life.orders)
            # The last of four transmissions is given up after at most 0.3 s times fifteen.
            time.sleep(5)
            if turn == 1:
                again(self.server, signal.SIGTERM)
            life.report()
            harness.until(is_told, f"order {life.orders}", 20)
        life.check()
        self.ends_well()

    def test_a_client_with_a_token_is_told_what_it_slept_through(self):
        link = Moving(self.server.port("coap"))
        self.addCleanup(link.close)
        token = self.named("meter")
        self.sleeps(Life(Peer(link), self.backend, "meter", f"c=meter&t={token}"), link)

    def test_a_client_with_a_connection_id_is_told_what_it_slept_through(self):
        link = Moving(self.server.port("dtls"))
        self.addCleanup(link.close)
        client = dtls.Client(link, *self.secret).connect()
        self.sleeps(Life(Peer(client), self.backend, "meter"), link)
        self.assertEqual((client.handshakes, client.repeated()), (1, []))


if __name__ == "__main__":
    unittest.main()
