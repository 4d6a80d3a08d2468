"""CoAP over DTLS by clients that nobody here wrote: libcoap with OpenSSL and with GnuTLS, and OpenSSL itself."""

import contextlib
import select
import subprocess
import time
import unittest

import harness
from coap.kit import wire
from coap.kit.large import body
from coap.kit.tools import Case

FLAVOURS = ("openssl", "gnutls")
# What lives through the loss of datagrams while it shakes hands.
LOSSY = {("openssl", "psk"), ("openssl", "x509"), ("gnutls", "psk"), ("gnutls", "x509")}
# Printable: libcoap takes the key as text.
KEY = b"a key of a meter"
# Of keys; each suite is tried by a client of its own.
SUITES = ("PSK-AES128-CCM8", "PSK-AES128-CCM", "PSK-AES128-GCM-SHA256", "PSK-AES256-GCM-SHA384")


def prepare(server):
    """`psk` is a listener for keys alone, `x509` one for certificates."""
    authority = server.authority
    certificates = {"certificate": str(authority.server), "key": str(authority.server_key),
                    "client_ca": str(authority.ca), "require_client_certificate": True}
    for name, keys in (("psk", {"psk": True}), ("x509", certificates)):
        server.ports[name] = harness.free_port()
        listener = f"coap.listeners.{name}"
        server.keys[f"{listener}.bind"] = f"{harness.HOST}:{server.port(name)}"
        server.keys |= {f"{listener}.dtls.{key}": value for key, value in keys.items()}
    server.keys["coap.listeners.x509.certificate_user"] = True
    for name in ("meter", *SUITES):
        server.cli("psk", "add", "--client", name, "--key", KEY.hex(), f"id of {name}")


class Secure(Case):
    prepare = staticmethod(prepare)

    def secure(self, path, listener="psk"):
        # A certificate is checked against the name.
        return self.url(path, "coaps", listener).replace(harness.HOST, "localhost" if listener == "x509" else harness.HOST)

    PSK = ("-u", "id of meter", "-k", KEY.decode())

    def certificate(self):
        authority = self.server.authority
        return ("-c", str(authority.client), "-j", str(authority.client_key), "-C", str(authority.ca))

    def each(self):
        """Each flavour with each way to prove who it is."""
        ways = (("psk", self.PSK), ("x509", self.certificate()))
        return [(flavour, listener, words) for flavour in FLAVOURS for listener, words in ways]

    def test_libcoap_publishes_and_reads(self):
        for flavour, listener, words in self.each():
            topic = f"secure/{flavour}/{listener}"
            with self.mqtt(topic) as (_, heard):
                self.libcoap(flavour, "put", self.secure(f"/ps/{topic}?retain=true", listener), *words, "-e", "21.5")
                harness.until(lambda: heard, "the message")
            self.assertEqual(heard, [(topic, b"21.5")])
            printed = self.libcoap(flavour, "get", self.secure(f"/ps/{topic}", listener), *words)
            self.assertEqual(printed.strip(), "21.5")

    def test_libcoap_observes(self):
        for flavour, listener, words in self.each():
            topic = f"seen/{flavour}/{listener}"
            with self.observing(flavour, self.secure(f"/ps/{topic}", listener), topic, *words, seconds=6) as printed:
                with self.mqtt() as (client, _):
                    for number in range(5):
                        client.publish(topic, f"value {number};", qos=number % 2).wait_for_publish(5)
            self.hears_all(printed[0], [f"value {number};" for number in range(5)])

    def test_libcoap_puts_and_gets_a_large_body(self):
        for flavour, listener, words in self.each():
            topic, file = f"large/{flavour}/{listener}", self.folder / "got"
            payload = body(topic)
            with self.mqtt(topic) as (_, heard):
                self.libcoap(flavour, "put", self.secure(f"/ps/{topic}?retain=true", listener), *words, body=payload,
                             wait=120)
                harness.until(lambda: heard, "the message", 30)
            self.assertEqual(heard, [(topic, payload)])
            printed = self.libcoap(flavour, "get", self.secure(f"/ps/{topic}", listener), *words, "-o", str(file), wait=120)
            self.assertEqual(file.read_bytes() if file.exists() else printed, payload)

    def test_libcoap_shakes_hands_and_publishes_whichever_of_its_datagrams_are_lost(self):
        for flavour, listener, words in self.each():
            if (flavour, listener) not in LOSSY:
                continue
            for lost in ("1,3", "2,4", "3", "5,6", "7"):
                with self.subTest(f"{flavour} {listener} {lost}"):
                    topic = f"lossy/{flavour}/{listener}/{lost}"
                    with self.mqtt(topic) as (_, heard):
                        self.libcoap(flavour, "put", self.secure(f"/ps/{topic}", listener), *words, "-e", "through",
                                     "-l", lost, wait=20)
                        harness.until(lambda: heard, "the message", 20)
                    self.assertEqual(heard, [(topic, b"through")])

    def test_libcoap_puts_a_large_body_over_a_link_that_loses_a_fifth(self):
        topic, payload = self.topic, body("lossy")[:10_000]
        with self.mqtt(topic) as (_, heard):
            self.libcoap("openssl", "put", self.secure(f"/ps/{topic}"), *self.PSK, "-l", "20%", body=payload, wait=100,
                         timeout=140)
            harness.until(lambda: heard, "the message", 20)
        self.assertEqual(heard, [(topic, payload)])

    def test_a_wrong_key_and_an_unknown_identity_are_not_let_in(self):
        for flavour in FLAVOURS:
            for words in (("-u", "id of meter", "-k", "another key"), ("-u", "a stranger", "-k", KEY.decode())):
                with self.subTest(f"{flavour} {words}"), self.mqtt("secret") as (_, heard):
                    self.libcoap(flavour, "put", self.secure("/ps/secret"), *words, "-e", "x", wait=2)
                    self.assertEqual(heard, [])

    def test_who_has_no_certificate_is_not_let_in(self):
        for flavour in FLAVOURS:
            with self.subTest(flavour), self.mqtt("secret") as (_, heard):
                words = ("-C", str(self.server.authority.ca))
                self.libcoap(flavour, "put", self.secure("/ps/secret", "x509"), *words, "-e", "x", wait=2)
                self.assertEqual(heard, [])

    def test_the_client_is_who_its_credential_says(self):
        self.libcoap("openssl", "put", self.secure("/ps/who/psk"), *self.PSK, "-e", "x")
        self.libcoap("openssl", "put", self.secure("/ps/who/x509", "x509"), *self.certificate(), "-e", "x")
        clients = {c["client_id"] for c in self.server.items("clients", "list")}
        self.assertLessEqual({"meter", "device-1"}, clients)


class Stub:
    """`openssl s_client` as what carries messages: one write is one record."""

    def __init__(self, *words):
        command = ["openssl", "s_client", "-dtls1_2", "-quiet", *words]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        bufsize=0)

    def send(self, datagram):
        self.process.stdin.write(datagram)
        # What is written before it has read this would be in the same record.
        time.sleep(0.1)

    def receive(self, seconds):
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return None
        return self.process.stdout.read(65536) or None

    def close(self):
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()


class OpenSsl(Case):
    prepare = staticmethod(prepare)


    @contextlib.contextmanager
    def peer(self, *words):
        stub = Stub(*words)
        try:
            yield wire.Peer(stub)
        finally:
            stub.close()

    def talks(self, topic, *words):
        """A message goes there and another one back, through records that OpenSSL makes and reads."""
        with self.peer(*words) as peer, self.mqtt(topic) as (client, heard):
            # What is written before the handshake is over goes after it.
            time.sleep(0.5)
            self.assertEqual(peer.ask(wire.PUT, f"/ps/{topic}", b"by s_client").says, "2.04")
            harness.until(lambda: heard, "the message")
            self.assertEqual(heard, [(topic, b"by s_client")])
            token = peer.observe(f"/ps/{topic}").token
            client.publish(topic, "back", qos=1).wait_for_publish(5)
            self.assertEqual(peer.notification(token).payload, b"back")
            # Its acknowledgement goes too, in a record of its own: otherwise the next with this credential is told again.
            time.sleep(0.3)

    def test_openssl_talks_with_each_suite_of_keys(self):
        for suite in SUITES:
            with self.subTest(suite):
                self.talks(f"suite/{suite}", "-connect", f"{harness.HOST}:{self.server.port('psk')}", "-psk_identity",
                           f"id of {suite}", "-psk", KEY.hex(), "-cipher", suite)

    def test_openssl_talks_with_each_suite_of_certificates(self):
        authority = self.server.authority
        for suite in ("ECDHE-ECDSA-AES128-CCM8", "ECDHE-ECDSA-AES128-GCM-SHA256"):
            with self.subTest(suite):
                self.talks(f"suite/{suite}", "-connect", f"{harness.HOST}:{self.server.port('x509')}", "-CAfile",
                           str(authority.ca), "-cert", str(authority.client), "-key", str(authority.client_key),
                           "-verify_return_error", "-cipher", f"{suite}:@SECLEVEL=0")

    def test_openssl_is_not_let_in_with_a_wrong_key(self):
        with self.peer("-connect", f"{harness.HOST}:{self.server.port('psk')}", "-psk_identity", "id of meter", "-psk",
                       "00" * 16, "-cipher", "PSK-AES128-CCM8") as peer:
            peer.send(peer.request(wire.PUT, "/ps/secret", b"x"))
            self.assertIsNone(peer.receive(3))


class Nobody(Case):
    """A listener with a certificate of its own, where clients prove themselves by what they say: or not at all."""

    @staticmethod
    def prepare(server):
        prepare(server)
        listener = "coap.listeners.x509"
        server.keys |= {"coap.idle_timeout": "1 s", f"{listener}.certificate_user": False,
                        f"{listener}.dtls.require_client_certificate": False}

    peer = OpenSsl.peer

    def associations(self):
        return self.server.metric("tidegate_dtls_associations", listener="x509")

    def test_who_never_says_who_it_is_keeps_no_association(self):
        words = ("-connect", f"{harness.HOST}:{self.server.port('x509')}")
        with self.peer(*words) as silent, self.peer(*words) as named:
            token = named.ask(wire.POST, "/mqtt/connection?c=named&u=alice&p=secret of alice&keepalive=1").payload.decode()
            harness.until(lambda: self.associations() == 1, "one of two is left")
            # Its session's connection has ended meanwhile; the association carries what it says next.
            is_gone = lambda: not any(c["connected"] for c in self.server.items("clients", "list"))
            harness.until(is_gone, "nobody is connected", 15)
            self.assertEqual(named.ask(wire.PUT, f"/ps/named?c=named&t={token}", b"x").says, "2.04")
            self.assertIsNone(silent.receive(0))


if __name__ == "__main__":
    unittest.main()
