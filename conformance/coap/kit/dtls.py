"""A DTLS 1.2 client of the tests' own (RFC 6347): PSK with AES-128-CCM-8, and connection ids (RFC 9146).

It is no library: it shows every record, so that a test can hold back, repeat and forge them, and it knows every record
number that the gateway used. What the gateway may not do is an AssertionError.
"""

import collections
import hashlib
import hmac
import os
import time

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, DATA, WITH_ID = 20, 21, 22, 23, 25
CLIENT_HELLO, SERVER_HELLO, HELLO_VERIFY, KEY_EXCHANGE, DONE, CLIENT_KEY_EXCHANGE, FINISHED = 1, 2, 3, 12, 14, 16, 20
PSK_CCM_8 = 0xC0A8
EXTENDED_MASTER_SECRET, CONNECTION_ID = 23, 54
VERSION = b"\xfe\xfd"
CLOSE_NOTIFY = b"\x01\x00"

Record = collections.namedtuple("Record", "kind epoch number id body")


def number(value, width):
    return value.to_bytes(width, "big")


def prf(secret, label, seed, length):
    """P_SHA256 (RFC 5246, 5)."""
    seed, out, a = label + seed, b"", label + seed
    while len(out) < length:
        a = hmac.digest(secret, a, "sha256")
        out += hmac.digest(secret, a + seed, "sha256")
    return out[:length]


def records(datagram, own_id):
    """The records of a datagram that was sent to us."""
    at = 0
    while at < len(datagram):
        kind, width = datagram[at], len(own_id) if datagram[at] == WITH_ID else 0
        head = at + 11 + width
        length = int.from_bytes(datagram[head:head + 2], "big")
        body = datagram[head + 2:head + 2 + length]
        assert len(body) == length, f"a record that ends behind its datagram: {datagram.hex()}"
        yield Record(kind, int.from_bytes(datagram[at + 3:at + 5], "big"),
                     int.from_bytes(datagram[at + 5:at + 11], "big"), datagram[at + 11:at + 11 + width], body)
        at = head + 2 + length


class Closed(Exception):
    """The gateway ended the association or refused it; its alert."""


class Client:
    """An association over `link`, which has `send(bytes)` and `receive(seconds)`. Without `asks_id` no connection id is
    asked for; `own_id` is the one that the gateway has to use."""

    def __init__(self, link, identity, key, own_id=b"", asks_id=True):
        self.link, self.identity, self.key, self.own_id, self.asks_id = link, identity.encode(), key, own_id, asks_id
        self.handshakes = 0
        self._begin()

    def _begin(self):
        self.client_random, self.their_id, self.has_id = os.urandom(32), b"", False
        # The next record number of each epoch, and of our handshake messages; those of the gateway that were heard.
        self.next, self.message, self.heard = {0: 0, 1: 0}, 0, set()
        self.read = self.write = None
        self.transcript, self.flight, self.waiting = b"", [], []
        # What came under each record number of the gateway; every datagram that was sent.
        self.seen, self.sent = collections.defaultdict(set), []

    # The handshake.

    def connect(self, seconds=10.0):
        """A whole handshake; returns itself."""
        self._begin()
        self.handshakes += 1
        self.end = time.monotonic() + seconds
        cookie = b""
        while True:
            # What came before the cookie is in no transcript (RFC 6347, 4.2.1).
            self.transcript = b""
            self._flight([(0, HANDSHAKE, self._handshake(CLIENT_HELLO, self._hello(cookie)))])
            kind, body = self._next_handshake()
            if kind == SERVER_HELLO:
                break
            assert kind == HELLO_VERIFY and not cookie, f"a second HelloVerifyRequest, or {kind}"
            cookie = body[3:3 + body[2]]
            assert cookie, "a cookie is not empty"
        is_extended = self._server_hello(body)
        kind, body = self._next_handshake()
        if kind == KEY_EXCHANGE:
            kind, body = self._next_handshake()
        assert (kind, body) == (DONE, b""), f"ServerHelloDone, not {kind}"
        exchange = self._handshake(CLIENT_KEY_EXCHANGE, number(len(self.identity), 2) + self.identity)
        self._keys(is_extended)
        finished = self._handshake(FINISHED, self._verify(b"client finished"))
        expected = self._verify(b"server finished")
        self._flight([(0, HANDSHAKE, exchange), (0, CHANGE_CIPHER_SPEC, b"\x01"), (1, HANDSHAKE, finished)])
        assert self._next_handshake() == (FINISHED, expected), "the gateway's Finished is right"
        return self

    def _hello(self, cookie):
        extensions = number(EXTENDED_MASTER_SECRET, 2) + b"\0\0"
        if self.asks_id:
            extensions += number(CONNECTION_ID, 2) + number(len(self.own_id) + 1, 2) + number(len(self.own_id), 1) \
                + self.own_id
        return VERSION + self.client_random + b"\0" + number(len(cookie), 1) + cookie \
            + b"\0\x02" + number(PSK_CCM_8, 2) + b"\x01\0" + number(len(extensions), 2) + extensions

    def _server_hello(self, body):
        assert body[:2] == VERSION, "DTLS 1.2"
        self.server_random = body[2:34]
        at = 35 + body[34]
        assert body[at:at + 3] == number(PSK_CCM_8, 2) + b"\0", "the suite that was offered"
        at, found = at + 5, {}
        while at < len(body):
            kind, length = int.from_bytes(body[at:at + 2], "big"), int.from_bytes(body[at + 2:at + 4], "big")
            found[kind] = body[at + 4:at + 4 + length]
            at += 4 + length
        assert self.asks_id or CONNECTION_ID not in found, "nobody asked for a connection id"
        self.their_id = found[CONNECTION_ID][1:] if CONNECTION_ID in found else b""
        # Without the extension none is used in either direction.
        self.has_id = CONNECTION_ID in found
        return EXTENDED_MASTER_SECRET in found

    def _handshake(self, kind, body):
        message = bytes([kind]) + number(len(body), 3) + number(self.message, 2) + number(0, 3) + number(len(body), 3) + body
        self.message += 1
        self.transcript += message
        return message

    def _keys(self, is_extended):
        secret = number(len(self.key), 2) + bytes(len(self.key)) + number(len(self.key), 2) + self.key
        if is_extended:
            label, seed = b"extended master secret", hashlib.sha256(self.transcript).digest()
        else:
            label, seed = b"master secret", self.client_random + self.server_random
        self.master = prf(secret, label, seed, 48)
        block = prf(self.master, b"key expansion", self.server_random + self.client_random, 40)
        self.write = (AESCCM(block[:16], tag_length=8), block[32:36])
        self.read = (AESCCM(block[16:32], tag_length=8), block[36:])

    def _verify(self, label):
        return prf(self.master, label, hashlib.sha256(self.transcript).digest(), 12)

    def _flight(self, messages):
        self.flight = messages
        self.link.send(b"".join(self.seal(kind, body, epoch) for epoch, kind, body in messages))

    def _next_handshake(self):
        """Kind and body of the gateway's next handshake message; its flight is asked for again when none comes."""
        while True:
            while self.waiting:
                kind, message = self.waiting.pop(0)
                if kind != HANDSHAKE or message[4:6] in self.heard:
                    continue
                self.heard.add(message[4:6])
                assert message[1:4] == message[9:12], "a handshake message in fragments"
                if message[0] != HELLO_VERIFY:
                    self.transcript += message
                return message[0], message[12:]
            assert time.monotonic() < self.end, "no handshake in time"
            if not self._take(1.0):
                self._flight(self.flight)

    # Records.

    def seal(self, kind, body, epoch=1, number_=None):
        """A record; with the next number unless one is given."""
        if number_ is None:
            number_, self.next[epoch] = self.next[epoch], self.next[epoch] + 1
        counter = number(epoch, 2) + number(number_, 6)
        if epoch == 0:
            return bytes([kind]) + VERSION + counter + number(len(body), 2) + body
        cipher, salt = self.write
        outer, aad, body = self._outer(kind, counter, self.their_id, body)
        sealed = counter + cipher.encrypt(salt + counter, body, aad)
        return bytes([outer]) + VERSION + counter + self.their_id + number(len(sealed), 2) + sealed

    @staticmethod
    def _outer(kind, counter, ident, body):
        """Outer type, additional data and inner plaintext (RFC 9146, 4 and 5.3)."""
        if not ident:
            return kind, counter + bytes([kind]) + VERSION + number(len(body), 2), body
        inner = body + bytes([kind])
        aad = b"\xff" * 8 + bytes([WITH_ID, len(ident), WITH_ID]) + VERSION + counter + ident + number(len(inner), 2)
        return WITH_ID, aad, inner

    def open(self, record):
        """Kind and content of a protected record, or None if it is not from the gateway."""
        cipher, salt = self.read
        counter = number(record.epoch, 2) + number(record.number, 6)
        length = number(len(record.body) - 16, 2)
        if record.kind == WITH_ID:
            aad = b"\xff" * 8 + bytes([WITH_ID, len(record.id), WITH_ID]) + VERSION + counter + record.id + length
        else:
            aad = counter + bytes([record.kind]) + VERSION + length
        try:
            plain = cipher.decrypt(salt + record.body[:8], record.body[8:], aad)
        except InvalidTag:
            return None
        if record.kind != WITH_ID:
            return record.kind, plain
        plain = plain.rstrip(b"\0")
        return plain[-1], plain[:-1]

    def _take(self, seconds):
        """Reads one datagram; False if none came."""
        datagram = self.link.receive(seconds)
        if datagram is None:
            return False
        for record in records(datagram, self.own_id):
            if record.epoch == 0:
                if record.kind == ALERT and self.read is None:
                    raise Closed(record.body)
                if record.kind == HANDSHAKE:
                    self._split(record.body)
                continue
            self.seen[record.epoch, record.number].add(record.body)
            assert self.read, "a protected record before the keys"
            if self.own_id:
                assert record.kind == WITH_ID and record.id == self.own_id, "the connection id is on every record"
            assert record.body[:8] == number(record.epoch, 2) + number(record.number, 6), "the nonce is the record number"
            opened = self.open(record)
            assert opened, f"a record that nobody can open: {record}"
            kind, plain = opened
            if kind == HANDSHAKE:
                self._split(plain)
            elif kind == ALERT:
                raise Closed(plain)
            else:
                self.waiting.append((kind, plain))
        return True

    def _split(self, body):
        """Several handshake messages may share a record."""
        while body:
            length = 12 + int.from_bytes(body[9:12], "big")
            self.waiting.append((HANDSHAKE, body[:length]))
            body = body[length:]

    def send(self, data):
        """Application data in a record of its own."""
        datagram = self.seal(DATA, data)
        self.sent.append(datagram)
        self.link.send(datagram)

    def receive(self, seconds=5.0):
        """The next application data, or None."""
        end = time.monotonic() + seconds
        while True:
            for index, (kind, body) in enumerate(self.waiting):
                if kind == DATA:
                    del self.waiting[index]
                    return body
            # What is left of a handshake is an echo of it.
            self.waiting.clear()
            left = end - time.monotonic()
            if left <= 0 or not self._take(left):
                return None

    def close(self):
        """close_notify."""
        self.link.send(self.seal(ALERT, CLOSE_NOTIFY))

    def repeated(self):
        """Record numbers under which the gateway sent two things: with the same key that tells what both are."""
        return [numbers for numbers, bodies in self.seen.items() if len(bodies) > 1]
