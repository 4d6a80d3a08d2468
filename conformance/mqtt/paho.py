"""paho-mqtt, the Python client, in 3.1.1 and 5.0."""

import queue
import threading
import time
import unittest

import harness
import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions


def props(kind, **values):
    """Properties of a packet."""
    found = Properties(getattr(PacketTypes, kind))
    for name, value in values.items():
        setattr(found, name, value)
    return found


class Device:
    """A paho client with queues for what happens to it."""

    def __init__(self, server, client_id, version=5, listener="tcp", expiry=0, clean=True, will=None, connect=None,
                 manual=False):
        transport = "websockets" if listener in ("ws", "wss") else "tcp"
        words = {"clean_session": clean} if version == 4 else {}
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, transport=transport,
                                  protocol=mqtt.MQTTv5 if version == 5 else mqtt.MQTTv311, manual_ack=manual, **words)
        if transport == "websockets":
            self.client.ws_set_options(path="/mqtt")
        if listener in ("tls", "wss"):
            self.client.tls_set(ca_certs=str(server.authority.ca))
        self.client.max_queued_messages_set(0)
        self.messages, self.connected, self.ended = queue.Queue(), queue.Queue(), queue.Queue()
        self.answers = queue.Queue()
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_connect = lambda _c, _u, flags, code, p: self.connected.put((flags, code, p))
        self.client.on_disconnect = lambda _c, _u, _f, code, p: self.ended.put((code, p))
        self.client.on_subscribe = lambda _c, _u, _mid, codes, p: self.answers.put(codes)
        self.client.on_unsubscribe = lambda _c, _u, _mid, codes, p: self.answers.put(codes)
        if will:
            self.client.will_set(**will)
        self.server, self.listener, self.version = server, listener, version
        self.clean, self.expiry, self.more = clean, expiry, connect or {}

    def __enter__(self):
        words = {}
        if self.version == 5:
            values = dict(self.more)
            if self.expiry:
                values["SessionExpiryInterval"] = self.expiry
            words = {"clean_start": self.clean, "properties": props("CONNECT", **values)}
        self.client.connect("localhost" if self.listener in ("tls", "wss") else harness.HOST,
                            self.server.port(self.listener), keepalive=30, **words)
        self.client.loop_start()
        self.flags, self.code, self.connack = self.connected.get(timeout=10)
        return self

    def __exit__(self, *_):
        self.client.disconnect()
        self.client.loop_stop()

    def cut(self):
        """Ends the connection without a word, and for good."""
        self.client.loop_stop()
        self.client._sock_close()

    def subscribe(self, *words, **more):
        """Granted codes."""
        self.client.subscribe(*words, **more)
        return [code.value for code in self.answers.get(timeout=10)]

    def publish(self, topic, payload, qos=0, retain=False, **values):
        """Waits until it is done, and returns the reason code of the answer if there is one."""
        properties = props("PUBLISH", **values) if values else None
        info = self.client.publish(topic, payload, qos, retain, properties)
        info.wait_for_publish(10)
        assert info.is_published(), f"{topic} is not acknowledged"

    def take(self, count=1, seconds=10):
        """So many messages."""
        return [self.messages.get(timeout=seconds) for _ in range(count)]

    def kept(self, count):
        """So many messages of QoS 1 and 2; whether those of QoS 0 are queued is the server's choice."""
        found = []
        while len(found) < count:
            found += [message for message in self.take() if message.qos]
        return found

    def nothing(self, seconds=0.3):
        """No message comes."""
        time.sleep(seconds)
        assert self.messages.empty(), self.messages.get().topic


class Paho(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.server()
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)

    def device(self, name, *words, **more):
        return Device(self.server, f"{self._testMethodName[5:40]}-{name}", *words, **more)

    def test_it_publishes_and_subscribes_at_every_quality_of_service_over_every_listener(self):
        for listener in ("tcp", "ws", "tls", "wss"):
            if listener == "tls" and harness.is_mosquitto():
                continue  # there this listener demands a client certificate
            for version in (4, 5):
                with self.subTest(listener=listener, version=version), \
                        self.device(f"s{listener}{version}", version, listener) as sub, \
                        self.device(f"p{listener}{version}", version, listener) as pub:
                    topic = f"paho/{listener}/{version}"
                    self.assertEqual(sub.subscribe(f"{topic}/+", 2), [2])
                    for qos in (0, 1, 2):
                        pub.publish(f"{topic}/{qos}", bytes(range(256)), qos)
                        message, = sub.take()
                        self.assertEqual((message.topic, message.qos, message.payload, message.retain),
                                         (f"{topic}/{qos}", qos, bytes(range(256)), False))

    def test_a_thousand_messages_arrive_once_and_in_order(self):
        for qos in (0, 1, 2):
            with self.subTest(qos=qos), self.device("sub") as sub, self.device("pub") as pub:
                sub.subscribe(f"thousand/{qos}", qos)
                infos = [pub.client.publish(f"thousand/{qos}", str(number), qos) for number in range(1000)]
                got = [int(message.payload) for message in sub.take(1000, 20)]
                self.assertEqual(got, list(range(1000)))
                infos[-1].wait_for_publish(10)
                sub.nothing()

    def test_a_session_resumes_with_what_came_meanwhile(self):
        for version in (4, 5):
            with self.subTest(version=version), self.device("pub") as pub:
                words = {"version": version, "clean": False, "expiry": 60}
                with self.device(f"sub{version}", **words) as sub:
                    self.assertFalse(sub.flags.session_present)
                    sub.subscribe(f"resume/{version}", 2)
                for number in range(50):
                    pub.publish(f"resume/{version}", str(number), number % 3)
                with self.device(f"sub{version}", **words) as sub:
                    self.assertTrue(sub.flags.session_present)
                    got = [int(message.payload) for message in sub.kept(33)]
                    # Order is kept for each quality of service: paho gives 2 to the program at PUBREL.
                    for qos in (1, 2):
                        self.assertEqual([number for number in got if number % 3 == qos], list(range(qos, 50, 3)))
                with self.device(f"sub{version}", version) as sub:
                    self.assertFalse(sub.flags.session_present)

    def test_messages_that_were_not_acknowledged_come_again_with_dup(self):
        words = {"version": 5, "clean": False, "expiry": 60}
        with self.device("pub") as pub:
            sub = self.device("sub", manual=True, **words).__enter__()
            sub.subscribe("again", 1)
            pub.publish("again", "1", 1)
            first, = sub.take()
            self.assertFalse(first.dup)
            sub.cut()
            with self.device("sub", **words) as sub:
                second, = sub.take()
                self.assertEqual((second.payload, second.dup, second.mid), (b"1", True, first.mid))

    def test_properties_travel_with_a_message(self):
        with self.device("sub") as sub, self.device("pub") as pub:
            sub.subscribe("props", options=SubscribeOptions(qos=1), properties=props(
                "SUBSCRIBE", SubscriptionIdentifier=7))
            pub.publish("props", "{}", 1, PayloadFormatIndicator=1, ContentType="application/json",
                        MessageExpiryInterval=100, UserProperty=[("a", "1"), ("b", "2"), ("a", "3")])
            message, = sub.take()
            found = message.properties
            self.assertEqual((found.PayloadFormatIndicator, found.ContentType, found.UserProperty),
                             (1, "application/json", [("a", "1"), ("b", "2"), ("a", "3")]))
            self.assertIn(found.MessageExpiryInterval, (99, 100))
            self.assertEqual(found.SubscriptionIdentifier, [7])

    def test_a_request_is_answered_where_it_asks_for(self):
        with self.device("responder") as responder, self.device("requester") as requester:
            responder.subscribe("service/+", 1)
            requester.subscribe("answers/me", 1)
            requester.publish("service/add", "2+3", 1, ResponseTopic="answers/me", CorrelationData=b"\0\1")
            request, = responder.take()
            responder.publish(request.properties.ResponseTopic, "5", 1,
                              CorrelationData=request.properties.CorrelationData)
            answer, = requester.take()
            self.assertEqual((answer.payload, answer.properties.CorrelationData), (b"5", b"\0\1"))

    def test_a_will_waits_for_its_delay_and_is_forgotten_if_the_client_returns(self):
        will = {"topic": "delay/will", "payload": "gone", "qos": 1,
                "properties": props("WILLMESSAGE", WillDelayInterval=3)}
        with self.device("sub") as sub:
            sub.subscribe("delay/will", 1)
            device = self.device("dev", expiry=60, clean=False, will=will).__enter__()
            device.cut()
            with self.device("dev", expiry=60, clean=False, will=will) as back:
                sub.nothing(3.5)
                back.cut()
                began = time.monotonic()
                message, = sub.take()
                self.assertEqual(message.payload, b"gone")
                self.assertGreater(time.monotonic() - began, 2.8)

    def test_subscription_options_hold(self):
        with self.device("other") as other, self.device("me") as me:
            other.publish("options/kept", "old", 1, True)
            me.subscribe("options/a", options=SubscribeOptions(qos=1, noLocal=True))
            me.publish("options/a", "mine", 1)
            other.publish("options/a", "theirs", 1)
            self.assertEqual([m.payload for m in me.take()], [b"theirs"])
            me.subscribe("options/kept", options=SubscribeOptions(qos=1, retainHandling=2, retainAsPublished=True))
            me.nothing()
            other.publish("options/kept", "new", 1, True)
            message, = me.take()
            self.assertTrue(message.retain, "retain as published")
            self.assertEqual(me.subscribe("options/kept", options=SubscribeOptions(qos=1, retainHandling=1)), [1])
            me.nothing()
            other.publish("options/kept", "", 1, True)

    def test_overlapping_subscriptions_give_their_identifiers(self):
        with self.device("sub") as sub, self.device("pub") as pub:
            for number, filter_ in enumerate(("over/#", "over/+", "over/a"), 1):
                sub.subscribe(filter_, options=SubscribeOptions(qos=1),
                              properties=props("SUBSCRIBE", SubscriptionIdentifier=number))
            pub.publish("over/a", "1", 1)
            found = []
            while len(found) < 3:
                found += sub.take()[0].properties.SubscriptionIdentifier
            self.assertEqual(sorted(found), [1, 2, 3])

    def test_topic_aliases_go_both_ways(self):
        with self.device("sub", connect={"TopicAliasMaximum": 4}) as sub, self.device("pub") as pub:
            sub.subscribe("alias/#", 1)
            if pub.connack.json().get("TopicAliasMaximum", 0) == 0:
                self.fail("the server takes no topic alias")
            pub.publish("alias/long/name/of/a/topic", "1", 1, TopicAlias=1)
            for number in range(2, 6):
                pub.publish("", str(number), 1, TopicAlias=1)
            got = sub.take(5)
            self.assertEqual([m.payload for m in got], [b"1", b"2", b"3", b"4", b"5"])
            # Paho resolves none: an aliased delivery shows itself by its missing name after the first.
            aliases = [getattr(m.properties, "TopicAlias", None) for m in got]
            for message, alias in zip(got, aliases):
                self.assertTrue(message.topic == "alias/long/name/of/a/topic" or alias is not None)

    def test_a_packet_over_the_subscribers_maximum_is_dropped_for_it_alone(self):
        with self.device("small", connect={"MaximumPacketSize": 100}) as small, self.device("big") as big, \
                self.device("pub") as pub:
            for device in (small, big):
                device.subscribe("size/#", 1)
            pub.publish("size/a", b"x" * 200, 1)
            pub.publish("size/b", b"y", 1)
            self.assertEqual([len(m.payload) for m in big.take(2)], [200, 1])
            self.assertEqual([m.payload for m in small.take()], [b"y"])

    def test_no_more_than_the_receive_maximum_is_unacknowledged(self):
        with self.device("sub", manual=True, connect={"ReceiveMaximum": 3}) as sub, self.device("pub") as pub:
            sub.subscribe("receive", 1)
            for number in range(10):
                pub.publish("receive", str(number), 1)
            got = sub.take(3)
            sub.nothing()
            for _ in range(7):
                sub.client.ack(got[0].mid, got.pop(0).qos)
                got += sub.take()
            self.assertEqual([int(m.payload) for m in got], [7, 8, 9])

    def test_a_message_expires_while_its_subscriber_is_away(self):
        with self.device("pub") as pub:
            with self.device("sub", clean=False, expiry=60) as sub:
                sub.subscribe("expiry", 1)
            pub.publish("expiry", "short", 1, MessageExpiryInterval=1)
            pub.publish("expiry", "long", 1, MessageExpiryInterval=100)
            time.sleep(1.6)
            with self.device("sub", clean=False, expiry=60) as sub:
                message, = sub.take()
                self.assertEqual(message.payload, b"long")
                self.assertIn(message.properties.MessageExpiryInterval, range(70, 100))
                sub.nothing()

    def test_a_second_client_of_the_same_id_takes_the_session_over(self):
        with self.device("same") as first:
            first.client.reconnect_delay_set(30, 60)
            with self.device("same"):
                code, _ = first.ended.get(timeout=10)
                self.assertEqual(code.value, 0x8E)
                first.client.loop_stop()

    def test_the_server_gives_a_client_without_name_one(self):
        nameless = Device(self.server, "")
        with nameless as one:
            self.assertTrue(one.connack.AssignedClientIdentifier)

    def test_many_clients_at_once_hear_each_other(self):
        devices = [self.device(str(number)).__enter__() for number in range(50)]
        try:
            for device in devices:
                device.subscribe("many", 1)
            threads = [threading.Thread(target=device.publish, args=("many", "x", 1)) for device in devices]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for device in devices:
                self.assertEqual(len(device.take(50)), 50)
        finally:
            for device in devices:
                device.__exit__()


if __name__ == "__main__":
    unittest.main()
