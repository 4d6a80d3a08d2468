"""Devices with pre-shared keys over TLS: mosquitto's clients, libcoap's, and `openssl s_client`."""

import subprocess
import unittest

import harness

KEY = b"sixteen bytes ok"
HEX = KEY.hex()


class PreSharedKeys(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Tidegate()
        cls.ports = {name: harness.free_port() for name in ("mqtt", "coap", "new", "dtls")}
        cls.server.keys |= {
            "mqtt.listeners.psk.bind": f"{harness.HOST}:{cls.ports['mqtt']}",
            "mqtt.listeners.psk.tls.psk": True,
            "mqtt.listeners.new.bind": f"{harness.HOST}:{cls.ports['new']}",
            "mqtt.listeners.new.tls.psk": True,
            "mqtt.listeners.new.tls.min_version": "1.3",
            "coap.listeners.psk.bind": f"{harness.HOST}:{cls.ports['coap']}",
            "coap.listeners.psk.transport": "tcp",
            "coap.listeners.psk.tls.psk": True,
            "coap.listeners.dtls.bind": f"{harness.HOST}:{cls.ports['dtls']}",
            "coap.listeners.dtls.dtls.psk": True,
        }
        for number in range(8):
            cls.server.cli("psk", "add", f"urn:dev:{number}", "--client", f"dev-{number}", "--key", HEX)
        cls.server.cli("psk", "add", "urn:dev:alice", "--client", "dev-a", "--user", "alice", "--key", "-", text=HEX + "\n")
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)

    def words(self, client, identity, key, words):
        return [client, "-h", harness.HOST, "-p", str(self.ports["mqtt"]), "--psk-identity", identity, "--psk", key, *words]

    def pub(self, identity, *words, key=HEX):
        """Runs mosquitto_pub; whether it has published."""
        done = subprocess.run(self.words("mosquitto_pub", identity, key, words), capture_output=True, text=True, timeout=20)
        return done.returncode == 0

    def closed(self, reason):
        return self.server.metric("tidegate_closes_total", reason=reason)

    def test_mosquitto_publishes_in_every_version_as_the_client_that_the_key_is_of(self):
        with subprocess.Popen(self.words("mosquitto_sub", "urn:dev:0", HEX, ["-t", "every/#", "-C", "6", "-W", "20", "-F", "%p"]),
                              text=True, stdout=subprocess.PIPE) as sub:
            harness.until(lambda: self.connected("dev-0"), "the subscriber is dev-0")
            harness.until(lambda: self.subscribed("dev-0"), "it has subscribed")
            for version in ("31", "311", "5"):
                for tls in ("tlsv1.2", "tlsv1.3"):
                    words = ["-V", version, "--tls-version", tls, "-t", f"every/{version}", "-m", f"{version} {tls}", "-q", "1"]
                    # MQTT 3.1 knows no empty client id.
                    self.assertTrue(self.pub("urn:dev:1", *words, *(["-i", "dev-1"] if version == "31" else [])))
            said, _ = sub.communicate(timeout=20)
        self.assertEqual(sorted(said.split("\n")[:-1]),
                         sorted(f"{v} {t}" for v in ("31", "311", "5") for t in ("tlsv1.2", "tlsv1.3")))

    def subscribed(self, client):
        """What a client that may not be known yet has subscribed to."""
        return [item for item in self.server.items("subscriptions") if item["client_id"] == client]

    def connected(self, client):
        return [item for item in self.server.items("clients", "list", client) if item["connected"]]

    def test_a_key_opens_the_session_of_its_client_alone(self):
        self.assertTrue(self.pub("urn:dev:2", "-i", "dev-2", "-t", "a", "-m", "x"))
        self.assertFalse(self.pub("urn:dev:2", "-i", "dev-3", "-t", "a", "-m", "x"))
        # What it is named otherwise does not count.
        self.assertFalse(self.pub("urn:dev:2", "-u", "alice", "-P", harness.USERS["alice"], "-i", "x", "-t", "a", "-m", "x"))
        # Nobody else takes the session over that a key has opened.
        with subprocess.Popen(self.words("mosquitto_sub", "urn:dev:2", HEX, ["-t", "none"])) as sub:
            try:
                harness.until(lambda: self.connected("dev-2"), "the subscriber is dev-2")
                plain = ["mosquitto_pub", "-h", harness.HOST, "-p", str(self.server.port("tcp")), "-i", "dev-2", "-V", "5"]
                done = subprocess.run([*plain, "-t", "a", "-m", "x"], capture_output=True, text=True, timeout=20)
                self.assertNotEqual(done.returncode, 0)
                self.assertIsNone(sub.poll())
            finally:
                sub.kill()

    def test_a_wrong_key_and_an_unknown_identity_are_refused_and_counted(self):
        for tls in ("tlsv1.2", "tlsv1.3"):
            wrong, unknown = self.closed("psk_key"), self.closed("psk_identity")
            self.assertFalse(self.pub("urn:dev:3", "--tls-version", tls, "-t", "a", "-m", "x", key="00"))
            self.assertFalse(self.pub("urn:dev:none", "--tls-version", tls, "-t", "a", "-m", "x"))
            harness.until(lambda: (self.closed("psk_key"), self.closed("psk_identity")) == (wrong + 1, unknown + 1),
                          "each is counted")

    def test_a_device_is_added_given_a_new_key_and_removed_while_the_gateway_runs(self):
        identity, publish = "urn:dev:new", ("-t", "a", "-m", "x")
        self.assertFalse(self.pub(identity, *publish))
        self.server.cli("psk", "add", identity, "--client", "dev-new", "--key", HEX)
        self.server.reload()
        self.assertTrue(self.pub(identity, *publish))
        self.server.cli("psk", "rotate", identity, "--key", "00112233", "--keep", "1 h")
        self.server.reload()
        self.assertTrue(self.pub(identity, *publish, key="00112233"))
        # The newer key is tried first; after one failure the older one opens, until the newer one is back.
        self.assertFalse(self.pub(identity, *publish))
        self.assertTrue(self.pub(identity, *publish) and self.pub(identity, *publish))
        self.assertFalse(self.pub(identity, *publish, key="00112233"))
        self.assertTrue(self.pub(identity, *publish, key="00112233"))
        with subprocess.Popen(self.words("mosquitto_sub", identity, "00112233", ["-t", "none", "-V", "5"]),
                              text=True, stderr=subprocess.PIPE) as sub:
            harness.until(lambda: self.connected("dev-new"), "the subscriber is there")
            self.server.cli("psk", "remove", identity)
            self.server.reload()
            harness.until(lambda: not self.connected("dev-new"), "its session has ended")
            sub.kill()
        self.assertFalse(self.pub(identity, *publish, key="00112233"))

    def test_a_listener_may_refuse_tls_1_2(self):
        for version, is_served in (("-tls1_2", False), ("-tls1_3", True)):
            done = self.openssl("new", version)
            self.assertEqual("Verify return code" in done and "Cipher is (NONE)" not in done, is_served, done)

    def openssl(self, port, *words):
        done = subprocess.run(["openssl", "s_client", "-connect", f"{harness.HOST}:{self.ports[port]}", "-psk", HEX,
                               "-psk_identity", "urn:dev:4", *words], input="", capture_output=True, text=True, timeout=20)
        return done.stdout + done.stderr

    def test_the_suites_of_small_devices_are_served(self):
        for suite in ("PSK-AES128-CCM8", "PSK-AES128-CCM", "PSK-AES128-GCM-SHA256", "ECDHE-PSK-CHACHA20-POLY1305"):
            said = self.openssl("mqtt", "-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0")
            self.assertIn(f"Cipher is {suite}\n", said)
        for suite in ("AES128-GCM-SHA256", "DHE-PSK-AES128-GCM-SHA256", "PSK-AES128-CBC-SHA", "PSK-NULL-SHA256"):
            said = self.openssl("mqtt", "-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0")
            self.assertIn("Cipher is (NONE)", said)

    def libcoap(self, identity, method, topic, *words, key=KEY.decode(), wait=5):
        done = subprocess.run(["coap-client-openssl", "-m", method, "-B", str(wait), "-u", identity, "-k", key, *words,
                               f"coaps+tcp://{harness.HOST}:{self.ports['coap']}{topic}"], capture_output=True, text=True,
                              timeout=30)
        return (done.stdout + done.stderr).strip()

    def test_libcoap_puts_gets_and_observes_as_the_client_that_the_key_is_of(self):
        self.assertEqual(self.libcoap("urn:dev:5", "put", "/ps/kept/5?retain", "-e", "21.5"), "")
        self.assertEqual(self.libcoap("urn:dev:5", "get", "/ps/kept/5"), "21.5")
        with subprocess.Popen(["stdbuf", "-o0", "coap-client-openssl", "-m", "get", "-s", "8", "-B", "12", "-u", "urn:dev:alice",
                               "-k", KEY.decode(), f"coaps+tcp://{harness.HOST}:{self.ports['coap']}/ps/seen"],
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as observer:
            harness.until(lambda: self.connected("dev-a"), "the observer is dev-a")
            harness.until(lambda: self.subscribed("dev-a"), "it observes")
            self.assertEqual(self.connected("dev-a")[0]["user"], "alice")
            self.assertEqual(self.libcoap("urn:dev:5", "put", "/ps/seen", "-e", "told"), "")
            said, _ = observer.communicate(timeout=20)
        self.assertIn("told", said)

    def test_a_removed_device_is_cut_off_while_it_observes(self):
        for scheme, port in (("coaps", "dtls"), ("coaps+tcp", "coap")):
            self.server.cli("psk", "add", "urn:dev:gone", "--client", "dev-gone", "--key", HEX)
            self.server.reload()
            with subprocess.Popen(["stdbuf", "-o0", "coap-client-openssl", "-m", "get", "-s", "6", "-B", "6", "-u", "urn:dev:gone",
                                   "-k", KEY.decode(), f"{scheme}://{harness.HOST}:{self.ports[port]}/ps/cut"],
                                  text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as observer:
                harness.until(lambda: self.subscribed("dev-gone"), "it observes")
                self.server.cli("psk", "remove", "urn:dev:gone")
                self.server.reload()
                harness.until(lambda: not self.connected("dev-gone"), "it is cut off")
                self.server.cli("pub", "cut", "secret")
                said, _ = observer.communicate(timeout=20)
            self.assertNotIn("secret", said)
            self.assertEqual(self.connected("dev-gone"), [])

    def test_libcoap_with_another_key_does_not_come_in(self):
        wrong = self.closed("psk_key")
        self.assertNotEqual(self.libcoap("urn:dev:6", "put", "/ps/kept/6", "-e", "x", key="another", wait=2), "")
        harness.until(lambda: self.closed("psk_key") == wrong + 1, "it is counted")


class Bans(unittest.TestCase):
    """Who tries keys is kept out."""

    def test_failed_handshakes_over_dtls_and_tls_bring_a_ban(self):
        for scheme, carrier in (("coaps", {"dtls.psk": True}), ("coaps+tcp", {"transport": "tcp", "tls.psk": True})):
            with self.subTest(scheme):
                port = harness.free_port()
                listener = {f"coap.listeners.keys.{key}": value for key, value in carrier.items()}
                server = harness.Tidegate({**listener, "coap.listeners.keys.bind": f"{harness.HOST}:{port}",
                                           "auth.bans.login_failures": 3, "auth.bans.loopback": True})
                server.cli("psk", "add", "dev", "--client", "dev", "--key", HEX)
                with server:
                    self.put(scheme, port, "dev", KEY.decode(), "")
                    for identity, key in (("dev", "wrong"), ("nobody", KEY.decode()), ("dev", "wrong too")):
                        self.assertEqual(server.items("bans", "list"), [])
                        self.put(scheme, port, identity, key, None)
                    held = harness.until(lambda: server.items("bans", "list"), "a ban")
                    self.assertEqual([(ban["kind"], ban["value"]) for ban in held], [("address", "127.0.0.1")])
                    self.put(scheme, port, "dev", KEY.decode(), "4.01")
                    told = [line for line in server.said().splitlines() if "the pre-shared key is another" in line]
                    self.assertTrue(told and all("listener=keys" in line and "127.0.0.1" in line for line in told), server.said())

    def put(self, scheme, port, identity, key, said):
        done = subprocess.run(["coap-client-openssl", "-m", "put", "-e", "x", "-B", "2", "-u", identity, "-k", key,
                               f"{scheme}://{harness.HOST}:{port}/ps/a"], capture_output=True, text=True, timeout=30)
        if said is not None:
            self.assertEqual((done.stdout + done.stderr).strip()[:4], said)
