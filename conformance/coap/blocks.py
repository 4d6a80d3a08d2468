"""What `large.py` does not: every size of blocks, the largest body, and what is observed or listed in blocks."""

import asyncio
import pathlib
import random
import subprocess
import tempfile
import unittest

import aiocoap

import harness
from coap import clients

MEBIBYTE = 1 << 20


def body(length):
    return random.Random(length).randbytes(length)


class Blocks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.Tidegate({"coap.listeners.udp.anonymous": "always", "coap.max_body_size": "4 MiB"})
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)

    url = clients.Coap.url
    libcoap = clients.Coap.libcoap
    mqtt = clients.Coap.mqtt
    aiocoap = clients.Coap.aiocoap
    ask = clients.Coap.ask

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file, self.copy = pathlib.Path(folder.name, "file"), pathlib.Path(folder.name, "copy")

    def put(self, path, payload, size, *words):
        self.file.write_bytes(payload)
        return self.libcoap("put", path, "-b", str(size), "-f", str(self.file), *words, wait=120)

    def get(self, path, *words):
        self.copy.unlink(missing_ok=True)
        self.libcoap("get", path, "-o", str(self.copy), *words, wait=120)
        return self.copy.read_bytes()

    def test_libcoap_puts_and_gets_a_file_in_blocks_of_every_size(self):
        for size in (16, 32, 64, 128, 256, 512, 1024):
            payload, path = body(20 * size + 7), f"/ps/file/{size}"
            with self.subTest(size=size), self.mqtt(f"file/{size}") as (_, heard):
                self.put(path + "?retain=true", payload, size)
                harness.until(lambda: heard, "the publication")
                self.assertEqual([h[:3] for h in heard], [(f"file/{size}", payload, 1)])
                self.assertTrue(self.get(path, "-b", str(size)) == payload)
                self.assertTrue(self.get(path) == payload, "without a wish for a size")

    def test_libcoap_puts_and_gets_the_largest_body_and_not_one_byte_more(self):
        payload = body(4 * MEBIBYTE)
        self.put("/ps/largest?retain=true", payload, 1024)
        self.assertTrue(self.get("/ps/largest", "-b", "1024") == payload)
        self.assertIn("4.13", self.put("/ps/largest?retain=true", payload + b"x", 1024))
        self.assertTrue(self.get("/ps/largest") == payload)

    def test_libcoap_observes_values_larger_than_a_block_that_nothing_retains(self):
        words = ["coap-client-notls", "-m", "get", "-s", "8", "-b", "256", "-o", str(self.copy), self.url("/ps/seen")]
        first, second = body(5000), body(6000)
        with self.mqtt() as (client, _), subprocess.Popen(words) as observer:
            harness.until(lambda: any(s["filter"] == "seen" for s in self.server.items("subscriptions")), "it observes")
            client.publish("seen", first, 1)
            client.publish("seen", second, 1)
            observer.wait(20)
        self.assertTrue(self.copy.read_bytes() == first + second, "each whole and in order")

    def test_aiocoap_puts_gets_and_validates(self):
        payload = body(20_000)

        async def work(context):
            put = await self.ask(context, aiocoap.PUT, "/ps/aio/large?retain=true", payload=payload, content_format=42)
            get = await self.ask(context, aiocoap.GET, "/ps/aio/large")
            again = await self.ask(context, aiocoap.GET, "/ps/aio/large", etags=[get.opt.etag])
            return put, get, again

        put, get, again = self.aiocoap(work)
        self.assertEqual([str(m.code) for m in (put, get, again)], ["2.04 Changed", "2.05 Content", "2.03 Valid"])
        self.assertTrue(get.payload == payload)
        self.assertEqual((int(get.opt.content_format), again.payload), (42, b""))

    def test_aiocoap_discovers_more_topics_than_a_datagram_has_room_for(self):
        with self.mqtt() as (client, _):
            for n in range(60):
                client.publish(f"many/{n}", b"x", 1, retain=True).wait_for_publish(5)

        async def work(context):
            return await self.ask(context, aiocoap.GET, "/.well-known/core?href=/ps/many/*")

        links = self.aiocoap(work).payload.decode()
        self.assertEqual(sorted(links.split(",")), sorted(f'</ps/many/{n}>;rt="tidegate.topic";obs' for n in range(60)))

    def test_aiocoap_observes_what_is_larger_than_a_block(self):
        payloads = [bytes([n]) * (3000 + n) for n in range(5)]

        async def work(context):
            request = context.request(aiocoap.Message(code=aiocoap.GET, uri=self.url("/ps/aio/seen"), observe=0))
            await request.response
            told = []

            async def listen():
                async for note in request.observation:
                    told.append(note.payload)

            listening = asyncio.ensure_future(listen())
            with self.mqtt() as (client, _):
                for n, payload in enumerate(payloads, 1):
                    client.publish("aio/seen", payload, 1)
                    while len(told) < n:
                        await asyncio.sleep(0.01)
            listening.cancel()
            return told

        self.assertTrue(self.aiocoap(work) == payloads)


if __name__ == "__main__":
    unittest.main()
