"""coap-client of libcoap, aiocoap, and the package coap of npm, with MQTT clients at the other end."""

import asyncio
import contextlib
import subprocess
import threading
import unittest

import aiocoap
import paho.mqtt.client as paho

import harness
from coap.kit.tools import Case


class Coap(unittest.TestCase):
    """Both clients do the same things."""

    @classmethod
    def setUpClass(cls):
        cls.server = harness.Tidegate({"coap.listeners.udp.anonymous": "always"})
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)

    def url(self, path):
        return f"coap://{harness.HOST}:{self.server.port('coap')}{path}"

    def libcoap(self, method, path, *words, wait=5):
        """Runs coap-client; returns what it printed."""
        done = subprocess.run(["coap-client-notls", "-m", method, "-B", str(wait), *words, self.url(path)],
                              capture_output=True, text=True, timeout=wait + 30)
        return done.stdout + done.stderr

    @contextlib.contextmanager
    def mqtt(self, *topics):
        """An MQTT client and the list of (topic, payload, qos, retain) that it heard."""
        heard, ready = [], []
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.on_message = lambda c, u, m: heard.append((m.topic, m.payload, m.qos, m.retain))
        client.on_subscribe = lambda *a: ready.append(1)
        client.connect(harness.HOST, self.server.port("tcp"))
        client.loop_start()
        try:
            for topic in topics:
                client.subscribe(topic, 2)
            harness.until(lambda: len(ready) == len(topics), "subscribed")
            yield client, heard
        finally:
            client.disconnect()
            client.loop_stop()

    def test_libcoap_publishes_with_put_and_post_what_mqtt_hears_byte_for_byte(self):
        with self.mqtt("lib/#") as (_, heard):
            self.libcoap("put", "/ps/lib/put", "-e", "one two")
            self.libcoap("post", "/ps/lib/post?qos=2", "-e", "%00%FF")
            self.libcoap("put", "/mqtt/lib/old?c=dev7", "-e", "three")
            harness.until(lambda: len(heard) == 3, "three messages")
        # One of QoS 2 is handed over when it is released, which may be after the next one of QoS 1.
        self.assertEqual(sorted(h[:3] for h in heard),
                         [("lib/old", b"three", 1), ("lib/post", b"\0\xff", 2), ("lib/put", b"one two", 1)])

    def test_libcoap_reads_clears_and_misses_the_retained_value(self):
        self.libcoap("put", "/ps/kept/a?retain=true", "-e", "21.5")
        self.assertEqual(self.libcoap("get", "/ps/kept/a").strip(), "21.5")
        self.libcoap("delete", "/ps/kept/a")
        self.assertIn("4.04", self.libcoap("get", "/ps/kept/a"))

    def test_libcoap_observes_what_mqtt_publishes(self):
        observer = subprocess.Popen(["stdbuf", "-o0", "coap-client-notls", "-m", "get", "-s", "8",
                                     self.url("/ps/seen/%2B")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        with self.mqtt() as (client, _):
            harness.until(lambda: any("seen/+" in s["filter"] for s in self.server.items("subscriptions")),
                          "coap-client observes")
            for number in range(5):
                client.publish(f"seen/{number}", f"value {number};", qos=number % 2).wait_for_publish(5)
        printed = observer.communicate(timeout=20)[0].decode()
        places = [printed.find(f"value {number};") for number in range(5)]
        self.assertTrue(all(place >= 0 for place in places), printed)
        self.assertEqual(places, sorted(places), printed)
        harness.until(lambda: not any("seen/+" in s["filter"] for s in self.server.items("subscriptions")),
                      "the observation was cancelled")

    def test_libcoap_survives_a_lossy_link(self):
        with self.mqtt("lossy") as (_, heard):
            # Every second datagram that coap-client sends is lost.
            self.libcoap("put", "/ps/lossy", "-e", "through", "-l", "1,3", wait=20)
            harness.until(lambda: heard, "the message", 25)
        self.assertEqual([h[1] for h in heard], [b"through"])

    def test_a_wildcard_in_a_put_and_an_unknown_path_are_refused(self):
        self.assertIn("4.00", self.libcoap("put", "/ps/a/%23", "-e", "x"))
        self.assertIn("4.00", self.libcoap("get", "/ps/a/%2B"))
        self.assertIn("4.04", self.libcoap("get", "/elsewhere"))

    def aiocoap(self, work):
        async def run():
            context = await aiocoap.Context.create_client_context()
            try:
                return await asyncio.wait_for(work(context), 30)
            finally:
                await context.shutdown()

        return asyncio.run(run())

    def ask(self, context, code, path, **words):
        return context.request(aiocoap.Message(code=code, uri=self.url(path), **words)).response

    def test_aiocoap_puts_posts_gets_and_deletes(self):
        async def work(context):
            put = await self.ask(context, aiocoap.PUT, "/ps/aio/a?retain=true", payload=b"{}", content_format=50)
            get = await self.ask(context, aiocoap.GET, "/ps/aio/a")
            post = await self.ask(context, aiocoap.POST, "/ps/aio/b", payload=b"x")
            links = await self.ask(context, aiocoap.GET, "/.well-known/core?rt=tidegate.topic")
            gone = await self.ask(context, aiocoap.DELETE, "/ps/aio/a")
            none = await self.ask(context, aiocoap.GET, "/ps/aio/a")
            return put, get, post, links, gone, none

        with self.mqtt("aio/#") as (_, heard):
            put, get, post, links, gone, none = self.aiocoap(work)
            harness.until(lambda: len(heard) >= 2, "two messages")
        self.assertEqual([str(m.code) for m in (put, get, post, gone, none)],
                         ["2.04 Changed", "2.05 Content", "2.04 Changed", "2.02 Deleted", "4.04 Not Found"])
        self.assertEqual((get.payload, int(get.opt.content_format)), (b"{}", 50))
        self.assertIn(b"</ps/aio/a>", links.payload)
        self.assertEqual(heard[1][:2], ("aio/b", b"x"))

    def test_aiocoap_observes_and_cancels(self):
        server = self.server

        async def work(context):
            request = context.request(aiocoap.Message(code=aiocoap.GET, uri=self.url("/ps/watched"), observe=0))
            first = await request.response
            with self.mqtt() as (client, _):
                for number in range(10):
                    client.publish("watched", str(number), qos=1)
                seen = []
                async for notification in request.observation:
                    seen.append(notification.payload)
                    if len(seen) == 10:
                        break
            request.observation.cancel()
            # aiocoap says nothing of it; it resets a notification that comes after the one it was still waiting for.
            left = None
            with self.mqtt() as (client, _):
                for _ in range(60):
                    client.publish("watched", "after", qos=1).wait_for_publish(5)
                    await asyncio.sleep(0.2)
                    left = [s for s in server.items("subscriptions") if s["filter"] == "watched"]
                    if not left:
                        break
            return first, seen, left

        first, seen, left = self.aiocoap(work)
        self.assertEqual((str(first.code), first.payload), ("2.05 Content", b""))
        self.assertEqual(seen, [str(number).encode() for number in range(10)])
        self.assertEqual(left, [])

    def test_aiocoap_holds_a_named_session_by_its_token(self):
        async def work(context):
            opened = await self.ask(context, aiocoap.POST, "/mqtt/connection?clientid=meter9&keepalive=30")
            token = opened.payload.decode()
            path = "/mqtt/connection?clientid=meter9&token="
            beat = await self.ask(context, aiocoap.PUT, path + token)
            guess = await self.ask(context, aiocoap.PUT, path + "0" * 32)
            named = self.server.items("clients", "list")
            closed = await self.ask(context, aiocoap.DELETE, path + token)
            return opened, beat, guess, named, closed

        # Presence is for the operator; clients may not read $SYS.
        with self.server.command("sub", "$SYS/brokers/+/clients/meter9/#", "--count", "2") as operator:
            harness.until(lambda: any("meter9" in s["filter"] for s in self.server.items("subscriptions")), "it watches")
            opened, beat, guess, named, closed = self.aiocoap(work)
            heard = operator.communicate(timeout=10)[0].splitlines()
        self.assertEqual([str(m.code)[:4] for m in (opened, beat, guess, closed)], ["2.01", "2.04", "4.01", "2.02"])
        self.assertEqual(len(opened.payload), 32)
        self.assertIn("meter9", [client["client_id"] for client in named])
        self.assertEqual([line.split()[0].rsplit("/", 1)[1] for line in heard], ["connected", "disconnected"])

    def test_wrong_credentials_and_a_forbidden_topic_have_their_codes(self):
        async def work(context):
            wrong = await self.ask(context, aiocoap.PUT, "/ps/x?c=a&u=alice&p=guess", payload=b"x")
            right = await self.ask(context, aiocoap.PUT, "/ps/x?c=a&u=alice&p=secret%20of%20alice", payload=b"x")
            system = await self.ask(context, aiocoap.PUT, "/ps/$SYS/x?c=a&u=alice&p=secret%20of%20alice", payload=b"x")
            return wrong, right, system

        self.assertEqual([str(m.code)[:4] for m in self.aiocoap(work)], ["4.01", "2.04", "4.03"])


class Npm(Case):
    """The package coap of npm under Node."""

    def test_it_puts_posts_gets_and_deletes(self):
        with self.mqtt("npm/#") as (_, heard):
            self.assertEqual(self.node("PUT", "/ps/npm/a?retain=true", b"\0\xff"), [("2.04", b"")])
            self.assertEqual(self.node("POST", "/ps/npm/b", b"posted"), [("2.04", b"")])
            self.assertEqual(self.node("GET", "/ps/npm/a"), [("2.05", b"\0\xff")])
            self.assertEqual(self.node("DELETE", "/ps/npm/a"), [("2.02", b"")])
            self.assertEqual(self.node("GET", "/ps/npm/a")[0][0], "4.04")
            harness.until(lambda: len(heard) >= 2, "two messages")
        self.assertEqual(heard[:2], [("npm/a", b"\0\xff"), ("npm/b", b"posted")])

    def test_it_does_so_without_confirmation(self):
        with self.mqtt("npm/non") as (_, heard):
            self.assertEqual(self.node("PUT", "/ps/npm/non", b"non", confirmable=False), [("2.04", b"")])
            harness.until(lambda: heard, "the message")

    def test_it_observes_what_mqtt_publishes_and_cancels(self):
        seen = []
        observer = threading.Thread(target=lambda: seen.extend(self.node("GET", "/ps/npm/seen", observe=True, count=6)))
        observer.start()
        harness.until(lambda: self.is_observed("npm/seen"), "it observes")
        with self.mqtt() as (client, _):
            for number in range(5):
                client.publish("npm/seen", str(number), qos=1).wait_for_publish(5)
        observer.join(20)
        self.assertEqual(seen, [("2.05", payload) for payload in (b"", b"0", b"1", b"2", b"3", b"4")])
        harness.until(lambda: not self.is_observed("npm/seen"), "it cancelled")


if __name__ == "__main__":
    unittest.main()
