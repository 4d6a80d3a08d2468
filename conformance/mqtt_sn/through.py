"""From end to end: MQTT to sleeping clients and back, through restarts, from changing ports, behind forwarders."""

import time
import unittest

import harness
from coap.kit import links
from mqtt_sn.kit import gateway, wire
from mqtt_sn.kit.device import Device
from mqtt_sn.kit.forwarder import Forwarder
from mqtt_sn.kit.script import Mqtt

NODES = 1000


class Through(unittest.TestCase):
    """A gateway for each test: most of them end it."""

    keys = {}

    def setUp(self):
        self.server = gateway.start(self.keys)
        self.addCleanup(lambda: self.server.__exit__(None, None, None))
        self.port = self.server.port("mqtt_sn")

    def mqtt(self):
        client = Mqtt(self.server.port("tcp"))
        self.addCleanup(client.close)
        return client

    def device(self, name, **words):
        device = Device(self.port, name, **words)
        self.addCleanup(device.link.close)
        return device

    def hears(self, mqtt, topic, payload):
        came = mqtt.next()
        self.assertIsNotNone(came, f"nothing at {topic}")
        self.assertEqual((came.topic, came.payload), (topic, payload))


class Sleepers(Through):
    def test_a_hundred_messages_wait_for_a_sleeper_and_come_in_order(self):
        device, mqtt = self.device("sleeper").connect(clean=False), self.mqtt()
        device.subscribe("many/+", 2)
        device.sleep(600)
        wanted = []
        for number in range(100):
            topic, qos = f"many/{number % 7}", 1 + number % 2
            mqtt.publish(topic, f"{number}", qos)
            wanted.append((topic, f"{number}".encode(), qos))
        self.assertEqual(device.wake(30), wanted)
        self.assertEqual(device.wake(), [])

    def test_what_a_sleeper_has_heard_is_not_kept(self):
        device, mqtt = self.device("sleeper").connect(clean=False), self.mqtt()
        device.subscribe("once")
        device.sleep(600)
        for number in range(3):
            mqtt.publish("once", f"{number}")
            self.assertEqual(device.wake(), [("once", f"{number}".encode(), 1)])
        device.connect(clean=False)
        device.takes_nothing()

    def test_a_sleeper_is_woken_from_another_port_each_time(self):
        device, mqtt = self.device("wanderer", link=links.Moving(self.port)).connect(clean=False), self.mqtt()
        device.subscribe("wander/#", 2)
        device.sleep(600)
        for number in range(20):
            mqtt.publish(f"wander/{number % 5}", f"{number}", number % 3)
            device.link.move()
            heard = device.wake()
            # QoS 0 may be kept or not for who is away, everything else has to be.
            wanted = [(f"wander/{number % 5}", f"{number}".encode(), number % 3)]
            self.assertIn(heard, [wanted] if number % 3 else [wanted, []])

    def test_a_message_that_is_too_large_for_a_sleeper_is_left_out_and_counted(self):
        device, mqtt = self.device("sleeper").connect(clean=False), self.mqtt()
        device.subscribe("size")
        device.sleep(600)
        mqtt.publish("size", "x" * 5000)
        mqtt.publish("size", "fits")
        self.assertEqual(device.wake(), [("size", b"fits", 1)])


class Restarts(Through):
    def restarted(self, how):
        publisher, sleeper = self.device("publisher").connect(clean=False), self.device("sleeper").connect(clean=False)
        topic = publisher.register("over/restart")
        granted = sleeper.subscribe("over/restart", 2)
        sleeper.subscribe("wild/#", 1)
        mqtt = Mqtt(self.server.port("tcp"))
        mqtt.publish("wild/before", "registered")
        self.assertEqual(sleeper.hears(), [("wild/before", b"registered", 1)])
        sleeper.sleep(600)
        mqtt.publish("over/restart", "one")
        mqtt.publish("over/restart", "two", 2)
        mqtt.close()
        how()
        return publisher, sleeper, topic, granted

    def goes_on(self, how):
        publisher, sleeper, topic, _ = self.restarted(how)
        mqtt = self.mqtt()
        mqtt.subscribe("over/restart")
        # Whoever is connected may be told of a stop, whoever is asleep may not.
        while (frame := publisher.receive(0.2)) is not None:
            self.assertEqual(frame.name, "DISCONNECT")
        # Whoever was connected over bare UDP is told to connect, and then all is as it was.
        publisher.send("PUBLISH", flags=wire.qos_flag(1), topic_id=topic, id=7, data=b"early")
        publisher.takes("DISCONNECT")
        publisher.connect(clean=False)
        publisher.publish(topic, b"three", 1)
        self.hears(mqtt, "over/restart", b"three")
        mqtt.publish("wild/before", "known")
        heard = sleeper.wake(20)
        self.assertEqual(sorted(heard[:3]), sorted([("over/restart", b"one", 1), ("over/restart", b"two", 2),
                                                    ("over/restart", b"three", 1)]))
        # Its id was registered before the restart: no REGISTER came, or `topic()` had another one.
        self.assertEqual(heard[3:], [("wild/before", b"known", 1)])
        sleeper.connect(clean=False)
        mqtt.publish("over/restart", "awake")
        self.assertEqual(sleeper.hears(), [("over/restart", b"awake", 1)])

    def test_sessions_ids_and_what_was_kept_are_there_after_a_stop(self):
        self.goes_on(self.server.again)

    def test_sessions_ids_and_what_was_kept_are_there_after_a_kill(self):
        self.goes_on(self.server.killed)

    def test_fifty_sleepers_get_all_in_order_over_six_kills(self):
        sleepers = [self.device(f"sleeper-{number}").connect(clean=False) for number in range(50)]
        wanted, heard = [[] for _ in sleepers], [[] for _ in sleepers]
        for number, sleeper in enumerate(sleepers):
            sleeper.subscribe(f"kill/{number}/+", 2)
            sleeper.sleep(600)
        for turn in range(6):
            mqtt = Mqtt(self.server.port("tcp"))
            for count in range(100):
                number, qos = (count * 7 + turn) % 50, 1 + count % 2
                topic, payload = f"kill/{number}/{count % 3}", f"{turn} {count}"
                mqtt.publish(topic, payload, qos)
                wanted[number].append((topic, payload.encode(), qos))
            self.server.killed()
            mqtt.close()
            # The others sleep over several kills, with more and more waiting.
            for number in range(turn % 2, 50, 2) if turn < 5 else range(50):
                heard[number] += sleepers[number].wake(30)
        for number, of in enumerate(heard):
            once = [came for at, came in enumerate(of) if came[2] == 2 or came not in of[:at]]
            self.assertEqual(once, wanted[number])

    def test_a_message_that_was_on_its_way_comes_again_and_qos_2_once(self):
        device, mqtt = self.device("halfway").connect(clean=False), Mqtt(self.server.port("tcp"))
        device.subscribe("half/way", 2)
        mqtt.publish("half/way", "two", 2)
        frame = device.takes("PUBLISH", data=b"two")
        device.send("PUBREC", id=frame.id)
        device.takes("PUBREL", id=frame.id)
        mqtt.close()
        self.server.killed()
        device.connect(clean=False)
        # Released, not delivered again.
        release = device.takes("PUBREL")
        device.send("PUBCOMP", id=release.id)
        device.takes_nothing()

    def test_qos_2_of_a_client_is_published_once_over_a_restart(self):
        device = self.device("halfway").connect(clean=False)
        keeper = self.device("keeper").connect(clean=False)
        keeper.subscribe("in/half", 2)
        keeper.sleep(600)
        topic = device.register("in/half")
        device.send("PUBLISH", flags=wire.qos_flag(2), topic_id=topic, id=9, data=b"two")
        device.takes("PUBREC", id=9)
        self.server.killed()
        device.connect(clean=False)
        device.send("PUBLISH", flags=wire.DUP | wire.qos_flag(2), topic_id=topic, id=9, data=b"two")
        device.takes("PUBREC", id=9)
        device.send("PUBREL", id=9)
        device.takes("PUBCOMP", id=9)
        self.assertEqual(keeper.wake(), [("in/half", b"two", 2)])

    def test_the_will_of_a_sleeper_that_does_not_come_back_is_published_after_a_kill(self):
        self.will_is_published(self.server.killed)

    def test_the_will_of_a_sleeper_that_does_not_come_back_is_published_after_a_stop(self):
        self.will_is_published(self.server.again)

    def will_is_published(self, how):
        device = self.device("mortal").connect(clean=False, will=("will/mortal", b"lost", 1, True))
        device.sleep(3)
        how()
        mqtt = self.mqtt()
        mqtt.subscribe("will/#")
        came = mqtt.next(10)
        self.assertIsNotNone(came, "no will")
        self.assertEqual((came.topic, came.payload), ("will/mortal", b"lost"))


class Moves(Through):
    def test_a_client_that_connects_from_another_port_each_time_misses_nothing(self):
        device, mqtt = self.device("mover", link=links.Moving(self.port)), self.mqtt()
        device.connect(clean=False)
        device.subscribe("moving", 2)
        for number in range(20):
            device.link.move()
            mqtt.publish("moving", f"{number}", 2)
            device.connect(clean=False)
            self.assertEqual(device.hears(), [("moving", f"{number}".encode(), 2)])

    def test_after_a_move_one_message_is_sent_until_the_new_address_has_answered(self):
        device, mqtt = self.device("mover", link=links.Moving(self.port)).connect(clean=False), self.mqtt()
        device.subscribe("moving", 0)
        device.sleep(600)
        for number in range(10):
            mqtt.publish("moving", f"{number}", 1)
        device.link.move()
        # A forged PINGREQ gets at most one message of a sleeper.
        device.send("PINGREQ", client_id=device.client_id)
        count = 0
        while (frame := device.receive(0.5)) is not None:
            self.assertIn(frame.name, ("PUBLISH", "REGISTER", "PINGRESP"))
            count += frame.name == "PUBLISH"
        self.assertLessEqual(count, 1)


class SameAddress(Through):
    keys = {"rebind": "same-ip"}

    def test_another_host_does_not_wake_a_sleeper(self):
        device, mqtt = self.device("sleeper").connect(clean=False), self.mqtt()
        device.subscribe("secret")
        device.sleep(600)
        mqtt.publish("secret", "own")
        thief = self.device("sleeper", link=links.Udp(self.port, own=("127.0.0.2", 0)))
        thief.send("PINGREQ", client_id=b"sleeper")
        thief.takes("DISCONNECT")
        # Nor after a restart, when only what was kept knows where it was.
        self.server.killed()
        thief.send("PINGREQ", client_id=b"sleeper")
        thief.takes("DISCONNECT")
        thief.connect(clean=False, code=wire.CONGESTION)
        thief.connect(clean=True, code=wire.CONGESTION)
        self.assertEqual(device.wake(), [("secret", b"own", 1)])


class Behind(Through):
    # One socket read by one program: what waits there for its turn is not to be sent again.
    keys = {"retry_interval": "60 s"}

    def test_a_thousand_nodes_behind_one_forwarder(self):
        forwarder, mqtt = Forwarder(self.port), self.mqtt()
        self.addCleanup(forwarder.close)
        mqtt.subscribe("up/#", 1)
        nodes = []
        for number in range(NODES):
            name = f"{number:04}".encode()
            node = self.device(f"node-{number}", link=forwarder.node(name), node=name)
            # However long it takes until all have had their turn.
            nodes.append(node.connect(clean=False, duration=3600))
            node.subscribe(f"down/{number}", 1)
        topics = [node.register(f"up/{number}") for number, node in enumerate(nodes)]
        # A hundred at a time: who waited for all would acknowledge after the gateway's last retry.
        for first in range(0, NODES, 100):
            for number in range(first, first + 100):
                nodes[number].publish(topics[number], f"{number}".encode(), 1)
                mqtt.publish(f"down/{number}", f"to {number}", 1)
            for number in range(first, first + 100):
                self.hears(mqtt, f"up/{number}", f"{number}".encode())
                self.assertEqual(nodes[number].hears(), [(f"down/{number}", f"to {number}".encode(), 1)])
        # They sleep, and each is woken behind another forwarder than before.
        other = Forwarder(self.port)
        self.addCleanup(other.close)
        for node in nodes[::10]:
            node.sleep(600)
        for number in range(0, NODES, 10):
            mqtt.publish(f"down/{number}", "asleep", 1)
        for number in range(0, NODES, 10):
            nodes[number].link = other.node(nodes[number].node)
            self.assertEqual(nodes[number].wake(), [(f"down/{number}", b"asleep", 1)])
        self.assertEqual(len([c for c in self.server.items("clients", "list") if c["client_id"].startswith("node-")]),
                         NODES)


class Rules(Through):
    keys = {"qos_minus_one": False}

    def test_qos_minus_one_is_not_published_where_it_is_not_allowed(self):
        mqtt, device = self.mqtt(), self.device("nobody")
        mqtt.subscribe("ab")
        device.publish("ab", b"no", -1)
        self.assertIsNone(mqtt.next(0.5))
        device.connect()
        device.publish("ab", b"yes", 0)
        self.hears(mqtt, "ab", b"yes")


class Mounted(unittest.TestCase):
    """QoS -1 goes through mountpoint and ACL like everything else (6.8)."""

    def test_a_mountpoint_holds_for_every_qos(self):
        with gateway.Gateway(keys={"mqtt_sn.listeners.udp.mountpoint": "sensors/"}) as server:
            mqtt = Mqtt(server.port("tcp"))
            self.addCleanup(mqtt.close)
            mqtt.subscribe("#")
            with Device(server.port("mqtt_sn"), "mounted") as device:
                device.publish("ab", b"minus one", -1)
                came = mqtt.next()
                self.assertEqual((came.topic, came.payload), ("sensors/ab", b"minus one"))
                device.connect()
                device.subscribe("de", kind=wire.SHORT)
                device.publish("ab", b"one", 1)
                came = mqtt.next()
                self.assertEqual((came.topic, came.payload), ("sensors/ab", b"one"))
                mqtt.publish("sensors/de", "down")
                self.assertEqual(device.hears(), [("de", b"down", 1)])

    def test_who_may_not_publish_is_refused_with_a_code_and_unheard_with_qos_minus_one(self):
        server = gateway.Gateway(keys={"mqtt_sn.listeners.udp.anonymous": "never"})
        with server:
            mqtt = Mqtt(server.port("tcp"))
            self.addCleanup(mqtt.close)
            mqtt.subscribe("#")
            with Device(server.port("mqtt_sn"), "stranger") as device:
                device.publish("ab", b"minus one", -1)
                device.send("CONNECT", flags=wire.CLEAN, protocol=1, duration=60, client_id=b"stranger")
                self.assertNotEqual(device.takes("CONNACK").code, wire.ACCEPTED)
            self.assertIsNone(mqtt.next(0.5))

    def test_credentials_of_the_listener_let_its_clients_in(self):
        keys = {"mqtt_sn.listeners.udp.anonymous": "never", "mqtt_sn.credentials.username": "alice",
                "mqtt_sn.credentials.password": harness.USERS["alice"]}
        with gateway.Gateway(keys=keys) as server, Device(server.port("mqtt_sn"), "sensor") as device:
            device.connect()
            found = [c for c in server.items("clients", "list") if c["client_id"] == "sensor"]
            self.assertEqual([c["user"] for c in found], ["alice"])


class Listeners(unittest.TestCase):
    """What one listener says holds there, and what `[mqtt_sn]` says elsewhere."""

    def setUp(self):
        other, self.port = "mqtt_sn.listeners.other", harness.free_port()
        keys = {f"{name}.anonymous": "never" for name in ("mqtt_sn.listeners.udp", other)}
        keys |= {"mqtt_sn.credentials.username": "alice", "mqtt_sn.credentials.password": harness.USERS["alice"]}
        keys |= {f"{other}.bind": f"{harness.HOST}:{self.port}", f"{other}.qos_minus_one": False}
        keys |= {f"{other}.credentials.username": "bob", f"{other}.credentials.password": harness.USERS["bob"]}
        self.server = gateway.Gateway(keys=keys)
        with open(self.server.folder / "etc" / "tidegate.toml", "a", encoding="utf-8") as file:
            file.write(f"""\n[[{other}.predefined]]\nid = 2\ntopic = "other/two"\nclient = "b"\n""")
        self.server.__enter__()
        self.addCleanup(lambda: self.server.__exit__(None, None, None))

    def test_each_listener_has_its_own_credentials(self):
        with Device(self.server.port("mqtt_sn"), "a") as a, Device(self.port, "b") as b:
            a.connect()
            b.connect()
            users = {c["client_id"]: c["user"] for c in self.server.items("clients", "list")}
            self.assertEqual((users["a"], users["b"]), ("alice", "bob"))

    def test_each_listener_has_its_own_predefined_topics_beside_those_of_all(self):
        mqtt = Mqtt(self.server.port("tcp"))
        self.addCleanup(mqtt.close)
        mqtt.subscribe("#")
        for port, name, two in [(self.server.port("mqtt_sn"), "b", "fixed/two"), (self.port, "b", "other/two"),
                                (self.port, "c", "fixed/two")]:
            with Device(port, name) as device:
                device.connect()
                for number, topic in [(1, "fixed/one"), (2, two)]:
                    device.publish(number, b"here", 1, kind=wire.PREDEFINED)
                    came = mqtt.next()
                    self.assertEqual((came.topic, came.payload), (topic, b"here"))
                device.send("DISCONNECT")
                device.takes("DISCONNECT")

    def test_qos_minus_one_is_taken_where_it_is_not_switched_off(self):
        mqtt = Mqtt(self.server.port("tcp"))
        self.addCleanup(mqtt.close)
        mqtt.subscribe("ab")
        with Device(self.port, "b") as device:
            device.publish("ab", b"-1", -1)
            self.assertIsNone(mqtt.next(0.5))


class Advertised(Through):
    keys = {"advertise.duration": "1 s"}

    def setUp(self):
        self.receiver = links.socket.socket(type=links.socket.SOCK_DGRAM)
        self.receiver.bind((harness.HOST, 0))
        self.keys = self.keys | {"advertise.to": f"{harness.HOST}:{self.receiver.getsockname()[1]}"}
        super().setUp()
        self.addCleanup(self.receiver.close)

    def test_the_gateway_advertises_itself_with_its_duration(self):
        self.receiver.settimeout(5)
        began = None
        for _ in range(3):
            self.assertEqual(self.receiver.recv(100), bytes([5, 0, 1, 0, 1]))
            began = began or time.monotonic()
        self.assertTrue(1.5 < time.monotonic() - began < 4)
