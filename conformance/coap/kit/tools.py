"""Command line clients: libcoap's in each of its flavours, the package `coap` of npm, and what all of their tests need."""

import base64
import contextlib
import json
import pathlib
import subprocess
import tempfile
import unittest

import harness
import paho.mqtt.client as paho

JS = harness.HERE / "coap" / "js"
MODULES = harness.TOOLS / "js-coap"


class Case(unittest.TestCase):
    """One gateway for all tests of a class."""

    overrides = {}

    @classmethod
    def setUpClass(cls):
        cls.server = harness.Tidegate({"coap.listeners.udp.anonymous": "always"})
        cls.prepare(cls.server)
        cls.server.__enter__()
        cls.addClassCleanup(lambda: cls.server.__exit__(None))

    @staticmethod
    def prepare(server):
        """What has to be there before it starts."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=self.server.folder))
        self.topic = self.id().rsplit(".", 1)[1][5:65]

    def url(self, path, scheme="coap", listener="coap"):
        return f"{scheme}://{harness.HOST}:{self.server.port(listener)}{path}"

    def libcoap(self, flavour, method, url, *words, wait=5, timeout=None, body=None):
        """Runs coap-client; what it printed. `body` is a large payload, which it sends from a file."""
        return libcoap(self.folder, flavour, method, url, *words, wait=wait, timeout=timeout, body=body)

    @contextlib.contextmanager
    def observing(self, flavour, url, filter_, *words, seconds=6):
        """coap-client as an observer; the list that is given is filled with all it printed at the end."""
        command = ["stdbuf", "-o0", f"coap-client-{flavour}", "-m", "get", "-s", str(seconds), *words, url]
        observer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        printed = []
        try:
            harness.until(lambda: self.is_observed(filter_) or observer.poll() is not None, "coap-client observes")
            yield printed
            printed.append(observer.communicate(timeout=seconds + 20)[0].decode())
        finally:
            observer.kill()
            observer.wait()
            observer.stdout.close()

    def is_observed(self, filter_):
        return any(s["filter"] == filter_ for s in self.server.items("subscriptions"))

    def node(self, method, path, payload=b"", timeout=40, **words):
        """The package coap of npm; what it was answered."""
        path, _, query = path.partition("?")
        options = {"host": harness.HOST, "port": self.server.port("coap"), "method": method, "pathname": path,
                   "query": query, **words}
        done = subprocess.run(["node", str(JS / "client.mjs"), str(MODULES), json.dumps(options)], input=payload,
                              capture_output=True, timeout=timeout)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        return [(a["code"], base64.b64decode(a["payload"])) for a in answers]

    @contextlib.contextmanager
    def mqtt(self, *topics):
        """An MQTT client, and the list of (topic, payload) that it heard."""
        heard, ready = [], []
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.on_message = lambda c, u, m: heard.append((m.topic, m.payload))
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

    def hears_all(self, printed, values):
        """Every value stands in what the observer printed, in order."""
        places = [printed.find(value) for value in values]
        self.assertTrue(all(place >= 0 for place in places), printed)
        self.assertEqual(places, sorted(places), printed)


def libcoap(folder, flavour, method, url, *words, wait=5, timeout=None, body=None):
    """Runs coap-client, which gives up after `wait` seconds."""
    if body is not None:
        file = folder / "body"
        file.write_bytes(body)
        words = (*words, "-f", str(file))
    command = [f"coap-client-{flavour}", "-m", method, "-B", str(wait), *words, url]
    done = subprocess.run(command, capture_output=True, timeout=timeout or wait + 35, cwd=folder)
    return done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
