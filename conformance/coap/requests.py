"""Requests to devices, from the command line and by MQTT. The device is aiocoap, client and server on one socket, and
libcoap's server."""

import asyncio
import base64
import contextlib
import json
import os
import socket
import subprocess
import threading
import unittest

import aiocoap
import paho.mqtt.client as paho
from aiocoap import resource
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import harness
from coap.kit import links, wire


class Hello(resource.Resource):
    """A value with options."""

    async def render_get(self, request):
        query = "&".join(request.opt.uri_query)
        answer = aiocoap.Message(code=aiocoap.CONTENT, payload=f"hello {query}".encode(), content_format=0)
        answer.opt.etag = b"\xaa\xbb"
        return answer


class Mirror(resource.Resource):
    """Tells what came."""

    async def _mirror(self, request):
        seen = {"method": str(request.code), "format": request.opt.content_format, "accept": request.opt.accept,
                "payload": base64.b64encode(request.payload).decode()}
        seen = {key: value if value is None or isinstance(value, str) else int(value) for key, value in seen.items()}
        return aiocoap.Message(code=aiocoap.CHANGED, payload=json.dumps(seen).encode(), content_format=50)

    render_post = render_put = render_delete = render_fetch = render_patch = render_ipatch = _mirror


class Binary(resource.Resource):
    """Bytes that are no text."""

    async def render_get(self, _):
        return aiocoap.Message(payload=b"\xff\x00\xfe")


LARGE = bytes(n * 7 % 251 for n in range(20_000))


class Large(resource.Resource):
    """More than fits in one message, both ways."""

    async def render_get(self, _):
        return aiocoap.Message(payload=LARGE)

    async def render_put(self, request):
        return aiocoap.Message(code=aiocoap.CHANGED, payload=request.payload[::-1])


class Slow(resource.Resource):
    """Answers in a message of its own."""

    async def render_get(self, _):
        await asyncio.sleep(1.5)
        return aiocoap.Message(payload=b"at last")


class Never(resource.Resource):
    """Acknowledges, and says no more."""

    async def render_get(self, _):
        await asyncio.sleep(3600)


class Device:
    """An aiocoap context that keeps a session at the gateway and serves resources at the same address, or over the same
    connection."""

    def __init__(self, server, client_id, base=None, transports=None):
        self.server, self.client_id, self.transports = server, client_id, transports
        self.base = base or f"coap://{harness.HOST}:{server.port('coap')}"
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *_):
        self.run(self.context.shutdown())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    async def _start(self):
        site = resource.Site()
        for name, what in (("hello", Hello), ("mirror", Mirror), ("binary", Binary), ("slow", Slow), ("never", Never),
                           ("large", Large)):
            site.add_resource([name], what())
        site.add_resource(["deep", "er"], Hello())
        bind = None if self.transports else (harness.HOST, harness.free_port())
        self.context = await aiocoap.Context.create_server_context(site, bind=bind, transports=self.transports)
        answer = await self.ask(aiocoap.POST, f"/mqtt/connection?clientid={self.client_id}")
        assert answer.code == aiocoap.CREATED, answer
        self.token = answer.payload.decode()

    async def ask(self, code, path, **words):
        return await self.context.request(aiocoap.Message(code=code, uri=self.base + path, **words)).response


class Requests(unittest.TestCase):
    """One gateway, one device."""

    @classmethod
    def setUpClass(cls):
        cls.server = harness.Tidegate({"coap.listeners.udp.anonymous": "always"})
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)
        cls.device = Device(cls.server, "dev1")
        cls.device.__enter__()
        cls.addClassCleanup(cls.device.__exit__, None, None, None)

    def request(self, *words, client="dev1", check=True, **more):
        return self.server.cli("coap", "request", client, *words, check=check, **more)

    def fails(self, *words, **more):
        """The command has to fail; what it says then."""
        done = self.request(*words, check=False, **more)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        return done.stdout + done.stderr

    def test_an_answer_is_printed_with_code_options_and_payload(self):
        self.assertEqual(self.request("GET", "/hello").stdout, "2.05\nContent-Format: 0\nETag: aabb\n\nhello \n")
        self.assertIn("hello k=v&x", self.request("get", "deep/er", "--query", "k=v", "--query", "x").stdout)
        done = self.server.cli("--json", "coap", "request", "dev1", "GET", "/hello")
        answer = {"code": "2.05", "format": 0, "options": {"ETag": "aabb"}, "payload": "hello "}
        self.assertEqual(json.loads(done.stdout), answer)

    def test_every_method_carries_its_payload_and_formats(self):
        for method in ("POST", "PUT", "FETCH", "PATCH", "iPATCH"):
            with self.subTest(method):
                words = ["--format", "50", "--accept", "60", "--payload", "{}"]
                done = self.server.cli("--json", "coap", "request", "dev1", method, "/mirror", *words)
                seen = json.loads(json.loads(done.stdout)["payload"])
                self.assertEqual(seen, {"method": method, "format": 50, "accept": 60, "payload": "e30="})
        self.assertIn("DELETE", self.request("DELETE", "/mirror").stdout)

    def test_the_payload_may_come_from_a_file_or_standard_input(self):
        file = self.server.folder / "payload"
        file.write_bytes(b"\x00\xff")
        self.assertIn(base64.b64encode(b"\x00\xff").decode(),
                      self.request("PUT", "/mirror", "--file", str(file)).stdout)
        self.assertIn(base64.b64encode(b"typed").decode(),
                      self.request("PUT", "/mirror", "--payload", "-", text="typed").stdout)

    def test_what_does_not_fit_in_one_message_goes_in_blocks_both_ways(self):
        file = self.server.folder / "large"
        file.write_bytes(LARGE)
        for words, wanted in ((["GET", "/large"], LARGE), (["PUT", "/large", "--file", str(file)], LARGE[::-1])):
            answer = json.loads(self.server.cli("--json", "coap", "request", "dev1", *words).stdout)
            self.assertEqual(base64.b64decode(answer["payload_base64"]), wanted)

    def test_errors_of_the_device_are_failures(self):
        said = self.fails("GET", "/nowhere")
        self.assertTrue(said.startswith("4.04\n"), said)
        self.assertIn("the device has answered 4.04", said)
        self.assertIn("4.05", self.fails("PUT", "/hello"))

    def test_a_separate_answer_is_waited_for(self):
        self.assertIn("at last", self.request("GET", "/slow").stdout)

    def test_a_device_that_does_not_answer_in_time_is_said_so(self):
        self.assertIn("has not answered in time", self.fails("GET", "/never", "--timeout", "1 s"))
        harness.until(lambda: self.shown("dev1")["requests"] == "0", "no request is left")
        self.assertGreaterEqual(self.server.metric("tidegate_device_requests_total", outcome="timeout"), 1)

    def test_several_requests_are_answered_each_with_its_own(self):
        before = self.server.metric("tidegate_device_requests_total", outcome="done")
        commands = [["--json", "coap", "request", "dev1", "GET", "/hello", "--query", f"n={n}"] for n in range(6)]
        with contextlib.ExitStack() as stack:
            running = [stack.enter_context(self.server.command(*words)) for words in commands]
            answers = [json.loads(process.communicate(timeout=30)[0])["payload"] for process in running]
        self.assertEqual(answers, [f"hello n={n}" for n in range(6)])
        self.assertEqual(self.server.metric("tidegate_device_requests_total", outcome="done"), before + 6)

    def test_whom_it_cannot_ask_is_said(self):
        self.assertIn("there is no such client", self.fails("GET", "/", client="nobody"))
        with self.mqtt(client_id="an-mqtt-client"):
            self.assertIn("no requests to devices", self.fails("GET", "/", client="an-mqtt-client"))
        self.assertIn("`method`", self.fails("STEAL", "/hello"))
        self.assertIn("`timeout`", self.fails("GET", "/hello", "--timeout", "1 h"))
        self.assertIn("cannot be sent", self.fails("GET", "/../etc"))

    def shown(self, client):
        return self.server.items("clients", "show", client)[0]

    def test_a_client_is_shown_with_its_transport_and_observations(self):
        async def observe():
            uri = f"coap://{harness.HOST}:{self.server.port('coap')}/ps/seen/+"
            query = ["c=dev1", f"t={self.device.token}", "qos=1"]
            message = aiocoap.Message(code=aiocoap.GET, uri=uri, observe=0)
            message.opt.uri_query = query
            request = self.device.context.request(message)
            return request, await request.response

        request, answer = self.device.run(observe())
        self.assertEqual(answer.code, aiocoap.CONTENT)
        shown = self.shown("dev1")
        self.assertEqual((shown["transport"], shown["requests"], shown["unacknowledged"]), ("udp", "0", "0"))
        self.assertEqual(len(shown["observations"]), 1)
        self.assertRegex(shown["observations"][0], r"^seen/\+ qos=1 token=[0-9a-f]* sequence=\d+$")
        listed = [c for c in self.server.items("clients", "list") if c["client_id"] == "dev1"]
        self.assertEqual([c["transport"] for c in listed], ["udp"])
        self.assertFalse([c for c in self.server.items("clients", "list") if c["client_id"] == "$requests"])
        sheet = self.server.cli("clients", "show", "dev1").stdout
        self.assertRegex(sheet, r"observations +seen/\+ qos=1")

        async def cancel():
            request.observation.cancel()

        self.device.run(cancel())

    @contextlib.contextmanager
    def mqtt(self, *filters, client_id="", user=None, listener="tcp"):
        """An MQTT 5 client and the messages that it heard."""
        heard, ready, published = [], [], []
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
        if user:
            client.username_pw_set(user, harness.USERS[user])
        client.on_connect = lambda *a: ready.append("connected")
        client.on_message = lambda c, u, m: heard.append(m)
        client.on_subscribe = lambda *a: ready.append("subscribed")
        client.on_publish = lambda c, u, mid, code, properties: published.append(code)
        client.published = published
        client.connect(harness.HOST, self.server.port(listener))
        client.loop_start()
        try:
            harness.until(lambda: "connected" in ready, "connected")
            for name in filters:
                client.subscribe(name, 2)
            harness.until(lambda: ready.count("subscribed") == len(filters), "subscribed")
            client.heard = heard
            yield client
        finally:
            client.disconnect()
            client.loop_stop()

    def ask(self, client, request, device="dev1", properties=None, qos=1):
        """Publishes a request and returns the answer's message."""
        before = len(client.heard)
        payload = request if isinstance(request, (str, bytes)) else json.dumps(request)
        client.publish(f"coap/{device}/request", payload, qos, properties=properties)
        harness.until(lambda: len(client.heard) > before, f"an answer to {request}")
        return client.heard[before]

    def test_a_request_by_mqtt_is_answered_by_mqtt(self):
        with self.mqtt("coap/+/response") as client:
            message = self.ask(client, {"id": 7, "path": "/hello", "query": ["a=b"]})
            self.assertEqual(message.topic, "coap/dev1/response")
            self.assertEqual((message.properties.ContentType, message.qos), ("application/json", 1))
            self.assertEqual(json.loads(message.payload), {"id": 7, "code": "2.05", "format": 0,
                                                           "options": {"ETag": "aabb"}, "payload": "hello a=b"})
            request = {"id": "x", "method": "PUT", "path": "/mirror", "format": 42, "payload_base64": "AP8="}
            answer = json.loads(self.ask(client, request, qos=0).payload)
            self.assertEqual(json.loads(answer["payload"])["payload"], "AP8=")
            answer = json.loads(self.ask(client, {"path": "/binary"}).payload)
            self.assertEqual(answer["payload_base64"], base64.b64encode(b"\xff\x00\xfe").decode())
            self.assertNotIn("id", answer)
            answer = json.loads(self.ask(client, {"id": [1], "path": "/nowhere"}).payload)
            self.assertEqual((answer["id"], answer["code"]), ([1], "4.04"))

    def test_every_request_that_cannot_be_served_is_answered_too(self):
        with self.mqtt("coap/+/response") as client:
            for request, device, words in (
                    ("{", "dev1", "no JSON"), ({"id": 1}, "dev1", "`path`"),
                    ({"id": 1, "path": "/", "metod": "PUT"}, "dev1", "`metod`"),
                    ({"id": 1, "path": "/"}, "nobody", "no such client"),
                    ({"id": 1, "path": "/never", "timeout": 0.5}, "dev1", "not answered in time")):
                with self.subTest(words):
                    message = self.ask(client, request, device)
                    self.assertEqual(message.topic, f"coap/{device}/response")
                    answer = json.loads(message.payload)
                    self.assertIn(words, answer["error"])
                    self.assertEqual(answer.get("id"), None if request == "{" else 1)

    def test_of_more_requests_than_may_wait_each_is_answered(self):
        with self.mqtt("coap/+/response") as client:
            for number in range(40):
                client.publish("coap/dev1/request", json.dumps({"id": number, "path": "/slow"}), 1)
            harness.until(lambda: len(client.heard) == 40, "40 answers", 30)
            answers = [json.loads(m.payload) for m in client.heard]
            self.assertEqual(sorted(a["id"] for a in answers), list(range(40)))
            said = [a.get("payload") or a["reason"] for a in answers]
            self.assertEqual((said.count("at last"), said.count("busy")), (16, 24))

    def test_response_topic_and_correlation_data_are_kept_to(self):
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic, properties.CorrelationData = "my/answers", b"\x01\x02"
        with self.mqtt("my/answers", "coap/+/response") as client:
            message = self.ask(client, {"path": "/hello"}, properties=properties)
            self.assertEqual((message.topic, message.properties.CorrelationData), ("my/answers", b"\x01\x02"))
            self.assertEqual(json.loads(message.payload)["code"], "2.05")
            properties = Properties(PacketTypes.PUBLISH)
            properties.CorrelationData = b"\x03"
            message = self.ask(client, {"path": "/hello"}, properties=properties)
            self.assertEqual((message.topic, message.properties.CorrelationData), ("coap/dev1/response", b"\x03"))

    def test_who_may_not_publish_there_may_not_ask_and_answers_go_nowhere_that_is_closed_to_the_asker(self):
        acl = self.server.folder / "etc/acl.conf"
        before = acl.read_text()
        acl.write_text("allow user alice publish coap/+/request\nallow user alice publish mine/#\n"
                       "allow everyone subscribe #\nallow anonymous publish #\ndefault deny\n")
        self.addCleanup(lambda: (acl.write_text(before), self.server.reload()))
        self.server.reload()
        refused = lambda code: code.value == 0x87
        with self.mqtt("coap/+/response", "mine/#", "theirs/#") as listener:
            with self.mqtt(user="bob", listener="login") as bob:
                bob.publish("coap/dev1/request", '{"path": "/hello"}', 1)
                harness.until(lambda: bob.published, "bob is told")
                self.assertTrue(refused(bob.published[0]), bob.published)
            with self.mqtt(user="alice", listener="login") as alice:
                for topic in ("theirs/door", "$SYS/brokers", "mine/one"):
                    properties = Properties(PacketTypes.PUBLISH)
                    properties.ResponseTopic = topic
                    alice.publish("coap/dev1/request", '{"path": "/hello"}', 1, properties=properties)
                harness.until(lambda: len(alice.published) == 3, "alice is told")
                self.assertEqual([refused(code) for code in alice.published], [True, True, False])
            harness.until(lambda: listener.heard, "the answer")
            self.assertEqual([m.topic for m in listener.heard], ["mine/one"])

    def test_a_device_that_has_gone_is_not_connected(self):
        with Device(self.server, "dev2") as device:
            self.assertIn("hello", self.request("GET", "/hello", client="dev2").stdout)
            path = f"/mqtt/connection?clientid=dev2&token={device.token}"
            self.assertEqual(device.run(device.ask(aiocoap.DELETE, path)).code, aiocoap.DELETED)
        self.assertRegex(self.fails("GET", "/hello", client="dev2"), "no such client|is not connected")

    def test_a_device_whose_process_died_is_unreachable_or_late(self):
        with Device(self.server, "dev3"):
            pass
        self.assertRegex(self.fails("GET", "/hello", "--timeout", "2 s", client="dev3"),
                         "has not answered in time|does not acknowledge")

    def test_a_device_whose_port_changes_at_every_datagram_is_asked_like_any_other(self):
        with wire.Peer(self.server.port("coap")) as opener:
            token = opener.ask(wire.POST, "/mqtt/connection?clientid=hops").payload.decode()
        with wire.Peer(links.Hopping(self.server.port("coap"))) as device:
            self.assertEqual(device.ask(wire.PUT, f"/ps/hops?c=hops&t={token}", b"1").says, "2.04")
            for turn in range(20):
                words = ["--json", "coap", "request", "hops", "GET", f"/{turn}"]
                with self.server.command(*words) as command:
                    self.answer(device, is_separate=turn % 2)
                    self.assertEqual(json.loads(command.communicate(timeout=30)[0])["payload"], f"value {turn}")

    def answer(self, device, is_separate):
        """Takes one request; what else comes are probes, which get their Reset."""
        asked, value = None, None
        while asked is None or is_separate:
            message = device.expect(lambda m: m.kind in (wire.CON, wire.ACK), "a message of the gateway", 10)
            if message.kind == wire.ACK:
                return
            if message.code == 0:
                device.reset(message)
            elif asked is None:
                asked = message
                value = b"value " + message.all(wire.URI_PATH)[0]
                kind, number = (wire.CON, device.next_id()) if is_separate else (wire.ACK, asked.id)
                if is_separate:
                    device.send(wire.Message(wire.ACK, 0, asked.id))
                device.send(wire.Message(kind, wire.code("2.05"), number, asked.token, [], value))

    def test_libcoap_as_the_device(self):
        port = harness.free_port()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.bind((harness.HOST, port))
            plain.settimeout(10)
            # CON POST /mqtt/connection?clientid=lib
            plain.sendto(b"\x40\x02\x00\x01\xb4mqtt\x0aconnection\x4c" + b"clientid=lib",
                         (harness.HOST, self.server.port("coap")))
            self.assertEqual(plain.recv(100)[1], 0x41)
        libcoap = subprocess.Popen(["coap-server-notls", "-A", harness.HOST, "-p", str(port), "-d", "10"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            harness.until(lambda: self.request("GET", "/", "--timeout", "1 s", client="lib", check=False)
                          .returncode == 0, "coap-server answers")
            done = self.request("PUT", "/example_data", "--payload", "17", "--format", "0", client="lib", check=False)
            self.assertRegex(done.stdout, r"^2\.0[14]")
            self.assertIn("17", self.request("GET", "/example_data", client="lib").stdout)
            # Five seconds by itself: a separate answer.
            self.assertTrue(self.request("GET", "/async", client="lib", timeout=40).stdout.startswith("2.05"))
            self.assertIn("4.04", self.fails("GET", "/none", client="lib"))
            large = "0123456789" * 500
            self.request("PUT", "/example_data", "--payload", large, "--format", "0", client="lib", check=False)
            self.assertIn(large, self.request("GET", "/example_data", client="lib").stdout)
        finally:
            libcoap.kill()
            libcoap.wait()


class Transports(unittest.TestCase):
    """The same over connections and DTLS: the request goes where the device's session is."""

    @classmethod
    def setUpClass(cls):
        cls.tcp, cls.ws, cls.dtls = harness.free_port(), harness.free_port(), harness.free_port()
        listener = "coap.listeners"
        cls.server = harness.Tidegate({
            f"{listener}.tcp.bind": f"{harness.HOST}:{cls.tcp}", f"{listener}.tcp.transport": "tcp",
            f"{listener}.tcp.anonymous": "always",
            f"{listener}.ws.bind": f"{harness.HOST}:{cls.ws}", f"{listener}.ws.anonymous": "always",
            f"{listener}.ws.websocket.path": "/.well-known/coap",
            f"{listener}.dtls.bind": f"{harness.HOST}:{cls.dtls}", f"{listener}.dtls.dtls.psk": True,
            f"{listener}.dtls.dtls.park_after": "1 s"})
        cls.server.cli("psk", "add", "sensor-7", "--client", "dev-dtls", "--key", "00112233445566778899aabbccddeeff")
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)

    def asked(self, client, transport):
        done = self.server.cli("--json", "coap", "request", client, "GET", "/hello", "--query", "a")
        self.assertEqual(json.loads(done.stdout)["payload"], "hello a")
        self.assertEqual(self.server.items("clients", "show", client)[0]["transport"], transport)
        listed = {c["client_id"]: c["transport"] for c in self.server.items("clients", "list")}
        self.assertEqual(listed[client], transport)

    def large(self, client):
        file = self.server.folder / "large"
        file.write_bytes(LARGE)
        for words, wanted in ((["GET", "/large"], LARGE), (["PUT", "/large", "--file", str(file)], LARGE[::-1])):
            answer = json.loads(self.server.cli("--json", "coap", "request", client, *words).stdout)
            self.assertEqual(base64.b64decode(answer["payload_base64"]), wanted)

    def test_over_tcp(self):
        with Device(self.server, "dev-tcp", f"coap+tcp://{harness.HOST}:{self.tcp}", ["tcpclient"]):
            self.asked("dev-tcp", "tcp")
            self.large("dev-tcp")

    def test_over_websocket(self):
        with Device(self.server, "dev-ws", f"coap+ws://{harness.HOST}:{self.ws}", ["ws"]):
            self.asked("dev-ws", "ws")
            self.large("dev-ws")

    def test_over_dtls(self):
        command = ["openssl", "s_client", "-dtls1_2", "-connect", f"{harness.HOST}:{self.dtls}", "-quiet",
                   "-psk_identity", "sensor-7", "-psk", "00112233445566778899aabbccddeeff",
                   "-cipher", "PSK-AES128-CCM8:@SECLEVEL=0"]
        device = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            # CON PUT /ps/d: opens the session; its acknowledgement.
            os.write(device.stdin.fileno(), b"\x40\x03\x00\x01\xb2ps\x01d\xff1")
            self.assertEqual(os.read(device.stdout.fileno(), 2000)[:2], b"\x60\x44")
            threading.Thread(target=self.serve, args=(device,), daemon=True).start()
            self.asked("dev-dtls", "dtls")
            harness.until(lambda: self.server.metric("tidegate_dtls_associations", state="parked") == 1, "it sleeps")
            self.asked("dev-dtls", "dtls")
        finally:
            device.kill()
            device.wait()

    def serve(self, device):
        """Answers whatever is asked with 2.05, in the acknowledgement."""
        while asked := os.read(device.stdout.fileno(), 2000):
            if asked[0] >> 4 == 4 and asked[1]:
                token = asked[4:4 + (asked[0] & 15)]
                answer = bytes([0x60 | len(token), 0x45]) + asked[2:4] + token + b"\xffhello a"
                os.write(device.stdin.fileno(), answer)


if __name__ == "__main__":
    unittest.main()
