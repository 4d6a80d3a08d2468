"""A device behind real network address translation that forgets it again and again, in network namespaces: root is needed,
or a kernel that lets users have namespaces of their own. Outside of loopback the gateway trusts no address: it says little
to one that has not been shown to receive (RFC 9175, 2.4)."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import unittest

import harness
from coap.kit import dtls
from coap.kit.backend import Backend, Life, again, credential, gateway, secure_gateway
from coap.kit.links import Udp
from coap.kit.nat import Nat
from coap.kit.wire import ECHO, GET, NON, POST, PUT, Message, Peer, path_options

HERE = pathlib.Path(__file__).resolve().parent
# Who is not root has all of this file run by the root of a user namespace.
AS_ROOT = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh",
           sys.executable, str(HERE.parent / "suite.py"), "coap", "nat"]


class Elsewhere(unittest.TestCase):
    def test_all_of_this_passes_in_a_user_namespace(self):
        done = subprocess.run(AS_ROOT, capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class BehindNat(unittest.TestCase):
    def setUp(self):
        self.nat = Nat()
        self.addCleanup(self.nat.close)
        port, secure = harness.free_port(), harness.free_port()
        self.server = secure_gateway({"coap.listeners.udp.bind": f"{self.nat.gateway}:{port}",
                                      "coap.listeners.dtls.bind": f"{self.nat.gateway}:{secure}"})
        self.secret = credential(self.server, "secure meter")
        self.secure = secure
        self.server.__enter__()
        self.addCleanup(self.server.kill)
        self.backend = Backend(self.server)
        self.addCleanup(self.backend.__exit__)
        self.link = Udp(port, self.nat.gateway, make=self.nat.device.socket)
        self.addCleanup(self.link.close)
        self.device = Peer(self.link)

    def named(self, name):
        """Opens a session by name; its token. The gateway may want to see the address first."""
        uri = f"/mqtt/connection?clientid={name}&keepalive=600"
        opened = self.device.ask(POST, uri)
        if opened.says == "4.01" and opened.all(ECHO):
            opened = self.device.ask(POST, uri, options=[(ECHO, opened.all(ECHO)[0])])
        self.assertEqual(opened.says, "2.01", opened)
        return opened.payload.decode()

    def test_a_device_keeps_its_observation_through_bindings_that_are_forgotten_and_a_restart(self):
        self.lives(Life(self.device, self.backend, "meter", f"c=meter&t={self.named('meter')}"))

    def test_a_device_keeps_its_association_and_its_observation_through_them_too(self):
        link = Udp(self.secure, self.nat.gateway, make=self.nat.device.socket)
        self.addCleanup(link.close)
        client = dtls.Client(link, *self.secret).connect()
        self.lives(Life(Peer(client), self.backend, "secure meter"))
        self.assertEqual(client.handshakes, 1)
        self.assertEqual(client.repeated(), [])

    def lives(self, life):
        life.observe()
        ports = set()
        for turn in range(40):
            life.order()
            ports.update(self.nat.ports())
            self.nat.forget()
            if turn == 20:
                again(self.server, signal.SIGTERM)
            # Given while nothing reaches the device: it comes when the device has been heard again.
            life.orders += 1
            self.backend.tell(f"down/{life.name}", b"%d" % life.orders)
            life.report()
            life.takes()
        life.check()
        self.assertGreater(len(ports), 35, "it had another port each time")

    def test_a_large_value_is_kept_back_until_the_new_address_was_shown_to_receive(self):
        query = f"c=meter&t={self.named('meter')}"
        value = bytes(900)
        self.device.ask(PUT, f"/ps/large?retain=true&{query}", value)
        self.assertEqual(self.device.ask(GET, f"/ps/large?{query}").payload, value)
        self.nat.forget()
        request = self.device.request(GET, f"/ps/large?{query}")
        self.device.send(request)
        # Until then: nothing but what is small.
        got, end = [], time.monotonic() + 10
        while time.monotonic() < end:
            message = self.device.receive(1)
            if message is None:
                self.device.send(request)
                continue
            got.append(message)
            if message.payload == value:
                break
            self.assertLess(len(message.encode()), 137 + 3 * len(request.encode()))
            if message.kind == 0 and message.code == 0:
                self.device.reset(message)
            elif message.all(ECHO):
                request = self.device.request(GET, f"/ps/large?{query}", options=[(ECHO, message.all(ECHO)[0])])
                self.device.send(request)
        self.assertEqual(got[-1].payload, value, got)
        self.assertGreater(len(got), 1, "something asked for it")


# The one, or the other.
if os.geteuid() == 0:
    del Elsewhere
else:
    del BehindNat

if __name__ == "__main__":
    unittest.main()


class OnOneLink(unittest.TestCase):
    def test_what_comes_through_a_group_that_was_not_joined_is_not_served_and_least_of_all_in_the_clear(self):
        nat = Nat()
        self.addCleanup(nat.close)
        ports = {name: harness.free_port() for name in ("udp", "dtls")}
        server = gateway({f"coap.listeners.{name}.bind": f"0.0.0.0:{port}" for name, port in ports.items()}
                         | {"coap.listeners.dtls.dtls.psk": True})
        server.__enter__()
        self.addCleanup(server.kill)
        # Every host is in the group of all hosts of its links.
        neighbour = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(neighbour.close)
        neighbour.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(nat.gateway))
        neighbour.settimeout(7)
        request = Message(NON, GET, 1, b"?", path_options("/.well-known/core")).encode()
        for port in ports.values():
            neighbour.sendto(request, ("224.0.0.1", port))
        # Answers would take up to five seconds (RFC 7252, 8.2).
        self.assertRaises(TimeoutError, neighbour.recv, 1500)
        neighbour.sendto(request, (nat.gateway, ports["udp"]))
        self.assertTrue(neighbour.recv(1500), "it is there")
