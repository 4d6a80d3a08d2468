"""A client that nobody here wrote: PyPI's mqtt-sn-12, as a library and by its commands. It has no PUBREC, no
encapsulation and no PINGREQ with its client id; and its PUBACK never goes out (1.0.9 compares the QoS with the QoS
flag), so that it is sent for it here."""

import asyncio
import json
import pathlib
import subprocess
import sys
import time
import unittest

import aiocoap
from mqttsn12.client.MqttSnClient import MqttSnClient, MqttSnListener
from mqttsn12.client.MqttSnClientException import MqttSnClientException
from mqttsn12.MqttSnConstants import MqttSnConstants
from mqttsn12.packets import PublishPacket

import harness
from mqtt_sn.kit import gateway, script


class Heard(MqttSnListener):
    """Keeps what arrives."""

    def __init__(self):
        self.messages = []

    def message_arrived(self, msg):
        self.messages.append((msg.get_topic_name() or msg.get_topic_id(), msg.get_payload()))


class Client:
    """mqtt-sn-12 for the time of a `with`."""

    def __init__(self, port, name, clean=True, keep_alive=30, will=None):
        self.sn = MqttSnClient()
        self.sn.set_client_id(name)
        self.sn.set_clean_session(clean)
        self.sn.set_keep_alive(keep_alive)
        self.sn.set_timeout(5)
        if will:
            self.sn.set_will(*will)
        self.port, self.heard, self.wait_for = port, Heard(), self.sn.wait_for
        self.sn.wait_for = self.acknowledged

    def acknowledged(self, blocking, kind):
        """What `wait_for` has found, after the PUBACK that it owes."""
        came = self.wait_for(blocking, kind)
        if came and kind == MqttSnConstants.TYPE_PUBLISH:
            packet = PublishPacket()
            packet.decode(came)
            if packet.get_qos() == 1:
                self.sn.send_puback(packet, MqttSnConstants.ACCEPTED)
        return came

    def __enter__(self):
        self.sn.open(harness.HOST, self.port)
        self.sn.send_connect()
        return self

    def __exit__(self, *_):
        self.sn.close()

    def subscribe(self, topic, qos=1):
        self.sn.send_subscribe(topic, qos, self.heard)

    def hears(self, *messages, seconds=5):
        """Polls until so many messages have come; they have to be these."""
        end = time.monotonic() + seconds
        while len(self.heard.messages) < len(messages) and time.monotonic() < end:
            self.sn.polling()
            time.sleep(0.01)
        came, self.heard.messages = self.heard.messages, []
        assert came == list(messages), came

    def hears_nothing(self, seconds=0.5):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.sn.polling()
            time.sleep(0.01)
        assert not self.heard.messages, self.heard.messages


class MqttSn12(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # It takes no other answer to the subscription of a short name.
        cls.server = gateway.start({"short_topic_id": "zero"})
        cls.addClassCleanup(cls.server.__exit__, None, None, None)

    def setUp(self):
        self.port = self.server.port("mqtt_sn")
        self.mqtt = script.Mqtt(self.server.port("tcp"))
        self.addCleanup(self.mqtt.close)

    def mqtt_hears(self, topic, payload, qos=None):
        came = self.mqtt.next()
        self.assertIsNotNone(came, f"nothing at {topic}")
        self.assertEqual((came.topic, came.payload), (topic, payload))
        if qos is not None:
            self.assertEqual(came.qos, qos)

    def test_it_publishes_to_mqtt_with_every_qos_to_every_kind_of_topic(self):
        self.mqtt.subscribe("#")
        with Client(self.port, "publisher") as client:
            for qos in (0, 1, 2):
                client.sn.send_publish(f"normal/{qos}", b"normal", qos)
                self.mqtt_hears(f"normal/{qos}", b"normal", qos)
                client.sn.send_publish("ab", b"short", qos)
                self.mqtt_hears("ab", b"short", qos)
                client.sn.send_publish_predefined(1, b"predefined", qos)
                self.mqtt_hears("fixed/one", b"predefined", qos)
            client.sn.send_disconnect()

    def test_its_command_publishes_with_every_qos_the_lowest_without_a_connection(self):
        self.mqtt.subscribe("#")
        command = str(pathlib.Path(sys.executable).parent / "mqtt_sn_pub")
        for qos in (-1, 0, 1, 2):
            words = [command, "-p", str(self.port), "-t", "cd", "-m", f"qos {qos}", "-q", str(qos)]
            words += ["-i", f"command{qos + 1}"]
            done = subprocess.run(words, capture_output=True, text=True, timeout=20)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.mqtt_hears("cd", f"qos {qos}".encode(), max(qos, 0))
        words = [command, "-p", str(self.port), "-T", "2", "-m", "predefined", "-q", "-1"]
        self.assertEqual(subprocess.run(words, capture_output=True, timeout=20).returncode, 0)
        self.mqtt_hears("fixed/two", b"predefined", 0)

    def test_it_hears_predefined_topics(self):
        # A client of its own: it takes a predefined id for the registered topic of the same number.
        with Client(self.port, "predefined") as client:
            client.sn.send_subscribe_predefined(2, 1, client.heard)
            for qos in (0, 1, 2):
                self.mqtt.publish("fixed/two", "three", qos)
                client.hears((2, b"three"))
            client.sn.send_disconnect()

    def test_it_hears_normal_short_and_wildcard_topics(self):
        with Client(self.port, "subscriber") as client:
            client.subscribe("plant/line")
            client.subscribe("wild/+/#")
            client.subscribe("ef")
            for qos in (0, 1, 2):
                self.mqtt.publish("plant/line", "one", qos)
                client.hears(("plant/line", b"one"))
                self.mqtt.publish("ef", "two", qos)
                client.hears((int.from_bytes(b"ef", "big"), b"two"))
                # A topic of its own each time: REGISTER goes before.
                self.mqtt.publish(f"wild/{qos}/x", "four", qos)
                client.hears((f"wild/{qos}/x", b"four"))
            client.sn.send_unsubscribe("plant/line")
            self.mqtt.publish("plant/line", "gone")
            client.hears_nothing()
            client.sn.send_disconnect()

    def test_a_long_payload_goes_both_ways(self):
        payload = bytes(n % 251 for n in range(900))
        with Client(self.port, "long") as client:
            client.subscribe("long/way")
            client.sn.send_publish("long/way", payload, 0)
            client.hears(("long/way", payload))
            client.sn.send_disconnect()

    def test_a_payload_larger_than_a_packet_may_be_is_left_out_and_the_next_comes(self):
        with Client(self.port, "small") as client:
            client.subscribe("small/one")
            self.mqtt.publish("small/one", "x" * 3000)
            self.mqtt.publish("small/one", "fits")
            client.hears(("small/one", b"fits"))
            client.sn.send_disconnect()

    def test_it_pings_and_searches_for_gateways(self):
        with Client(self.port, "pings") as client:
            client.sn.send_ping_req()
            client.sn.send_search_gateway(1)
            client.sn.send_disconnect()

    def test_its_will_is_published_when_it_is_lost_and_not_after_disconnect(self):
        self.mqtt.subscribe("last/#")
        with Client(self.port, "leaves", keep_alive=1, will=("last/leaves", "leaves", 1, False)) as client:
            client.sn.send_disconnect()
        with Client(self.port, "lost", keep_alive=1, will=("last/lost", "lost", 1, False)):
            self.mqtt_hears("last/lost", b"lost", 1)
        self.assertIsNone(self.mqtt.next(2))

    def test_its_will_is_changed(self):
        self.mqtt.subscribe("last/#")
        with Client(self.port, "changes", keep_alive=1, will=("last/changes", "before", 0, False)) as client:
            client.sn.send_will_topic_update("last/words")
            client.sn.send_will_message_update("after")
            self.mqtt_hears("last/words", b"after", 0)

    def test_it_sleeps_and_hears_what_was_kept_when_it_connects(self):
        with Client(self.port, "sleeps", clean=False) as client:
            client.subscribe("while/away")
            client.sn.send_disconnect(60)
            for number in range(5):
                self.mqtt.publish("while/away", f"{number}")
            time.sleep(0.3)
            with self.assertRaises(BlockingIOError):
                client.sn.datagram_socket.setblocking(False)
                client.sn.datagram_socket.recv(1500)
            client.sn.send_connect()
            client.hears(*(("while/away", f"{number}".encode()) for number in range(5)))
            client.sn.send_disconnect()

    def test_its_session_is_there_for_another_socket(self):
        with Client(self.port, "returns", clean=False) as client:
            client.subscribe("for/later")
            client.sn.send_disconnect()
        self.mqtt.publish("for/later", "kept")
        again = Client(self.port, "returns", clean=False)
        again.sn.register_topic(client.sn.search_topic_id("for/later"), "for/later")
        again.sn.add_mqtt_sn_callback("for/later", again.heard)
        with again:
            again.hears(("for/later", b"kept"))
            again.sn.send_disconnect()

    def test_it_is_refused_what_is_not_supported(self):
        with Client(self.port, "refused") as client:
            with self.assertRaisesRegex(MqttSnClientException, "invalid topic"):
                client.sn.send_publish_predefined(99, b"nowhere", 1)
            with self.assertRaises(MqttSnClientException):
                client.sn.send_register("wild/+")
            client.sn.send_disconnect()

    def test_coap_hears_what_it_publishes_and_it_hears_what_coap_puts(self):
        asyncio.run(self.with_coap())

    async def with_coap(self):
        context = await aiocoap.Context.create_client_context()
        uri = f"coap://{harness.HOST}:{self.server.port('coap')}/ps/both/ways"
        seen = []
        with Client(self.port, "crossing") as client:
            client.subscribe("both/ways", 0)
            observed = context.request(aiocoap.Message(code=aiocoap.GET, uri=uri, observe=0))
            observed.observation.register_callback(lambda answer: seen.append(answer.payload))
            await observed.response
            client.sn.send_publish("both/ways", b"from a sensor", 1)
            client.hears(("both/ways", b"from a sensor"))
            for _ in range(100):
                if seen:
                    break
                await asyncio.sleep(0.05)
            self.assertEqual(seen, [b"from a sensor"])
            answer = await context.request(aiocoap.Message(code=aiocoap.PUT, uri=uri, payload=b"from CoAP")).response
            self.assertTrue(answer.code.is_successful(), answer)
            client.hears(("both/ways", b"from CoAP"))
            client.sn.send_disconnect()
        await context.shutdown()

    def test_an_operator_sees_it(self):
        with Client(self.port, "seen") as client:
            client.subscribe("seen/by")
            found = [c for c in self.server.items("clients", "list") if c["client_id"] == "seen"]
            self.assertEqual([(c["connected"], c["transport"]) for c in found], [(True, "udp")], json.dumps(found))
            self.assertIn("seen/by", json.dumps(self.server.items("subscriptions", "seen")))
            client.sn.send_disconnect()
