"""mqtt.js over TCP, TLS and WebSocket under Node, and over WebSocket from a page in headless Chromium."""

import http.server
import json
import queue
import subprocess
import tempfile
import threading
import unittest

import harness

JS = harness.HERE / "mqtt" / "js"
MODULES = harness.TOOLS / "js"
TESTS = 6
# Nothing but loopback is to be reached, and nothing of the machine's settings touched.
CHROMIUM = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
            "--disable-default-apps", "--no-pings", "--disable-dev-shm-usage", "--ignore-certificate-errors",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"]


class Page(http.server.ThreadingHTTPServer):
    """Serves the page and takes its results."""

    FILES = {"/page.html": (JS / "page.html", "text/html"), "/dialogue.mjs": (JS / "dialogue.mjs", "text/javascript"),
             "/mqtt.min.js": (MODULES / "node_modules/mqtt/dist/mqtt.min.js", "text/javascript")}

    def __init__(self):
        super().__init__((harness.HOST, 0), Handler)
        self.results = queue.Queue()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, address):
        """The page that tries this address."""
        return f"http://localhost:{self.server_port}/page.html?url={address}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        file, kind = Page.FILES.get(self.path.partition("?")[0], (None, None))
        self.send_response(200 if file else 404)
        if file:
            self.send_header("Content-Type", kind)
        self.end_headers()
        if file:
            self.wfile.write(file.read_bytes())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.results.put(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        """Says nothing."""


class JavaScript(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = harness.server()
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)

    def check(self, results):
        self.assertEqual({name: text for name, text in results.items() if text != "ok"}, {})
        self.assertEqual(len(results), TESTS)

    def node(self, url):
        authority = self.server.authority.ca
        done = subprocess.run(["node", str(JS / "node.mjs"), url, str(authority), str(MODULES)], capture_output=True,
                              text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.check(json.loads(done.stdout.splitlines()[-1]))

    def browser(self, url):
        page = Page()
        with tempfile.TemporaryDirectory(prefix="tidegate-chromium-", ignore_cleanup_errors=True) as profile:
            log = open(f"{profile}/log", "w+b")
            chromium = subprocess.Popen([*CHROMIUM, f"--user-data-dir={profile}", page.url(url)], stdout=log,
                                        stderr=log, stdin=subprocess.DEVNULL)
            try:
                self.check(page.results.get(timeout=90))
            except queue.Empty:
                log.seek(0)
                self.fail(f"the page has said nothing within 90 s: {log.read()[-2000:].decode(errors='replace')}")
            finally:
                chromium.terminate()
                chromium.wait(20)
                log.close()
                page.shutdown()
                page.server_close()

    def test_under_node_over_tcp(self):
        self.node(f"mqtt://localhost:{self.server.port('tcp')}")

    @unittest.skipIf(harness.is_mosquitto(), "its listener demands a client certificate")
    def test_under_node_over_tls(self):
        self.node(f"mqtts://localhost:{self.server.port('tls')}")

    def test_under_node_over_websocket(self):
        self.node(self.server.url("ws"))

    def test_under_node_over_secure_websocket(self):
        self.node(self.server.url("wss"))

    def test_in_a_page_over_websocket(self):
        self.browser(self.server.url("ws"))

    def test_in_a_page_over_secure_websocket(self):
        self.browser(self.server.url("wss"))


if __name__ == "__main__":
    unittest.main()
