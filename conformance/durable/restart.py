"""Real clients through restarts and kills; and what can be wrong with a store that a gateway is started on."""

import signal
import subprocess
import threading
import time
import unittest

import harness
import packets
from durable.kit import wire
from durable.kit.world import Gateway
from mqtt.paho import Device, props
from paho.mqtt.subscribeoptions import SubscribeOptions

LONG = 3600


class Case(unittest.TestCase):
    def gateway(self, overrides=None, **words):
        """A gateway that runs until the test ends."""
        server = Gateway(overrides, **words)
        server.__enter__()
        self.addCleanup(server.kill)
        return server

    def again(self, server, with_signal=signal.SIGKILL):
        """Ends it and starts it on the same data."""
        server.end(with_signal)
        server.spawn()
        server.ready()

    def refused(self, server):
        """Starts it on its data, where it must not run; what it says."""
        before = len(server.said())
        server.spawn()
        code = server.process.wait(20)
        self.assertGreater(code, 0, "it says so with its exit code")
        return server.said()[before:]

    def sleeper(self, server, name, topic, qos=1, version=4):
        """Subscribes with a durable session and goes."""
        with packets.Client(server.port("tcp"), version) as client:
            client.connect(name, clean=False, props={packets.SESSION_EXPIRY: LONG})
            self.assertEqual(client.subscribe(topic, qos=qos), [qos])
            client.send(packets.packet(packets.DISCONNECT))

    def publish(self, server, topic, payloads, retain=False):
        """With QoS 1, until all are acknowledged."""
        with packets.Client(server.port("tcp")) as client:
            client.connect("publisher")
            for start in range(0, len(payloads), 100):
                part = payloads[start:start + 100]
                client.send(b"".join(packets.publish(topic, payload, 1, index + 1, retain=retain)
                                     for index, payload in enumerate(part)))
                for _ in part:
                    client.expect(packets.PUBACK)

    def waiting(self, server, name, version=4):
        """Session present, and the payloads that wait for the session."""
        with packets.Client(server.port("tcp"), version) as client:
            client.send(packets.connect(name, version, False, props={packets.SESSION_EXPIRY: LONG}))
            present = client.expect(packets.CONNACK)[0] & 1
            payloads = []
            client.socket.settimeout(1.0)
            try:
                while True:
                    kind, flags, body = client.receive()
                    if kind == packets.PUBLISH:
                        got = wire.read_publish(flags, body, version)
                        client.send(wire.answer(packets.PUBACK, got.packet_id))
                        payloads.append(got.payload)
            except TimeoutError:
                return present, payloads


def numbers(first, last):
    """Payloads with these numbers."""
    return [str(number).encode() for number in range(first, last + 1)]


class Clients(Case):
    def pub(self, server, version, qos, topic, lines):
        subprocess.run(["mosquitto_pub", "-h", harness.HOST, "-p", str(server.port("tcp")), "-V", version, "-q", qos,
                        "-t", topic, "-l"], input="\n".join(lines) + "\n", check=True, text=True, timeout=30)

    def sub(self, server, version, qos, topic, *words):
        """Runs mosquitto_sub with a session that stays; the lines it printed."""
        expiry = ["-x", str(LONG)] if version == "5" else []
        done = subprocess.run(["mosquitto_sub", "-h", harness.HOST, "-p", str(server.port("tcp")), "-V", version,
                               "-c", "-i", f"sub-{version}-{qos}", "-q", qos, "-t", topic, *expiry, *words],
                              capture_output=True, text=True, timeout=40)
        clients = server.cli("clients", "list").stdout
        self.assertEqual(done.returncode, 0, f"{done.stderr}{done.stdout.split()}\n{clients}")
        return done.stdout.split()

    def test_mosquitto_sub_gets_what_came_while_it_and_the_gateway_were_away(self):
        for how in (signal.SIGTERM, signal.SIGKILL):
            server = self.gateway()
            kinds = [(version, qos) for version in ("311", "5") for qos in ("1", "2")]
            for version, qos in kinds:
                self.sub(server, version, qos, f"away/{version}/{qos}", "-E")
            for start in (1, 41, 81):
                for version, qos in kinds:
                    self.pub(server, version, qos, f"away/{version}/{qos}", map(str, range(start, start + 40)))
                self.again(server, how)
            for version, qos in kinds:
                with self.subTest(how=how.name, version=version, qos=qos):
                    lines = self.sub(server, version, qos, f"away/{version}/{qos}", "-C", "120", "-W", "20")
                    self.assertEqual(lines, [str(number) for number in range(1, 121)])
            server.stop()

    def test_mosquitto_sub_finds_retained_messages_again_and_no_cleared_ones(self):
        server = self.gateway()
        self.publish(server, "kept/a", numbers(1, 9), retain=True)
        self.publish(server, "kept/b", [b"x", b""], retain=True)
        self.again(server)
        done = subprocess.run(["mosquitto_sub", "-h", harness.HOST, "-p", str(server.port("tcp")), "-t", "kept/#",
                               "-q", "1", "-W", "2", "-F", "%t %p %r"], capture_output=True, text=True, timeout=20)
        self.assertEqual(done.stdout.split("\n")[:-1], ["kept/a 9 1"])

    def test_paho_publishes_and_subscribes_across_kills_and_nothing_is_lost_or_doubled(self):
        for version in (4, 5):
            with self.subTest(version=version):
                server = self.gateway()
                with Device(server, "listener", version, clean=False, expiry=LONG) as listener, \
                        Device(server, "speaker", version, clean=False, expiry=LONG) as speaker:
                    for device in (listener, speaker):
                        device.client.reconnect_delay_set(1, 1)
                    listener.subscribe("across", 2)
                    sent = []
                    for life in range(4):
                        sent += [speaker.client.publish("across", f"{life} {number}", 2) for number in range(50)]
                        if life < 3:
                            time.sleep(0.02 * life)
                            self.again(server)
                            for device in (listener, speaker):
                                flags, code, _ = device.connected.get(timeout=15)
                                self.assertEqual((flags.session_present, code.is_failure), (True, False))
                    for info in sent:
                        info.wait_for_publish(20)
                        self.assertTrue(info.is_published())
                    wanted = [f"{life} {number}" for life in range(4) for number in range(50)]
                    got = [listener.messages.get(timeout=10).payload.decode() for _ in wanted]
                    # paho resends in its own order; each once is what counts.
                    self.assertEqual(sorted(got), sorted(wanted))
                    time.sleep(0.3)
                    self.assertTrue(listener.messages.empty(), "more than was sent")
                server.stop()

    def test_messages_and_subscriptions_come_back_with_all_that_belongs_to_them(self):
        server = self.gateway()
        with Device(server, "full", 5, clean=False, expiry=LONG) as device:
            device.subscribe("full/#", options=SubscribeOptions(qos=2, noLocal=True, retainAsPublished=True),
                             properties=props("SUBSCRIBE", SubscriptionIdentifier=7))
        values = {"UserProperty": [("a", "1"), ("b", ""), ("a", "2")], "ContentType": "text/plain",
                  "ResponseTopic": "answers", "CorrelationData": bytes(range(256)), "PayloadFormatIndicator": 1,
                  "MessageExpiryInterval": 100}
        with Device(server, "other", 5) as other:
            other.publish("full/1", "grüße", 2, True, **values)
        self.again(server)
        with Device(server, "full", 5, clean=False, expiry=LONG) as device:
            message = device.messages.get(timeout=5)
            self.assertEqual((message.topic, message.payload.decode(), message.qos), ("full/1", "grüße", 2))
            self.assertTrue(message.retain, "as it was published")
            for name, value in values.items():
                if name != "MessageExpiryInterval":
                    self.assertEqual(getattr(message.properties, name), value)
            self.assertLessEqual(message.properties.MessageExpiryInterval, 100)
            self.assertEqual(message.properties.SubscriptionIdentifier, [7])
            device.publish("full/2", "own", 1)
            device.publish("elsewhere", "", 1)
            self.assertTrue(device.messages.empty(), "no message of its own")
        server.stop()

    def test_what_paho_has_not_acknowledged_comes_first_again_with_its_ids(self):
        for version in (4, 5):
            with self.subTest(version=version):
                server = self.gateway()
                with Device(server, "unsure", version, clean=False, expiry=LONG, manual=True) as device:
                    device.subscribe("unsure", 1)
                    self.publish(server, "unsure", numbers(1, 5))
                    before = [device.messages.get(timeout=5) for _ in range(5)]
                    # A command to the gateway on the same connection comes after the acknowledgements.
                    for message in before[:2]:
                        device.client.ack(message.mid, message.qos)
                    device.publish("other", "x", 1)
                    device.cut()
                self.publish(server, "unsure", numbers(6, 7))
                self.again(server)
                with Device(server, "unsure", version, clean=False, expiry=LONG) as device:
                    self.assertTrue(device.flags.session_present)
                    after = [device.messages.get(timeout=5) for _ in range(5)]
                    self.assertEqual([m.payload for m in after], numbers(3, 7))
                    self.assertEqual([m.dup for m in after], [True, True, True, False, False])
                    self.assertEqual([m.mid for m in after[:3]], [m.mid for m in before[2:]])
                server.stop()


class Quiet(Case):
    def test_what_waits_of_qos_2_comes_with_nothing_else_going_on(self):
        """Its ids have to be on the disk before; whoever waits for that alone is woken."""
        server = self.gateway()
        self.sleeper(server, "quiet", "quiet", 2)
        payloads = numbers(1, 200)
        with packets.Client(server.port("tcp")) as publisher:
            publisher.connect("loud")
            for _ in range(20):
                publisher.send(b"".join(packets.publish("quiet", payload, 2, int(payload)) for payload in payloads))
                done = 0
                while done < len(payloads):
                    kind, _, body = publisher.receive()
                    if kind == packets.PUBREC:
                        publisher.send(wire.answer(packets.PUBREL, wire.read_answer(body)[0]))
                    done += kind == packets.PUBCOMP
                self.assertEqual(self.taken(server), payloads)
        server.stop()

    def taken(self, server):
        """All that waits of QoS 2."""
        with packets.Client(server.port("tcp"), timeout=5) as client:
            self.assertEqual(client.connect("quiet", clean=False), 0)
            found, done = [], 0
            while done < 200:
                kind, flags, body = client.receive()
                if kind == packets.PUBLISH:
                    got = wire.read_publish(flags, body, 4)
                    found.append(got.payload)
                    client.send(wire.answer(packets.PUBREC, got.packet_id))
                else:
                    self.assertEqual(kind, packets.PUBREL)
                    client.send(wire.answer(packets.PUBCOMP, wire.read_answer(body)[0]))
                    done += 1
            # What it said is worked on before it goes.
            client.ping()
        return found


class Late(Case):
    """The time of a session or of a will is over when the gateway starts, and its client waits at the door."""

    def absent(self, server, expiry, delay):
        """A connection that is cut by a kill of the gateway, which starts again when all that has time is over. The
        client's CONNECT is there before the gateway is ready; session present."""
        with packets.Client(server.port("tcp"), 5) as client:
            will = wire.Will("late/will", b"late", 1, delay)
            client.send(wire.connect("late", 5, False, {packets.SESSION_EXPIRY: expiry}, will))
            self.assertEqual(client.expect(packets.CONNACK)[:2], b"\0\0")
        # The gateway sees the end of the connection, and has it on the disk.
        time.sleep(0.4)
        server.end(signal.SIGKILL)
        time.sleep(1)
        server.spawn()
        while not harness.reachable(server.port("tcp")):
            time.sleep(0.002)
        with packets.Client(server.port("tcp"), 5) as client:
            client.send(wire.connect("late", 5, False, {packets.SESSION_EXPIRY: expiry}))
            return client.expect(packets.CONNACK)[0] & 1

    def test_a_session_that_has_expired_is_not_taken_up(self):
        server = self.gateway()
        self.assertEqual(self.absent(server, 1, 0), 0)
        server.stop()

    def test_a_will_that_is_due_is_published(self):
        server = self.gateway()
        self.sleeper(server, "heir", "late/will")
        self.assertEqual(self.absent(server, LONG, 1), 1)
        self.assertEqual(self.waiting(server, "heir"), (1, [b"late"]))
        server.stop()


class Sessions(Case):
    def test_a_session_that_was_cleaned_stays_clean(self):
        server = self.gateway()
        self.sleeper(server, "cleaned", "c")
        self.publish(server, "c", numbers(1, 5))
        self.again(server)
        with packets.Client(server.port("tcp")) as client:
            client.send(packets.connect("cleaned", clean=True))
            self.assertEqual(client.expect(packets.CONNACK), b"\0\0")
        self.again(server)
        self.publish(server, "c", numbers(6, 7))
        self.assertEqual(self.waiting(server, "cleaned"), (0, []))
        server.stop()

    def test_an_unsubscription_is_kept(self):
        server = self.gateway()
        self.sleeper(server, "leaver", "stays")
        with packets.Client(server.port("tcp")) as client:
            client.connect("leaver", clean=False)
            client.subscribe("goes", qos=1)
            client.send(wire.unsubscribe(["goes"], 2, 4))
            client.expect(packets.UNSUBACK)
        self.again(server)
        self.publish(server, "goes", numbers(1, 2))
        self.publish(server, "stays", numbers(3, 4))
        self.assertEqual(self.waiting(server, "leaver"), (1, numbers(3, 4)))
        server.stop()

    def test_a_bound_of_the_queue_counts_what_was_there_before(self):
        server = self.gateway({"router.max_queued": 5})
        self.sleeper(server, "bounded", "b")
        self.publish(server, "b", numbers(1, 4))
        self.again(server)
        self.publish(server, "b", numbers(5, 8))
        self.assertEqual(self.waiting(server, "bounded"), (1, numbers(4, 8)))
        self.again(server)
        self.assertEqual(self.waiting(server, "bounded"), (1, []))
        server.stop()

    def test_nobody_else_takes_up_a_session_after_a_restart(self):
        server = self.gateway({"mqtt.listeners.login.enabled": True})
        passwords = harness.USERS
        with packets.Client(server.port("login")) as client:
            self.assertEqual(client.connect("hers", clean=False, user="alice", password=passwords["alice"]), 0)
            client.subscribe("secrets", qos=1)
        self.publish(server, "secrets", [b"secret"])
        self.again(server)
        with packets.Client(server.port("login")) as client:
            refusal = client.connect("hers", clean=False, user="bob", password=passwords["bob"])
            self.assertNotEqual(refusal, 0)
        with packets.Client(server.port("login")) as client:
            self.assertEqual(client.connect("hers", clean=False, user="alice", password=passwords["alice"]), 0)
            self.assertEqual(client.message()[:2], ("secrets", b"secret"))
        server.stop()

    def test_a_retained_message_expires_while_the_gateway_is_away(self):
        server = self.gateway()
        with packets.Client(server.port("tcp"), 5) as client:
            client.connect("publisher")
            for topic, expiry in (("k/short", 1), ("k/long", 100)):
                client.send(wire.publish(wire.Publication(topic, b"value", 1, False, True, 1,
                                                          {wire.MESSAGE_EXPIRY: expiry}), 5))
                client.expect(packets.PUBACK)
        server.end(signal.SIGKILL)
        time.sleep(2)
        server.spawn()
        server.ready()
        with packets.Client(server.port("tcp"), 5) as client:
            client.connect("reader")
            client.subscribe("k/#", qos=1)
            _, flags, body = client.receive()
            got = wire.read_publish(flags, body, 5)
            self.assertEqual((got.topic, got.retain), ("k/long", True))
            self.assertTrue(90 <= got.properties[wire.MESSAGE_EXPIRY] <= 98, got.properties)
            client.send(wire.answer(packets.PUBACK, got.packet_id))
            # Nothing but this comes: the other one would have come before the answer.
            client.ping()
        server.stop()


class Durability(Case):
    def test_memory_forgets_and_says_so(self):
        server = self.gateway({"store.durability": "memory"})
        self.sleeper(server, "forgotten", "m")
        self.publish(server, "m", numbers(1, 3))
        self.assertIn('store.durability is "memory"', server.said())
        self.again(server, signal.SIGTERM)
        self.assertEqual(self.waiting(server, "forgotten"), (0, []))
        self.assertFalse((server.data / "store").exists(), "nothing is written")
        refusal = server.cli("store", "stats", check=False)
        self.assertGreater(refusal.returncode, 0)
        self.assertIn("memory", refusal.stderr)
        server.stop()

    def test_batched_keeps_all_at_a_stop_and_after_its_interval_at_a_kill(self):
        server = self.gateway({"store.durability": "batched", "store.batch_interval": "50 ms"})
        self.sleeper(server, "batched", "b")
        self.publish(server, "b", numbers(1, 100))
        self.again(server, signal.SIGTERM)
        self.publish(server, "b", numbers(101, 200))
        time.sleep(0.5)
        self.again(server, signal.SIGKILL)
        self.assertEqual(self.waiting(server, "batched"), (1, numbers(1, 200)))
        server.stop()


class Wrong(Case):
    def test_a_second_process_on_the_same_data_is_told_who_has_it(self):
        server = self.gateway()
        other = Gateway({"node.data": str(server.data), "admin.socket": "off"})
        self.addCleanup(other.kill)
        said = self.refused(other)
        self.assertIn("another tidegate is running", said)
        self.assertIn(str(server.process.pid), said)
        self.sleeper(server, "undisturbed", "u")
        server.stop()

    def test_a_store_of_a_newer_format_is_refused_with_both_numbers_and_left_alone(self):
        server = self.gateway()
        self.sleeper(server, "from-the-future", "f")
        self.publish(server, "f", numbers(1, 5))
        server.end(signal.SIGTERM)
        version = server.data / "store" / "format"
        self.assertEqual(version.read_text().strip(), "1")
        version.write_text("99\n")
        said = self.refused(server)
        self.assertRegex(said, r"format 99.*up to format 1\b")
        refusal = server.cli("store", "check", check=False)
        self.assertGreater(refusal.returncode, 0)
        self.assertIn("format 99", refusal.stderr)
        version.write_text("1\n")
        server.spawn()
        server.ready()
        self.assertEqual(self.waiting(server, "from-the-future"), (1, numbers(1, 5)))
        server.stop()

    def test_a_store_without_its_format_is_refused(self):
        server = self.gateway()
        server.end(signal.SIGTERM)
        (server.data / "store" / "format").unlink()
        self.assertIn("format", self.refused(server))


class Damage(Case):
    """A byte of a file is another one than it was. What lies there is lost, and the rest is served."""

    COUNT, PADDING = 2000, b"x" * 20_000

    def filled(self):
        """A gateway that was stopped with messages waiting."""
        server = self.gateway()
        self.sleeper(server, "reader", "damage")
        self.publish(server, "damage", [payload + b" " + self.PADDING for payload in numbers(1, self.COUNT)])
        # Most of it is written out of the journal by another thread; a table that is not finished would be written anew.
        harness.until(lambda: self.is_written(server), "a table is written", 20)
        server.end(signal.SIGTERM)
        return server

    def is_written(self, server):
        """Whether the largest table has grown and grows no more."""
        before = self.largest(server, "tables/*").stat().st_size
        time.sleep(1.5)
        return before > 1 << 20 and before == self.largest(server, "tables/*").stat().st_size

    def largest(self, server, pattern):
        """The file with most in it."""
        files = [file for file in (server.data / "store" / "db").rglob(pattern) if file.is_file()]
        return max(files, key=lambda file: file.stat().st_size)

    def flip(self, file, part):
        """Changes a bit at this part of its length."""
        with open(file, "r+b") as data:
            data.seek(int(file.stat().st_size * part))
            byte = data.read(1)[0]
            data.seek(-1, 1)
            data.write(bytes([byte ^ 0x40]))

    def served(self, server, most):
        """Starts it; all but `most` messages come in order, and more go through."""
        server.spawn()
        server.ready()
        present, payloads = self.waiting(server, "reader")
        found = [int(payload.split(b" ")[0]) for payload in payloads]
        self.assertEqual(present, 1)
        self.assertEqual(found, sorted(set(found)))
        lost = self.COUNT - len(found)
        print(f"  {lost} of {self.COUNT} messages are lost")
        self.assertLessEqual(lost, most)
        self.publish(server, "damage", [b"after"])
        self.assertEqual(self.waiting(server, "reader"), (1, [b"after"]))
        return lost

    def test_a_flipped_byte_in_a_journal_costs_its_batch_and_is_told(self):
        for told_by in ("the log", "store check"):
            with self.subTest(told_by=told_by):
                server = self.filled()
                # Near its end, which is in no table yet.
                self.flip(self.largest(server, "*.jnl"), 0.97)
                if told_by == "store check":
                    self.assertEqual(server.cli("store", "check", check=False).returncode, 1)
                # The publisher has a hundred in flight: no batch has more.
                self.assertGreater(self.served(server, 100), 0)
                if told_by == "the log":
                    self.assertIn("damaged", server.said())
                server.stop()

    def test_a_flipped_byte_in_a_table_costs_its_block_and_is_told(self):
        server = self.filled()
        self.flip(self.largest(server, "tables/*"), 0.5)
        for _ in range(2):
            checked = server.cli("store", "check", check=False)
            self.assertEqual(checked.returncode, 1, checked.stdout)
            self.assertIn("damaged", checked.stderr)
        self.served(server, 20)
        server.stop()

    def test_a_torn_end_of_the_journal_costs_nothing(self):
        for tail in (b"\0" * 5000, bytes(range(256)) * 20, b"\x01"):
            server = self.filled()
            with open(self.largest(server, "*.jnl"), "ab") as journal:
                journal.write(tail)
            self.assertEqual(self.served(server, 0), 0)
            server.stop()


class Backup(Case):
    def test_a_backup_while_messages_come_holds_what_was_acknowledged_before_it(self):
        server = self.gateway()
        for name, version in (("copied-4", 4), ("copied-5", 5)):
            self.sleeper(server, name, "copied", version=version)
        self.publish(server, "kept", [b"value"], retain=True)
        acknowledged, enough = [0], threading.Event()

        def publish():
            with packets.Client(server.port("tcp")) as client:
                client.connect("steady-publisher")
                while not enough.is_set():
                    number = acknowledged[0] + 1
                    client.send(packets.publish("copied", str(number).encode(), 1, number % 60000 + 1))
                    client.expect(packets.PUBACK)
                    acknowledged[0] = number

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            harness.until(lambda: acknowledged[0] > 100, "messages are published")
            before = acknowledged[0]
            copy = server.folder / "copy"
            server.cli("store", "backup", str(copy))
            after = acknowledged[0]
        finally:
            enough.set()
            thread.join(20)
        self.assertGreater(acknowledged[0], before, "publishing goes on")
        second = self.gateway({"node.data": str(copy)})
        for name, version in (("copied-4", 4), ("copied-5", 5)):
            present, payloads = self.waiting(second, name, version)
            self.assertEqual((present, payloads), (1, numbers(1, len(payloads))), "a state that was")
            self.assertLessEqual(before, len(payloads))
            # One more may have been on its way.
            self.assertLessEqual(len(payloads), after + 1)
        with packets.Client(second.port("tcp")) as client:
            client.connect("reader")
            client.subscribe("kept")
            self.assertEqual(client.message()[1], b"value")
        second.stop()
        server.stop()

    def cut_short(self, server, copy):
        """Kills the gateway while it copies, and starts it again; whether it was still copying."""
        asking = subprocess.Popen([str(harness.binary()), "store", "backup", str(copy)], cwd=server.folder,
                                  env=server.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (copy / "store.unfinished").exists() and asking.poll() is None:
            time.sleep(0.0005)
        server.crash()
        asking.wait(10)
        server.spawn()
        server.ready()
        return (copy / "store.unfinished").exists() and not (copy / "store").exists()

    def test_a_backup_that_was_cut_short_is_made_again(self):
        server = self.gateway()
        self.sleeper(server, "copied", "copied")
        self.publish(server, "copied", [payload + b" " + b"x" * 10_000 for payload in numbers(1, 1000)])
        for attempt in range(20):
            copy = server.folder / f"copy-{attempt}"
            if self.cut_short(server, copy):
                break
        else:
            self.fail("every backup was ready before the kill")
        server.cli("store", "backup", str(copy))
        second = self.gateway({"node.data": str(copy)})
        present, payloads = self.waiting(second, "copied")
        self.assertEqual((present, [payload.split(b" ")[0] for payload in payloads]), (1, numbers(1, 1000)))
        second.stop()
        server.stop()

    def test_a_backup_does_not_overwrite(self):
        server = self.gateway()
        copy = server.folder / "copy"
        server.cli("store", "backup", str(copy))
        again = server.cli("store", "backup", str(copy), check=False)
        self.assertGreater(again.returncode, 0)
        server.stop()


if __name__ == "__main__":
    unittest.main()
