"""Over DTLS: a client is who it has proven to be, at whatever address, and needs no CONNECT to be known again."""

import unittest

import harness
from coap.kit import dtls, links
from mqtt_sn.kit import gateway, wire
from mqtt_sn.kit.device import Device
from mqtt_sn.kit.script import Mqtt

KEY = b"sixteen bytes ok"


class Secure(unittest.TestCase):
    def setUp(self):
        self.server = gateway.Gateway()
        self.port = harness.free_port()
        listener = "mqtt_sn.listeners.dtls"
        self.server.keys |= {f"{listener}.bind": f"{harness.HOST}:{self.port}", f"{listener}.dtls.psk": True}
        for name in ("meter", "other"):
            self.server.cli("psk", "add", f"urn:{name}", "--client", name, "--key", KEY.hex())
        self.server.__enter__()
        self.addCleanup(lambda: self.server.__exit__(None, None, None))
        self.mqtt = Mqtt(self.server.port("tcp"))
        self.addCleanup(self.mqtt.close)

    def device(self, name, link=None, own_id=b""):
        link = link or links.Udp(self.port)
        self.addCleanup(link.close)
        return Device(self.port, name, link=dtls.Client(link, f"urn:{name}", KEY, own_id=own_id).connect())

    def hears(self, topic, payload):
        came = self.mqtt.next()
        self.assertIsNotNone(came, f"nothing at {topic}")
        self.assertEqual((came.topic, came.payload), (topic, payload))

    def test_it_publishes_subscribes_and_sleeps(self):
        device = self.device("meter").connect(clean=False)
        self.mqtt.subscribe("up/#")
        device.publish(device.register("up/meter"), b"one", 2)
        self.hears("up/meter", b"one")
        device.subscribe("down/#", 1)
        device.sleep(600)
        self.mqtt.publish("down/meter", "kept")
        self.assertEqual(device.wake(), [("down/meter", b"kept", 1)])

    def test_it_sleeps_and_wakes_at_another_port_each_time_by_its_connection_id(self):
        link = links.Moving(self.port)
        device = self.device("meter", link, own_id=b"\x07").connect(clean=False)
        device.subscribe("down/meter", 1)
        device.sleep(600)
        for number in range(10):
            self.mqtt.publish("down/meter", f"{number}")
            link.move()
            self.assertEqual(device.wake(), [("down/meter", f"{number}".encode(), 1)])

    def test_a_client_that_is_connected_publishes_on_from_another_port(self):
        link = links.Moving(self.port)
        device = self.device("meter", link, own_id=b"\x07").connect()
        self.mqtt.subscribe("up/#")
        topic = device.register("up/meter")
        for number in range(5):
            link.move()
            device.publish(topic, f"{number}".encode(), 1)
            self.hears("up/meter", f"{number}".encode())

    def test_it_is_nobody_else(self):
        device = self.device("meter")
        device.send("CONNECT", flags=wire.CLEAN, protocol=1, duration=60, client_id=b"other")
        self.assertNotEqual(device.takes("CONNACK").code, wire.ACCEPTED)
        sleeper = self.device("other").connect(clean=False)
        sleeper.subscribe("down/other")
        sleeper.sleep(600)
        self.mqtt.publish("down/other", "secret")
        device.send("PINGREQ", client_id=b"other")
        device.takes("DISCONNECT")
        self.assertEqual(sleeper.wake(), [("down/other", b"secret", 1)])

    def test_without_a_connect_it_goes_on_with_its_session(self):
        device = self.device("meter").connect(clean=False)
        topic = device.register("up/meter")
        self.mqtt.subscribe("up/#")
        again = self.device("meter")
        again.publish(topic, b"of another association", 1)
        self.hears("up/meter", b"of another association")
