"""Bodies of 100 kB, which go in blocks (RFC 7959), by clients that nobody here wrote, over UDP."""

import asyncio
import hashlib
import random
import unittest

import aiocoap
import harness
from coap.kit.large import body
from coap.kit.tools import Case


class Large(Case):
    def is_heard(self, heard, topic, payload):
        """Once, and byte for byte."""
        harness.until(lambda: heard, "the message", 30)
        self.assertEqual([(t, len(p), hashlib.sha256(p).digest()) for t, p in heard],
                         [(topic, len(payload), hashlib.sha256(payload).digest())])

    def libcoap_both_ways(self, flavour, *words):
        payload, file = body(flavour), self.folder / "got"
        with self.mqtt(self.topic) as (_, heard):
            self.libcoap(flavour, "put", self.url(f"/ps/{self.topic}?retain=true"), *words, body=payload, wait=120)
            self.is_heard(heard, self.topic, payload)
        printed = self.libcoap(flavour, "get", self.url(f"/ps/{self.topic}"), *words, "-o", str(file), wait=120)
        self.assertEqual(file.read_bytes() if file.exists() else printed, payload)

    def test_libcoap_puts_and_gets_a_large_body(self):
        for flavour in ("notls", "openssl", "gnutls"):
            with self.subTest(flavour):
                self.topic = f"large/{flavour}"
                self.libcoap_both_ways(flavour)

    def test_libcoap_puts_and_gets_a_large_body_in_blocks_of_64_bytes(self):
        self.libcoap_both_ways("notls", "-b", "64")

    def test_libcoap_puts_and_gets_a_large_body_over_a_lossy_link(self):
        payload, file = body("lossy")[:10_000], self.folder / "got"
        with self.mqtt(self.topic) as (_, heard):
            self.libcoap("notls", "put", self.url(f"/ps/{self.topic}?retain=true"), "-l", "20%", body=payload, wait=100,
                         timeout=140)
            self.is_heard(heard, self.topic, payload)
        self.libcoap("notls", "get", self.url(f"/ps/{self.topic}"), "-l", "20%", "-o", str(file), wait=100, timeout=140)
        self.assertEqual(file.read_bytes(), payload)

    def test_libcoap_is_told_of_a_large_value_that_it_observes(self):
        payload = bytes(random.Random(1).choices(b"abcdefghijklmnopqrstuvwxyz", k=5000))
        with self.observing("notls", self.url(f"/ps/{self.topic}"), self.topic) as printed, self.mqtt() as (client, _):
            client.publish(self.topic, payload, qos=1).wait_for_publish(5)
        self.assertIn(payload.decode(), printed[0])

    def test_aiocoap_puts_and_gets_a_large_body(self):
        payload = body("aiocoap")

        async def work():
            context = await aiocoap.Context.create_client_context()
            try:
                put = await context.request(aiocoap.Message(
                    code=aiocoap.PUT, uri=self.url(f"/ps/{self.topic}?retain=true"), payload=payload)).response
                get = await context.request(aiocoap.Message(code=aiocoap.GET, uri=self.url(f"/ps/{self.topic}"))).response
                return put, get
            finally:
                await context.shutdown()

        with self.mqtt(self.topic) as (_, heard):
            put, get = asyncio.run(asyncio.wait_for(work(), 60))
            self.is_heard(heard, self.topic, payload)
        self.assertEqual((str(put.code), str(get.code)), ("2.04 Changed", "2.05 Content"))
        self.assertEqual(get.payload, payload)

    def test_the_npm_package_puts_and_gets_a_large_body(self):
        payload = body("npm")
        with self.mqtt(self.topic) as (_, heard):
            [(code, said)] = self.node("PUT", f"/ps/{self.topic}?retain=true", payload)
            self.assertEqual((code, said), ("2.04", b""))
            self.is_heard(heard, self.topic, payload)
        [(code, got)] = self.node("GET", f"/ps/{self.topic}")
        self.assertEqual((code, len(got), got == payload), ("2.05", len(payload), True))

    def test_a_body_beyond_the_bound_is_refused(self):
        printed = self.libcoap("notls", "put", self.url(f"/ps/{self.topic}"), body=bytes(5 << 20), wait=120)
        self.assertIn("4.13", printed)


if __name__ == "__main__":
    unittest.main()
