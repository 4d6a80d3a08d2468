"""CoAP over TCP, TLS and WebSocket (RFC 8323): libcoap, aiocoap, websockets, and bytes over a socket."""

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import threading
import unittest

import aiocoap
import websockets.exceptions
from websockets.sync.client import connect

import harness
from coap.kit import wire

CSM = b"\0\xe1"
PUT, GET = 3, 1
CHANGED, CONTENT, PING, PONG, RELEASE, ABORT = 0x44, 0x45, 0xE2, 0xE3, 0xE4, 0xE5


def message(code, token=b"", rest=b"", length=None):
    """A message over TCP; `rest` are its options and payload."""
    size = len(rest) if length is None else length
    if size < 13:
        head = bytes([size << 4 | len(token)])
    elif size < 269:
        head = bytes([13 << 4 | len(token), size - 13])
    else:
        head = bytes([14 << 4 | len(token)]) + (size - 269).to_bytes(2, "big")
    return head + bytes([code]) + token + rest


def path(*levels):
    """Options Uri-Path."""
    options, delta = b"", 11
    for level in levels:
        options += bytes([delta << 4 | len(level)]) + level
        delta = 0
    return options


class Stream:
    """A TCP connection that messages are read from."""

    def __init__(self, peer):
        self.socket, self.held = peer, b""

    def send(self, *parts):
        self.socket.sendall(b"".join(parts))

    def read(self):
        """The next message as (code, token, rest); None at the end of the connection."""
        while True:
            found = self._cut()
            if found:
                return found
            more = self.socket.recv(65536)
            if not more:
                assert not self.held, self.held
                return None
            self.held += more

    def _cut(self):
        if not self.held:
            return None
        size, token, at = self.held[0] >> 4, self.held[0] & 15, 1
        if size >= 13:
            width = 1 << (size - 13)
            if len(self.held) < 1 + width:
                return None
            size = int.from_bytes(self.held[1:1 + width], "big") + {13: 13, 14: 269, 15: 65805}[size]
            at += width
        end = at + 1 + token + size
        if len(self.held) < end:
            return None
        whole, self.held = self.held[:end], self.held[end:]
        return whole[at], whole[at + 1:at + 1 + token], whole[at + 1 + token:]


class Streams(unittest.TestCase):
    """One server with a listener of each kind."""

    @classmethod
    def setUpClass(cls):
        cls.server = harness.Tidegate({"coap.listeners.udp.anonymous": "always"})
        folder = cls.server.folder
        cls.ports = {name: harness.free_port() for name in ("tcp", "tls", "mutual", "ws", "wss")}
        for name, port in cls.ports.items():
            listener = f"coap.listeners.{name}"
            cls.server.keys |= {f"{listener}.bind": f"{harness.HOST}:{port}", f"{listener}.anonymous": "always",
                                f"{listener}.transport": "tcp"}
            if name in ("tls", "mutual", "wss"):
                cls.server.keys |= {f"{listener}.tls.certificate": str(folder / "localhost.pem"),
                                    f"{listener}.tls.key": str(folder / "localhost.key")}
            if name in ("ws", "wss"):
                cls.server.keys[f"{listener}.websocket.path"] = "/.well-known/coap"
        cls.server.keys |= {"coap.listeners.mutual.tls.client_ca": str(cls.server.authority.ca),
                            "coap.listeners.mutual.certificate_user": True,
                            "coap.listeners.mutual.anonymous": "never"}
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)

    # libcoap

    def libcoap(self, scheme, method, topic, *words, wait=10):
        """Runs coap-client; returns what it printed."""
        port = self.ports["tls" if scheme.startswith("coaps") else "tcp"]
        ca = ["-C", str(self.server.authority.ca)] if scheme.startswith("coaps") else []
        done = subprocess.run(["coap-client-openssl", "-m", method, "-B", str(wait), *ca, *words,
                               f"{scheme}://localhost:{port}{topic}"], capture_output=True, timeout=wait + 50)
        return (done.stdout + done.stderr).decode(errors="replace")

    def test_libcoap_puts_gets_and_deletes_over_tcp_and_tls(self):
        for scheme in ("coap+tcp", "coaps+tcp"):
            with self.subTest(scheme):
                self.assertEqual(self.libcoap(scheme, "put", "/ps/kept/a?retain", "-e", "21.5"), "")
                self.assertEqual(self.libcoap(scheme, "get", "/ps/kept/a").strip(), "21.5")
                self.libcoap(scheme, "delete", "/ps/kept/a")
                self.assertIn("4.04", self.libcoap(scheme, "get", "/ps/kept/a"))

    def test_libcoap_comes_in_with_a_certificate_and_not_without(self):
        authority = self.server.authority
        url = f"coaps+tcp://localhost:{self.ports['mutual']}/ps/proven"
        words = ["coap-client-openssl", "-m", "put", "-e", "x", "-B", "5", "-C", str(authority.ca)]
        certified = ["-c", str(authority.client), "-j", str(authority.client_key)]
        for more, said in ((certified, ""), ([], "4.01")):
            done = subprocess.run([*words, *more, url], capture_output=True, text=True, timeout=30)
            self.assertIn(said, done.stdout + done.stderr)
            self.assertEqual(bool(said), bool(done.stdout + done.stderr))

    def test_libcoap_sends_and_fetches_what_is_larger_than_any_message(self):
        body = os.urandom(2_500_000)
        sent, fetched = self.server.folder / "sent", self.server.folder / "fetched"
        sent.write_bytes(body)
        for scheme in ("coap+tcp", "coaps+tcp"):
            for words in ([], ["-b", "512"]):
                with self.subTest(scheme, words=words):
                    topic = f"/ps/large/{'-'.join([scheme.replace('+', '-'), *words])}"
                    self.libcoap(scheme, "put", topic + "?retain", "-f", str(sent), *words, wait=120)
                    fetched.unlink(missing_ok=True)
                    self.libcoap(scheme, "get", topic, "-o", str(fetched), *words, wait=120)
                    self.assertTrue(fetched.exists() and fetched.read_bytes() == body)

    def test_libcoap_observes_over_tls(self):
        port = self.ports["tls"]
        observer = subprocess.Popen(
            ["stdbuf", "-o0", "coap-client-openssl", "-m", "get", "-s", "8", "-C", str(self.server.authority.ca),
             f"coaps+tcp://localhost:{port}/ps/seen/%2B"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        harness.until(lambda: any("seen/+" in s["filter"] for s in self.server.items("subscriptions")), "it observes")
        for number in range(20):
            self.libcoap("coap+tcp", "put", f"/ps/seen/{number}", "-e", f"value {number};")
        printed = observer.communicate(timeout=30)[0].decode()
        places = [printed.find(f"value {number};") for number in range(20)]
        self.assertTrue(all(place >= 0 for place in places), printed)
        self.assertEqual(places, sorted(places))
        harness.until(lambda: not any("seen/+" in s["filter"] for s in self.server.items("subscriptions")), "it is over")

    # aiocoap

    def aiocoap(self, work):
        async def run():
            context = await aiocoap.Context.create_client_context()
            try:
                return await asyncio.wait_for(work(context), 60)
            finally:
                await context.shutdown()

        return asyncio.run(run())

    def test_aiocoap_does_everything_over_tcp_and_websocket(self):
        for scheme, name in (("coap+tcp", "tcp"), ("coap+ws", "ws")):
            with self.subTest(scheme):
                self._everything(f"{scheme}://{harness.HOST}:{self.ports[name]}/ps/{name}")

    def _everything(self, base):
        body = os.urandom(300_000)

        async def work(context):
            def ask(code, topic, **words):
                return context.request(aiocoap.Message(code=code, uri=base + topic, **words)).response

            codes = [(await ask(aiocoap.PUT, "/x?retain", payload=b"{}", content_format=50)).code]
            many = await asyncio.gather(*(ask(aiocoap.GET, "/x") for _ in range(200)))
            codes.append((await ask(aiocoap.PUT, "/big?retain", payload=body)).code)
            got = await ask(aiocoap.GET, "/big")
            request = context.request(aiocoap.Message(code=aiocoap.GET, uri=base + "/w", observe=0))
            await request.response
            for number in range(50):
                codes.append((await ask(aiocoap.PUT, "/w", payload=str(number).encode())).code)
            seen = []
            async for notification in request.observation:
                seen.append(notification.payload)
                # aiocoap hands on the newest of those that came together.
                if notification.payload == b"49":
                    break
            return codes, many, got, seen

        codes, many, got, seen = self.aiocoap(work)
        self.assertEqual({str(c) for c in codes}, {"2.04 Changed"})
        self.assertEqual({(m.payload, int(m.opt.content_format)) for m in many}, {(b"{}", 50)})
        self.assertTrue(got.payload == body)
        self.assertEqual(seen, sorted(seen, key=int))

    # Bytes

    @contextlib.contextmanager
    def stream(self, greets=True):
        with socket.create_connection((harness.HOST, self.ports["tcp"]), 10) as peer:
            stream = Stream(peer)
            code, token, options = stream.read()
            # Max-Message-Size 1 MiB, Block-Wise-Transfer.
            self.assertEqual((code, token, options), (0xE1, b"", b"\x23\x10\0\0\x20"))
            if greets:
                stream.send(CSM)
            yield stream

    def test_bytes_may_come_one_by_one_and_messages_together(self):
        put = message(PUT, b"\x01", path(b"ps", b"bytes") + b"\xff9")
        with self.stream(greets=False) as stream:
            for byte in CSM + put:
                stream.send(bytes([byte]))
            self.assertEqual(stream.read(), (CHANGED, b"\x01", b""))
            stream.send(*(message(PUT, bytes([n]), path(b"ps", b"bytes") + b"\xff9") for n in range(250)))
            answers = [stream.read() for _ in range(250)]
            self.assertEqual(sorted(a[1] for a in answers), [bytes([n]) for n in range(250)])
            self.assertEqual({a[0] for a in answers}, {CHANGED})

    def test_signals_are_answered(self):
        with self.stream() as stream:
            stream.send(message(0), message(PING, b"\x42"))
            self.assertEqual(stream.read(), (PONG, b"\x42", b""))
            stream.send(message(PUT, b"\x01", path(b"ps", b"a")), message(PING, b"c", b"\x20"))
            self.assertEqual(stream.read(), (CHANGED, b"\x01", b""))
            self.assertEqual(stream.read(), (PONG, b"c", b"\x20"))
            stream.send(message(PUT, b"\x02", path(b"ps", b"a")), message(RELEASE))
            self.assertEqual(stream.read(), (CHANGED, b"\x02", b""))
            self.assertIsNone(stream.read())

    def test_what_breaks_a_rule_is_aborted_with_words(self):
        for sent, words in ((message(GET, b"", path(b"ps")), b"the first message must be a CSM"),
                            (message(0xE1, b"", b"\x10"), b"this option of the CSM"),
                            (CSM + b"\x09", b"a token has at most 8 bytes"),
                            (CSM + b"\xf0\0\x10\0\0", b"a message is larger than Max-Message-Size"),
                            (CSM + message(GET, b"", b"\xff"), b"a message is malformed"),
                            (CSM + b"GET / HTTP/1.1\r\n\r\n", b"a message is malformed")):
            with self.subTest(words), self.stream(greets=False) as stream:
                stream.send(sent)
                code, _, rest = stream.read()
                self.assertEqual(code, ABORT)
                self.assertIn(words, rest)
                self.assertIsNone(stream.read())

    def test_a_stop_releases_who_is_connected(self):
        port = harness.free_port()
        server = harness.Tidegate({"coap.listeners.tcp.bind": f"{harness.HOST}:{port}",
                                   "coap.listeners.tcp.transport": "tcp",
                                   "coap.listeners.tcp.anonymous": "always"}).__enter__()
        stop = threading.Thread(target=server.stop)
        self.addCleanup(server.kill)
        with socket.create_connection((harness.HOST, port), 10) as peer:
            stream = Stream(peer)
            stream.read()
            stream.send(CSM, message(PUT, b"", path(b"ps", b"a")))
            self.assertEqual(stream.read()[0], CHANGED)
            stop.start()
            self.assertEqual(stream.read()[0], RELEASE)
            self.assertIsNone(stream.read())
        stop.join(30)
        self.assertEqual(server.process.returncode, 0)

    def test_who_is_silent_is_pinged_and_then_cut_off(self):
        port = harness.free_port()
        with harness.Tidegate({"coap.listeners.tcp.bind": f"{harness.HOST}:{port}", "coap.ping_interval": "1 s",
                               "coap.listeners.tcp.transport": "tcp"}), \
                socket.create_connection((harness.HOST, port), 10) as peer:
            stream = Stream(peer)
            stream.read()
            stream.send(CSM)
            for _ in range(3):
                self.assertEqual(stream.read()[0], PING)
                stream.send(message(PONG))
            self.assertEqual(stream.read()[0], PING)
            self.assertEqual(stream.read(), (ABORT, b"", b"\xffa Ping was not answered"))
            self.assertIsNone(stream.read())

    def test_a_device_is_asked_over_its_connection(self):
        with self.stream() as stream:
            stream.send(message(PUT, b"", path(b"ps", b"a") + b"\x45c=dev"))
            self.assertEqual(stream.read()[0], CHANGED)
            asked = []

            def answer():
                asked.append(stream.read())
                stream.send(message(CONTENT, asked[0][1], b"\xff" + b"on"))

            device = threading.Thread(target=answer)
            device.start()
            done = self.server.cli("coap", "request", "dev", "get", "/led")
            device.join(10)
            self.assertEqual((asked[0][0], asked[0][2]), (GET, path(b"led")))
            self.assertIn("on", done.stdout)
            self.assertIn("tcp", self.server.cli("clients", "show", "dev").stdout)

    @staticmethod
    def ask(stream, method, uri, payload=b"", token=b"t", options=()):
        """Sends a request with a path and queries; the next message."""
        options = sorted([*options, *wire.path_options(uri)], key=lambda option: option[0])
        stream.send(message(method, token, wire.encode_rest(options, payload)))
        return stream.read()

    def test_a_named_session_goes_from_tcp_to_udp_and_back_with_what_it_observes(self):
        with self.stream() as stream:
            code, _, rest = self.ask(stream, wire.POST, "/mqtt/connection?c=rover")
            self.assertEqual(code, 0x41)
            who = f"c=rover&t={rest[1:].decode()}"
            observe = [(wire.OBSERVE, b"")]
            answer = self.ask(stream, GET, f"/ps/road?{who}", token=b"ob", options=observe)
            self.assertEqual(answer[:2], (CONTENT, b"ob"))
        with self.stream() as other, wire.Peer(self.server.port("coap")) as peer:
            self.ask(other, PUT, "/ps/road", b"while away")
            self.assertEqual(peer.ask(wire.PUT, f"/mqtt/connection?{who}").says, "2.04")
            self.assertEqual(peer.notification(b"ob").payload, b"while away")
            self.ask(other, PUT, "/ps/road", b"by UDP")
            self.assertEqual(peer.notification(b"ob").payload, b"by UDP")
            with self.stream() as stream:
                self.assertEqual(self.ask(stream, PUT, f"/mqtt/connection?{who}")[:2], (CHANGED, b"t"))
                self.ask(other, PUT, "/ps/road", b"by TCP")
                code, token, rest = stream.read()
                self.assertEqual((code, token), (CONTENT, b"ob"))
                self.assertTrue(rest.endswith(b"\xffby TCP"), rest)
                peer.silence()

    # TLS and WebSocket

    def tls(self):
        context = ssl.create_default_context(cafile=str(self.server.authority.ca))
        context.set_alpn_protocols(["coap"])
        return context

    def test_tls_agrees_on_the_protocol(self):
        with socket.create_connection((harness.HOST, self.ports["tls"]), 10) as peer, \
                self.tls().wrap_socket(peer, server_hostname="localhost") as secure:
            self.assertEqual(secure.selected_alpn_protocol(), "coap")
            stream = Stream(secure)
            stream.read()
            stream.send(CSM, message(PING, b"t"))
            self.assertEqual(stream.read(), (PONG, b"t", b""))

    def websocket(self, name="ws", **words):
        words = {"subprotocols": ["coap"], "compression": None, "open_timeout": 10} | words
        if name == "wss":
            context = ssl.create_default_context(cafile=str(self.server.authority.ca))
            words |= {"ssl": context}
        return connect(f"{name}://localhost:{self.ports[name]}/.well-known/coap", **words)

    def test_each_message_is_one_of_the_websocket(self):
        for name in ("ws", "wss"):
            with self.subTest(name), self.websocket(name) as peer:
                self.assertEqual(peer.recv(10), b"\0\xe1\x23\x10\0\0\x20")
                peer.send(CSM)
                put = b"\x01\x03\x07" + path(b"ps", b"ws") + b"\xff" + b"x" * 500
                # Whole, and in fragments.
                peer.send(put)
                self.assertEqual(peer.recv(10), b"\x01\x44\x07")
                peer.send([put[:1], put[1:100], put[100:]])
                self.assertEqual(peer.recv(10), b"\x01\x44\x07")
                for _ in range(50):
                    peer.send(b"\x01\xe2\x42")
                self.assertEqual([peer.recv(10) for _ in range(50)], [b"\x01\xe3\x42"] * 50)

    def test_what_is_no_message_of_a_websocket_ends_it(self):
        for sent, code in (("text", 1003), (b"\x09\x01", None), (b"", None), (b"\x20\x01ab", None)):
            with self.subTest(sent), self.websocket() as peer:
                peer.recv(10)
                peer.send(CSM)
                peer.send(sent)
                with self.assertRaises(websockets.exceptions.ConnectionClosed) as end:
                    answer = peer.recv(10)
                    self.assertEqual(answer[1], ABORT)
                    peer.recv(10)
                if code:
                    self.assertEqual(end.exception.rcvd.code, code)

    def test_a_websocket_without_its_subprotocol_is_refused(self):
        with self.assertRaises(websockets.exceptions.InvalidStatus) as refusal:
            self.websocket(subprotocols=["mqtt"])
        self.assertEqual(refusal.exception.response.status_code, 400)


if __name__ == "__main__":
    unittest.main()
