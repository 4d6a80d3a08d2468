"""The gateway that devices of private protocols are played against, and a device that only knows bytes."""

import socket
import ssl
import time

import harness
from mqtt_sn.kit.script import Mqtt

PATIENCE = 5


class Gateway(harness.Tidegate):
    """Tidegate with listeners for private protocols: `lines={"codec": "lines", …}`."""

    def __init__(self, **listeners):
        super().__init__()
        for name, keys in listeners.items():
            self.listener(name, **keys)

    def listener(self, name, **keys):
        """One more; its port has the name too."""
        port = harness.free_port()
        self.ports[name] = port
        keys = {"bind": f"{harness.HOST}:{port}", "anonymous": "always"} | keys
        self.keys |= {f"tcp.listeners.{name}.{key}": value for key, value in keys.items()}

    def dropped(self, reason):
        """What was dropped for this reason."""
        return self.metric("tidegate_drops_total", reason=reason)

    def closed(self, reason):
        """Connections that ended for this reason."""
        return self.metric("tidegate_closes_total", reason=reason)

    def mqtt(self, topic=None, qos=1):
        """An MQTT client, subscribed to this."""
        client = Mqtt(self.port("tcp"))
        if topic:
            client.subscribe(topic, qos)
        return client


class Device:
    """A socket that says bytes and waits for bytes."""

    def __init__(self, port, kind="tcp", context=None):
        self.is_datagram = kind == "udp"
        self.socket = socket.socket(type=socket.SOCK_DGRAM if self.is_datagram else socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((harness.HOST, port))
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.came = b""

    def say(self, data, each=None):
        """Sends it, in pieces of `each` bytes if that is given."""
        data = data.encode() if isinstance(data, str) else data
        for at in range(0, len(data), each or len(data)):
            self.socket.sendall(data[at:at + (each or len(data))])
            if each:
                time.sleep(0.001)

    def hears(self, data):
        """Takes exactly these bytes."""
        data = data.encode() if isinstance(data, str) else data
        end = time.monotonic() + PATIENCE
        while len(self.came) < len(data) and time.monotonic() < end:
            try:
                more = self.socket.recv(65536)
            except TimeoutError:
                break
            if not more:
                break
            self.came += more
        assert self.came[:len(data)] == data, f"{self.came!r} came, and not {data!r}"
        self.came = self.came[len(data):]

    def is_silent(self, seconds=0.3):
        """Nothing comes for so long."""
        self.socket.settimeout(seconds)
        try:
            came = self.came + self.socket.recv(65536)
            raise AssertionError(f"{came!r} came, or the end")
        except TimeoutError:
            pass
        finally:
            self.socket.settimeout(PATIENCE)

    def is_closed(self, seconds=PATIENCE):
        """The gateway ends the connection."""
        self.socket.settimeout(seconds)
        try:
            came = self.came + self.socket.recv(65536)
        except ConnectionResetError:
            came = b""
        assert came == b"", f"{came!r} came, and not the end"

    def close(self):
        self.socket.close()


def trusting(authority, certificate=None):
    """TLS as a device has it."""
    context = ssl.create_default_context(cafile=str(authority.ca))
    if certificate:
        context.load_cert_chain(*map(str, certificate))
    return context
