"""ADVERTISE and SEARCHGW (MQTT-SN 1.2, 6.1) to groups and to a whole network, in a network namespace that has only `lo`."""

import os
import pathlib
import socket
import subprocess
import sys
import time
import unittest

import harness
from mqtt_sn.kit import gateway

HERE = pathlib.Path(__file__).resolve().parent
GROUP, OTHER, EVERYBODY = "239.7.7.7", "239.7.7.8", "127.255.255.255"
# All of this file is run again by the root of a namespace of its own, whoever runs it.
WITHIN = "TIDEGATE_DISCOVERY"
UP = 'ip link set lo up && ip route add 224.0.0.0/4 dev lo && exec "$@"'
ALONE = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", UP, "sh", sys.executable,
         str(HERE.parent / "suite.py"), "mqtt_sn", "discovery"]


class Elsewhere(unittest.TestCase):
    def test_all_of_this_passes_in_a_namespace_of_its_own(self):
        done = subprocess.run(ALONE, capture_output=True, text=True, timeout=120, env=os.environ | {WITHIN: "1"})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("4 passed, 0 failed", done.stdout)


class Alone(unittest.TestCase):
    """Listens on all addresses, of IPv6 too, as the shipped configuration does."""

    def started(self, **keys):
        self.port = harness.free_port()
        keys = {f"mqtt_sn.{key}": value for key, value in keys.items()}
        keys |= {"mqtt_sn.listeners.udp.bind": f"[::]:{self.port}", "mqtt_sn.listeners.udp.groups": [GROUP]}
        server = gateway.Gateway(keys=keys)
        server.__enter__()
        self.addCleanup(lambda: server.__exit__(None, None, None))

    def receiver(self, address, group=None):
        """A client that waits for its gateway at this port."""
        found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(found.close)
        found.settimeout(5)
        found.bind((address, 0))
        if group:
            members = socket.inet_aton(group) + socket.inet_aton(harness.HOST)
            found.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, members)
        return found

    def is_advertised(self, receiver, address):
        port = receiver.getsockname()[1]
        self.started(**{"advertise.duration": "2 s", "advertise.to": f"{address}:{port}", "gateway_id": 9})
        self.assertEqual(receiver.recv(100), bytes([5, 0, 9, 0, 2]))
        began = time.monotonic()
        advertised, gateway_address = receiver.recvfrom(100)
        self.assertEqual(advertised, bytes([5, 0, 9, 0, 2]))
        self.assertTrue(1 < time.monotonic() - began < 4)
        # It comes from the port where the gateway listens: who has heard it can connect there.
        self.assertEqual(gateway_address[1], self.port)

    def test_the_gateway_advertises_itself_to_a_group(self):
        self.is_advertised(self.receiver(GROUP, GROUP), GROUP)

    def test_the_gateway_advertises_itself_to_a_whole_network(self):
        self.is_advertised(self.receiver(EVERYBODY), EVERYBODY)

    def searched(self, group):
        self.started()
        client = self.receiver(harness.HOST)
        client.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(harness.HOST))
        client.sendto(b"\x03\x01\x00", (group, self.port))
        return client

    def test_searchgw_to_a_group_that_was_joined_is_answered_from_where_the_client_may_connect(self):
        client = self.searched(GROUP)
        answer, address = client.recvfrom(100)
        self.assertEqual((answer, address), (bytes([3, 2, 1]), (harness.HOST, self.port)))

    def test_searchgw_to_a_group_that_was_not_joined_is_not_answered(self):
        client = self.searched(OTHER)
        client.settimeout(1)
        with self.assertRaises(TimeoutError):
            client.recvfrom(100)


# The one, or the other.
if WITHIN in os.environ:
    del Elsewhere
else:
    del Alone

if __name__ == "__main__":
    unittest.main()
