"""What an operator does with a running gateway: commands, signals, certificates, users, rules, bans, metrics."""

import json
import os
import re
import signal
import ssl
import stat
import subprocess
import time
import unittest

import harness
import packets
from packets import DISCONNECT, SUBACK


class Running(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Tidegate()
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)

    def client(self, client_id, version=5, listener="tcp", **words):
        client = packets.Client(self.server.port(listener), version)
        self.addCleanup(client.socket.close)
        self.assertEqual(client.connect(client_id, **words), 0)
        return client

    def test_clients_are_listed_shown_and_kicked(self):
        client = self.client("op-1")
        client.subscribe("op/+", qos=1)
        listed = {item["client_id"]: item for item in self.server.items("clients", "list", "op-1")}
        self.assertEqual((listed["op-1"]["connected"], listed["op-1"]["subscriptions"]), (True, 1))
        shown, = self.server.items("clients", "show", "op-1")
        self.assertEqual(shown["filters"], ["op/+"])
        self.assertIn("op-1", self.server.cli("clients", "show", "op-1").stdout)
        self.server.cli("clients", "kick", "op-1")
        self.assertEqual(client.ends(), 0x98)
        done = self.server.cli("clients", "kick", "nobody", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("nobody", done.stderr)

    def test_the_operator_publishes_and_subscribes(self):
        client = self.client("op-2")
        client.subscribe("from/operator")
        self.server.cli("pub", "from/operator", "hello", "--retain", "-q", "1")
        self.assertEqual(client.message()[1], b"hello")
        topics = [item["topic"] for item in self.server.items("topics", "from/#")]
        self.assertEqual(topics, ["from/operator"])
        filters = [(item["client_id"], item["filter"]) for item in self.server.items("subscriptions", "op-2")]
        self.assertEqual(filters, [("op-2", "from/operator")])
        with self.server.command("sub", "to/operator/#", "-n", "1") as sub:
            harness.until(lambda: any(i["filter"] == "to/operator/#" for i in self.server.items("subscriptions")),
                          "tidegate sub is subscribed")
            client.send(packets.publish("to/operator/a", b"hi", version=5))
            self.assertEqual(sub.stdout.readline(), "to/operator/a hi\n")
            self.assertEqual(sub.wait(10), 0)

    def test_a_trace_shows_the_packets_of_one_client_both_ways(self):
        client, other = self.client("traced"), self.client("other")
        with self.server.command("trace", "traced") as trace, harness.Alarm(trace, 20) as alarm:
            seen = []
            # The trace begins a moment after the command does.
            while not any("PINGREQ" in line.upper().replace(" ", "") for line in seen):
                client.ping()
                time.sleep(0.1)
                os.set_blocking(trace.stdout.fileno(), False)
                seen += [line for line in trace.stdout]
                self.assertFalse(alarm.rang, seen)
            client.subscribe("trace/a")
            other.send(packets.publish("trace/a", b"payload", version=5))
            client.message()
            harness.until(lambda: seen.extend(trace.stdout) or re.search("publish", "".join(seen), re.I),
                          "the delivery is traced")
            text = "".join(seen).lower()
            for word in ("subscribe", "suback", "publish", "trace/a"):
                self.assertIn(word, text)

    def test_the_admin_socket_is_for_its_owner_alone(self):
        mode = os.stat(self.server.folder / "data" / "admin.sock").st_mode
        self.assertEqual((stat.S_ISSOCK(mode), stat.S_IMODE(mode)), (True, 0o600))

    def test_health_and_metrics_are_served(self):
        for path in ("/health", "/health/live", "/health/ready"):
            self.assertEqual(self.server.get(path)[0], 200, path)
        self.assertEqual(json.loads(self.server.get("/health")[1])["status"], "ready")
        self.assertEqual(self.server.get("/nothing")[0], 404)
        before = self.server.metric("tidegate_messages_received_total")
        client = self.client("metrics")
        for number in range(10):
            client.send(packets.publish("metrics/a", b"x", version=5))
        client.ping()
        harness.until(lambda: self.server.metric("tidegate_messages_received_total") >= before + 10,
                      "ten messages are counted")
        text = self.server.get("/metrics")[1]
        for line in text.splitlines():
            self.assertRegex(line, r'^(# (HELP|TYPE) .+|[a-z_:]+(\{.*\})? [0-9.e+-]+)$')

    def test_the_brokers_own_topics_are_for_whom_a_rule_allows(self):
        client = self.client("sys", version=4)
        self.assertEqual(client.subscribe("$SYS/#"), [0x80])

    def test_a_new_user_comes_in_after_sighup_and_a_removed_one_no_more(self):
        def enter(name, password):
            client = packets.Client(self.server.port("login"), 5)
            self.addCleanup(client.socket.close)
            return client.connect(f"user-{name}", user=name, password=password)

        self.assertIn(enter("carol", "pw of carol"), (0x86, 0x87))
        self.server.passwd("carol", "pw of carol")
        self.server.reload()
        self.assertEqual(enter("carol", "pw of carol"), 0)
        self.assertIn(enter("carol", "another"), (0x86, 0x87))
        self.server.cli("passwd", "etc/passwd", "carol", "--delete")
        self.server.reload()
        self.assertIn(enter("carol", "pw of carol"), (0x86, 0x87))
        text = (self.server.folder / "etc/passwd").read_text()
        self.assertNotIn(harness.USERS["alice"], text)
        self.assertIn("argon2id", text)
        self.assertEqual(stat.S_IMODE(os.stat(self.server.folder / "etc/passwd").st_mode), 0o600)

    def test_who_fails_is_not_told_why_and_who_is_banned_does_not_come_in(self):
        self.server.cli("bans", "add", "client_id", "naughty", "--for", "1 h")
        client = packets.Client(self.server.port("tcp"), 5)
        self.addCleanup(client.socket.close)
        self.assertEqual(client.connect("naughty"), 0x8A)
        self.assertEqual([(b["kind"], b["value"]) for b in self.server.items("bans", "list")], [("client_id", "naughty")])
        self.server.cli("bans", "remove", "client_id", "naughty")
        self.client("naughty")

    def test_commands_without_a_gateway_say_so(self):
        done = self.server.cli("--data", "elsewhere", "clients", "list", check=False)
        self.assertNotEqual(done.returncode, 0)


class Rules(unittest.TestCase):
    def test_the_access_list_decides_and_is_read_again(self):
        with harness.Tidegate() as server:
            acl = server.folder / "etc/acl.conf"
            acl.write_text("allow user alice all devices/%u/#\nallow everyone subscribe news/#\ndefault deny\n")
            server.reload()
            with packets.Client(server.port("login"), 5) as alice:
                self.assertEqual(alice.connect("a", user="alice", password=harness.USERS["alice"]), 0)
                self.assertEqual(alice.subscribe("devices/alice/#", "devices/bob/#", "#", "news/a", qos=1),
                                 [1, 0x87, 0x87, 1])
                alice.send(packets.publish("devices/bob/x", b"1", 1, 7, 5))
                self.assertEqual(alice.expect(packets.PUBACK)[2], 0x87)
                alice.send(packets.publish("devices/alice/x", b"1", 1, 8, 5))
                got = {alice.receive()[0], alice.receive()[0]}
                self.assertEqual(got, {packets.PUBLISH, packets.PUBACK})
            acl.write_text("default allow\n")
            server.reload()
            with packets.Client(server.port("login"), 5) as bob:
                self.assertEqual(bob.connect("b", user="bob", password=harness.USERS["bob"]), 0)
                self.assertEqual(bob.subscribe("devices/#", qos=1), [1])

    def test_failed_logins_end_in_a_ban_that_passes(self):
        bans = {"auth.bans.login_failures": 3, "auth.bans.duration": "2 s", "auth.bans.loopback": True}
        with harness.Tidegate(bans) as server:
            def code(password):
                with packets.Client(server.port("login"), 5) as client:
                    return client.connect("x", user="alice", password=password)

            self.assertEqual({code("wrong") for _ in range(3)}, {0x86})
            self.assertEqual(code(harness.USERS["alice"]), 0x8A)
            banned = server.items("bans", "list")
            self.assertEqual([ban["kind"] for ban in banned], ["address"])
            harness.until(lambda: code(harness.USERS["alice"]) == 0, "the ban ends", 30)

    def test_a_client_that_is_faster_than_its_rate_is_slowed_and_loses_nothing(self):
        with harness.Tidegate({"mqtt.listeners.tcp.message_rate": 100}) as server:
            with packets.Client(server.port("tcp")) as client:
                client.connect("fast")
                began = time.monotonic()
                for number in range(300):
                    client.send(packets.publish("rate", b"x", 1, number + 1))
                for _ in range(300):
                    client.expect(packets.PUBACK)
                # What was read at once over the rate is lent: it is paid back before more is read.
                client.ping()
                took = time.monotonic() - began
            # A second's worth at once, and the rest at the rate.
            self.assertGreater(took, 1.8)
            self.assertLess(took, 15.0)

    def test_before_the_first_user_exists_this_machine_comes_in_and_the_log_says_what_to_do(self):
        server = harness.Tidegate()
        (server.folder / "etc/passwd").unlink()
        for name in ("tcp", "ws", "tls", "wss", "login"):
            server.keys.pop(f"mqtt.listeners.{name}.anonymous", None)
        with server:
            self.assertIn("tidegate passwd", server.said())
            with packets.Client(server.port("tcp")) as client:
                self.assertEqual(client.connect("first"), 0)
            server.passwd("alice", "pw")
            server.reload()
            with packets.Client(server.port("tcp"), 5) as client:
                self.assertIn(client.connect("second"), (0x86, 0x87))


class Mistakes(unittest.TestCase):
    def test_check_reports_all_mistakes_with_line_key_and_suggestion(self):
        server = harness.Tidegate()
        self.addCleanup(server.kill)
        self.assertEqual(server.cli("check", check=False).returncode, 0)
        file = server.folder / "etc/tidegate.toml"
        lines = file.read_text().splitlines()
        lines[lines.index("[node]") + 1:lines.index("[node]") + 1] = ['nmae = "x"']
        lines += ["[mqtt.listeners.third]", 'bind = "nowhere"', "[limits2]", "x = 1"]
        file.write_text("\n".join(lines) + "\n")
        done = server.cli("check", check=False)
        self.assertNotEqual(done.returncode, 0)
        said = done.stdout + done.stderr
        for line, key in ((lines.index('nmae = "x"') + 1, "nmae"), (lines.index('bind = "nowhere"') + 1, "bind"),
                          (None, "limits2")):
            with self.subTest(key=key):
                found = [text for text in said.splitlines() if key in text]
                self.assertTrue(found, said)
                self.assertIn("tidegate.toml", found[0])
                if line:
                    self.assertIn(f":{line}", found[0])
        self.assertRegex(said, r"nmae.*name")
        self.assertNotEqual(server.cli("run", check=False).returncode, 0, "nor does it start with them")

    def test_a_reload_with_a_mistake_keeps_what_there_was(self):
        with harness.Tidegate() as server:
            file = server.folder / "etc/tidegate.toml"
            file.write_text(file.read_text() + "\nwrong = 1\n")
            server.process.send_signal(signal.SIGHUP)
            harness.until(lambda: "kept" in server.said(), "the log names the mistake")
            with packets.Client(server.port("tcp")) as client:
                self.assertEqual(client.connect("still"), 0)

    def test_a_port_that_is_taken_is_named(self):
        with harness.Tidegate() as first:
            second = harness.Tidegate({"mqtt.listeners.tcp.bind": f"127.0.0.1:{first.port('tcp')}"})
            self.addCleanup(second.kill)
            done = second.cli("run", check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(str(first.port("tcp")), done.stdout + done.stderr)


class Certificates(unittest.TestCase):
    def test_a_new_certificate_is_used_after_sighup_and_no_connection_is_dropped(self):
        with harness.Tidegate() as server:
            def connect(client_id):
                context = ssl.create_default_context(cafile=server.authority.ca)
                client = packets.Client(server.port("tls"), 5)
                client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
                self.addCleanup(client.socket.close)
                self.assertEqual(client.connect(client_id), 0)
                return client, client.socket.getpeercert()["serialNumber"]

            old, before = connect("old")
            certificate, key = server.authority.issue("localhost", "DNS:localhost", "renewed")
            os.replace(certificate, server.authority.server)
            os.replace(key, server.authority.server_key)
            server.reload()
            new, after = harness.until(lambda: self.changed(connect, before), "the new certificate is shown")
            self.assertNotEqual(before, after)
            old.ping()
            old.subscribe("renewed")
            new.send(packets.publish("renewed", b"1", version=5))
            self.assertEqual(old.message()[1], b"1")
            # A file that is no certificate leaves the one that was.
            server.authority.server.write_text("nonsense")
            server.process.send_signal(signal.SIGHUP)
            harness.until(lambda: "kept as they were" in server.said() and "localhost.pem" in server.said(),
                          "the log names the file")
            self.assertEqual(connect("third")[1], after)

    @staticmethod
    def changed(connect, before):
        client, serial = connect("new")
        return (client, serial) if serial != before else None


class Stopping(unittest.TestCase):
    def test_sigterm_says_goodbye_sends_wills_by_the_rules_and_ends_with_0(self):
        server = harness.Tidegate()
        with server:
            clients = [packets.Client(server.port("tcp"), version) for version in (5, 5, 4)]
            for number, client in enumerate(clients):
                self.addCleanup(client.socket.close)
                self.assertEqual(client.connect(f"stop-{number}"), 0)
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual([client.ends() for client in clients], [0x8B, 0x8B, None])
            self.assertEqual(server.process.wait(15), 0)
            self.assertNotEqual(server.get("/health")[0], 200)
            server.start()

    def test_sigterm_is_quick_with_a_client_that_does_not_read(self):
        with harness.Tidegate({"limits.stop_timeout": "2 s"}) as server:
            with packets.Client(server.port("tcp")) as deaf, packets.Client(server.port("tcp")) as pub:
                deaf.connect("deaf")
                deaf.subscribe("flood", qos=0)
                pub.connect("pub")
                for number in range(200):
                    pub.send(packets.publish("flood", b"x" * 50_000, 1, number + 1))
                    pub.expect(packets.PUBACK)
                began = time.monotonic()
                server.process.send_signal(signal.SIGTERM)
                self.assertEqual(server.process.wait(15), 0)
                self.assertLess(time.monotonic() - began, 10)
            server.start()


if __name__ == "__main__":
    unittest.main()
