"""Enhanced authentication with SCRAM-SHA-256 (RFC 5802, RFC 7677) over AUTH packets, which no client library at hand does."""

import base64
import hashlib
import hmac
import os
import unittest

import harness
import packets
from packets import AUTH, AUTHENTICATION_DATA, AUTHENTICATION_METHOD, CONNACK, DISCONNECT

METHOD = b"SCRAM-SHA-256"
CONTINUE, REAUTHENTICATE = 0x18, 0x19


class Scram:
    """The client's half."""

    def __init__(self, user, password):
        self.password = password.encode()
        self.nonce = base64.b64encode(os.urandom(18)).decode()
        self.bare = f"n={user},r={self.nonce}"

    def first(self):
        """client-first-message."""
        return f"n,,{self.bare}".encode()

    def final(self, server_first):
        """client-final-message; what the server has to prove is kept."""
        fields = dict(field.split("=", 1) for field in server_first.decode().split(","))
        assert fields["r"].startswith(self.nonce) and len(fields["r"]) > len(self.nonce), "the server adds to the nonce"
        assert int(fields["i"]) >= 4096, "RFC 7677, 4"
        salted = hashlib.pbkdf2_hmac("sha256", self.password, base64.b64decode(fields["s"]), int(fields["i"]))
        key = hmac.digest(salted, b"Client Key", "sha256")
        without_proof = f"c=biws,r={fields['r']}"
        said = f"{self.bare},{server_first.decode()},{without_proof}".encode()
        signature = hmac.digest(hashlib.sha256(key).digest(), said, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature))).decode()
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        self.verifier = b"v=" + base64.b64encode(hmac.digest(server_key, said, "sha256"))
        return f"{without_proof},p={proof}".encode()


def auth(reason, data, method=METHOD):
    """AUTH."""
    props = packets.properties({AUTHENTICATION_METHOD: method, AUTHENTICATION_DATA: data})
    return packets.packet(AUTH, bytes([reason]) + props)


def data_of(body, after):
    """Authentication data of a packet whose properties begin at `after`."""
    props, _ = packets.read_properties(body[after:])
    assert props[AUTHENTICATION_METHOD] == METHOD, props
    return props.get(AUTHENTICATION_DATA, b"")


class ScramSha256(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Tidegate()
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)

    def client(self):
        client = packets.Client(self.server.port("login"), version=5)
        self.addCleanup(client.socket.close)
        return client

    def login(self, user, password, client_id="scram"):
        """The client, its half of the exchange, and the last packet."""
        client, scram = self.client(), Scram(user, password)
        client.send(packets.connect(client_id, 5, props={AUTHENTICATION_METHOD: METHOD,
                                                         AUTHENTICATION_DATA: scram.first()}))
        body = client.expect(AUTH)
        self.assertEqual(body[0], CONTINUE)
        client.send(auth(CONTINUE, scram.final(data_of(body, 1))))
        return client, scram, client.expect(CONNACK)

    def test_who_knows_the_password_comes_in_and_the_server_proves_that_it_knows_the_key(self):
        client, scram, body = self.login("alice", harness.USERS["alice"])
        self.assertEqual(body[1], 0)
        self.assertEqual(data_of(body, 2), scram.verifier)
        client.ping()
        users = {c["client_id"]: c["user"] for c in self.server.items("clients", "list")}
        self.assertEqual(users.get("scram"), "alice")

    def test_a_wrong_password_and_an_unknown_user_look_alike(self):
        codes = []
        for user in ("alice", "nobody"):
            client, _, body = self.login(user, "wrong", f"wrong-{user}")
            codes.append(body[1])
            self.assertIsNone(client.ends())
        self.assertEqual(codes[0], codes[1])
        self.assertIn(codes[0], (0x86, 0x87))

    def test_a_connected_client_authenticates_again(self):
        client, _, body = self.login("bob", harness.USERS["bob"], "again")
        self.assertEqual(body[1], 0)
        scram = Scram("bob", harness.USERS["bob"])
        client.send(auth(REAUTHENTICATE, scram.first()))
        body = client.expect(AUTH)
        client.send(auth(CONTINUE, scram.final(data_of(body, 1))))
        body = client.expect(AUTH)
        self.assertEqual((body[0], data_of(body, 1)), (0, scram.verifier))
        client.ping()

    def test_an_unknown_method_is_refused(self):
        client = self.client()
        client.send(packets.connect("method", 5, props={AUTHENTICATION_METHOD: b"PLAIN-TEXT"}))
        self.assertEqual(client.expect(CONNACK)[1], 0x8C)
        self.assertIsNone(client.ends())

    def test_an_answer_that_is_no_scram_message_is_refused(self):
        client, scram = self.client(), Scram("alice", "x")
        client.send(packets.connect("broken", 5, props={AUTHENTICATION_METHOD: METHOD,
                                                        AUTHENTICATION_DATA: scram.first()}))
        client.expect(AUTH)
        client.send(auth(CONTINUE, b"\xff\0nonsense"))
        kind, _, body = client.receive()
        self.assertIn(kind, (CONNACK, DISCONNECT))
        self.assertGreaterEqual(body[1 if kind == CONNACK else 0], 0x80)
        client.ends()


if __name__ == "__main__":
    unittest.main()
