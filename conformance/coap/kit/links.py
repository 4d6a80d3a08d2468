"""What carries a device's datagrams: one socket, or, as behind a NAT that forgets, another one each time."""

import contextlib
import resource
import selectors
import socket
import time

HOST = "127.0.0.1"


def many_sockets(count):
    """Allows this process that many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(hard, count)))


class Udp:
    """One socket, connected to the gateway. `own` is the address that it is bound to; `bind` makes the socket."""

    def __init__(self, port, host=HOST, own=None, make=socket.socket):
        self.socket = make(socket.AF_INET, socket.SOCK_DGRAM)
        if own:
            self.socket.bind(own)
        self.socket.connect((host, port))

    def send(self, datagram):
        # What was refused before is told by the next call; the gateway may have been away.
        with contextlib.suppress(ConnectionRefusedError):
            self.socket.send(datagram)

    def receive(self, seconds):
        """The next datagram, or None."""
        end = time.monotonic() + seconds
        while True:
            self.socket.settimeout(max(end - time.monotonic(), 0.0001))
            try:
                return self.socket.recv(65536)
            except (TimeoutError, BlockingIOError):
                return None
            except ConnectionRefusedError:
                time.sleep(0.01)

    def port(self):
        return self.socket.getsockname()[1]

    def close(self):
        self.socket.close()


class Hopping:
    """Every datagram leaves from another port, as through a proxy that changes it each time. What is sent to any port that
    was used arrives."""

    def __init__(self, port, host=HOST):
        many_sockets(16384)
        self.address, self.sockets, self.ready = (host, port), selectors.DefaultSelector(), []
        self.hops = 0
        # A handshake has to come from one address: the cookie is bound to it.
        self.last, self.stays = None, False

    def send(self, datagram):
        if not self.stays or self.last is None:
            self.last = socket.socket(type=socket.SOCK_DGRAM)
            self.sockets.register(self.last, selectors.EVENT_READ)
            self.hops += 1
        # Not connected: a gateway that is away refuses nothing then.
        self.last.sendto(datagram, self.address)

    def receive(self, seconds):
        """The next datagram to any of the ports, or None."""
        if not self.ready:
            self.ready = [key.fileobj for key, _ in self.sockets.select(max(seconds, 0))]
        return self.ready.pop(0).recv(65536) if self.ready else None

    def close(self):
        for key in list((self.sockets.get_map() or {}).values()):
            key.fileobj.close()
        self.sockets.close()


class Moving(Udp):
    """One socket at a time; `move` takes another and forgets the old one, as NAT does after a silence."""

    def __init__(self, port, host=HOST):
        super().__init__(port, host)
        self.hops = 0

    def move(self):
        to = self.socket.getpeername()
        self.close()
        super().__init__(to[1], to[0])
        self.hops += 1
