"""A forwarder (5.5): one socket, many nodes, each a device of its own."""

import collections
import time

from coap.kit import links
from mqtt_sn.kit import wire


class Node:
    """What a `Device` sends by: it puts nothing on, the device has encapsulated already."""

    def __init__(self, forwarder, node):
        self.forwarder, self.node = forwarder, node

    def send(self, datagram):
        self.forwarder.link.send(datagram)

    def receive(self, seconds):
        return self.forwarder.receive(self.node, seconds)

    def close(self):
        """The socket is the forwarder's."""


class Forwarder:
    """Sorts what comes by node."""

    def __init__(self, port):
        self.link, self.waiting = links.Udp(port), collections.defaultdict(collections.deque)

    def node(self, name):
        return Node(self, name)

    def receive(self, node, seconds):
        end = time.monotonic() + seconds
        while not self.waiting[node]:
            datagram = self.link.receive(max(end - time.monotonic(), 0))
            if datagram is None:
                return None
            self.waiting[wire.unwrap(datagram)[0]].append(datagram)
        return self.waiting[node].popleft()

    def close(self):
        self.link.close()
