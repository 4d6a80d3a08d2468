"""The application behind the gateway, an MQTT client with a durable session; and a device that lives a life under its eyes."""

import os
import signal
import threading
import time

import harness
import packets
import paho.mqtt.client as paho
from coap.kit.wire import GET, OBSERVE, PUT
from durable.kit.world import Gateway
from mqtt.paho import props


def gateway(overrides=None):
    """A gateway that can be ended and started on its data; CoAP without a user is open to all."""
    return Gateway({"coap.listeners.udp.anonymous": "always"} | (overrides or {}))


def secure_gateway(overrides=None):
    """The same with a listener for DTLS, `server.port("dtls")`, where associations sleep after a second."""
    port = harness.free_port()
    listener = "coap.listeners.dtls"
    server = gateway({f"{listener}.bind": f"{harness.HOST}:{port}", f"{listener}.dtls.psk": True,
                      f"{listener}.dtls.park_after": "1 s"} | (overrides or {}))
    server.ports["dtls"] = port
    return server


def credential(server, name):
    """Makes a device known, before the gateway is started; its identity and key."""
    key = os.urandom(16)
    server.cli("psk", "add", "--client", name, "--key", key.hex(), f"id of {name}")
    return f"id of {name}", key


def again(server, with_signal=signal.SIGKILL):
    """Ends the gateway and starts it on its data."""
    server.end(with_signal)
    server.spawn()
    server.ready()


class Backend:
    """Hears everything below `up/`, once; tells devices what it likes.

    A CON PUT is published with QoS 1. What the gateway sent before its end without seeing the acknowledgement comes again
    after it and says so (MQTT 5.0, 3.3.1.1 and 4.4): that is no second report. A report that was published twice does not
    say so."""

    def __init__(self, server):
        self.server, self.heard, self.lock = server, [], threading.Condition()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="backend", protocol=paho.MQTTv5)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_message = self._take
        ready = threading.Event()
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.connect(harness.HOST, server.port("tcp"), clean_start=False,
                            properties=props("CONNECT", SessionExpiryInterval=3600))
        self.client.loop_start()
        self.client.subscribe("up/#", 2)
        assert ready.wait(10), "subscribed"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.disconnect()
        self.client.loop_stop()

    def _take(self, _client, _user, message):
        with self.lock:
            if not (message.dup and (message.topic, message.payload) in self.heard):
                self.heard.append((message.topic, message.payload))
            self.lock.notify_all()

    def tell(self, topic, payload):
        """Publishes with QoS 1, over a connection of its own, and waits for the acknowledgement."""
        with packets.Client(self.server.port("tcp")) as client:
            assert client.connect("teller") == 0
            client.send(packets.publish(topic, payload, 1, 1))
            client.expect(packets.PUBACK)

    def hears(self, topic, payload, seconds=20):
        """Waits for a message."""
        with self.lock:
            is_there = self.lock.wait_for(lambda: (topic, payload) in self.heard, seconds)
        assert is_there, f"{payload} of {topic} within {seconds} s"


class Life:
    """A device that reports to `up/{name}` and observes `down/{name}`. Each report comes with a number, each order too; no
    report may be heard twice, no order may be lost or come out of order. Where the gateway is killed what was not known to
    have arrived comes again: `is_killed`."""

    def __init__(self, peer, backend, name, query="", is_killed=False):
        self.peer, self.backend, self.name, self.is_killed = peer, backend, name, is_killed
        self.up, self.down = f"/ps/up/{name}?{query}", f"/ps/down/{name}?{query}"
        self.reports, self.orders = 0, 0
        self.notified, self.known = [], {}
        self.token = b"observe!"

    def observe(self):
        request = self.peer.request(GET, self.down, token=self.token, options=[(OBSERVE, b"")])
        response = self._exchange(request)
        assert response.says == "2.05" and response.uint(OBSERVE) is not None, response

    def report(self):
        """Sends a report, again and again as RFC 7252 has it, until it is answered."""
        self.reports += 1
        request = self.peer.request(PUT, self.up, b"%d" % self.reports)
        response = self._exchange(request)
        assert response.says == "2.04", response
        self.backend.hears(f"up/{self.name}", b"%d" % self.reports)

    def order(self):
        """Takes an order that the application gives."""
        self.orders += 1
        self.backend.tell(f"down/{self.name}", b"%d" % self.orders)
        self.takes()

    def takes(self, seconds=20):
        """Waits for the order that was given last."""
        harness.until(lambda: self.notified[-1:] == [self.orders] or self.hear(0.5), f"order {self.orders}", seconds)
        harness.until(lambda: self.notified[-1:] == [self.orders] or not self.hear(0.5), "as it was", seconds)
        assert self.notified[-1:] == [self.orders], f"order {self.orders}, not {self.notified[-5:]}"

    def _exchange(self, request):
        for _ in range(30 if self.is_killed else 8):
            self.peer.send(request)
            end = time.monotonic() + 1
            while (left := end - time.monotonic()) > 0:
                response = self.hear(left)
                if response is not None and response.token == request.token and response.code:
                    return response
        raise AssertionError(f"no answer to {request}")

    def hear(self, seconds=0.05):
        """Takes the next message; what it does not settle itself is returned."""
        message = self.peer.receive(seconds)
        if message is None:
            return None
        if message.code == 0 and message.kind == 0:
            # Somebody wants to know whether we are here (RFC 7252, 4.3).
            self.peer.reset(message)
        elif message.token == self.token and message.uint(OBSERVE) is not None:
            self.peer.acknowledge(message)
            # The same message again, or a copy to an address of before (RFC 7252, 4.2).
            if self.known.get(message.id) != message:
                self.known[message.id] = message
                self._notified(message)
        elif message.kind == 0:
            self.peer.acknowledge(message)
        return message

    def _notified(self, message):
        """What was acknowledged may come again when the acknowledgement was lost, but nothing before it."""
        assert message.says == "2.05", message
        if not message.payload:
            return
        number = int(message.payload)
        expected = (self.notified[-1] if self.notified else 0) + 1
        if number == expected:
            self.notified.append(number)
        else:
            last = 1 if self.is_killed else expected - 1
            assert last <= number < expected, f"order {number} in place of {expected}"

    def check(self):
        """Nothing was heard twice or is missing."""
        heard = [int(payload) for topic, payload in self.backend.heard if topic == f"up/{self.name}"]
        if self.is_killed:
            # The first of each; what the application's acknowledgement of was lost comes again.
            heard = list(dict.fromkeys(heard))
        wrong = [pair for pair in zip([0] + heard, heard + [self.reports + 1]) if pair[1] != pair[0] + 1]
        assert not wrong, f"{self.reports} reports, but one after the other {wrong[:10]}"
        assert self.notified == list(range(1, self.orders + 1)), f"orders {self.notified[-20:]} of {self.orders}"
