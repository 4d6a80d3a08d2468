"""Starts Tidegate for a test on free ports of loopback, looks at it as an operator would, and ends it.

Every server has a folder of its own with a copy of the shipped `etc/` and runs there without arguments, as the README
says; ports and what a test needs are overridden in the environment. At the end it is asked to stop with SIGTERM and has to
end with 0, whatever was done to it.

    with Tidegate() as server:              # listeners tcp, ws (open to all), login (users alone), tls, wss
        server.port("tcp"); server.cli("clients", "list"); server.memory(); server.metric("tidegate_…")

TIDEGATE_BIN names the binary. With TIDEGATE_PEER=mosquitto `server()` starts Debian's mosquitto in its place: what fails
there is wrong in the test or argued in the case.
"""

import contextlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
HOUSE = HERE.parent
HOST = "127.0.0.1"
USERS = {"alice": "secret of alice", "bob": "secret of bob"}
# Where the clients were installed by conformance/install.
# conformance/install lays them beside the Python that runs this.
TOOLS = pathlib.Path(os.environ.get("TIDEGATE_TOOLS", pathlib.Path(sys.prefix).parent))


# Ports that were given to a test: one that is free may be that of a server which has not begun to listen.
GIVEN = set()


def free_port():
    """A port that nobody listens at, for TCP and for UDP, and another one each time. Below the range that the system gives
    to outgoing connections, or one of the thousands a test opens would take it first."""
    for _ in range(1000):
        port = random.randint(12000, 32000)
        if port in GIVEN:
            continue
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((HOST, port))
                udp.bind((HOST, port))
            except OSError:
                continue
            GIVEN.add(port)
            return port
    raise RuntimeError("no free port")


def until(condition, what, seconds=10.0):
    """Waits for what `condition` returns to be true, and returns it."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


class Alarm:
    """Ends a process after some seconds, so that reading from it ends too."""

    def __init__(self, process, seconds):
        self.rang = False
        self.timer = threading.Timer(seconds, self._ring)
        self.process = process

    def _ring(self):
        self.rang = True
        self.process.kill()

    def __enter__(self):
        self.timer.start()
        return self

    def __exit__(self, *_):
        self.timer.cancel()
        self.timer.join()


def binary():
    """The built program."""
    named = os.environ.get("TIDEGATE_BIN")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HOUSE / "target"))
    path = pathlib.Path(named) if named else target / "debug" / "tidegate"
    if not path.exists():
        raise SystemExit(f"{path} is not there: cargo build -p tidegate, or TIDEGATE_BIN says where it is")
    return path.resolve()


class Authority:
    """A certificate authority of the test's own, with one server certificate and one for a client."""

    def __init__(self, folder):
        self.folder = folder
        self.ca, self.ca_key = folder / "ca.pem", folder / "ca.key"
        self._openssl("req", "-x509", *self._new_key(self.ca_key), "-subj", "/CN=Test authority", "-days", "2",
                      "-out", self.ca)
        self.server, self.server_key = self.issue("localhost", "DNS:localhost,IP:127.0.0.1,IP:::1")
        self.client, self.client_key = self.issue("device-1", "DNS:device-1")

    def issue(self, name, alternatives, file=None):
        """A certificate and its key."""
        file = file or name
        request, extension = self.folder / f"{file}.csr", self.folder / f"{file}.ext"
        certificate, key = self.folder / f"{file}.pem", self.folder / f"{file}.key"
        extension.write_text(f"subjectAltName={alternatives}\n")
        self._openssl("req", *self._new_key(key), "-subj", f"/CN={name}", "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.ca_key, "-CAcreateserial",
                      "-days", "2", "-extfile", extension, "-out", certificate)
        return certificate, key

    @staticmethod
    def _new_key(file):
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", file]

    @staticmethod
    def _openssl(*words):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


class Process:
    """A server in a folder of its own."""

    NAMES = ("tcp", "ws", "login", "tls", "wss", "http", "coap", "mqtt_sn")

    def __init__(self, files=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-test-"))
        self.files = files
        self.ports = {name: free_port() for name in self.NAMES}
        self.log = self.folder / "log"
        self.authority = Authority(self.folder)
        self.process = None

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:
            self.kill()

    def port(self, name):
        """Where the listener of this name is."""
        return self.ports[name]

    def url(self, name):
        """Address of a WebSocket listener."""
        return f"{name}://localhost:{self.port(name)}/mqtt"

    def _spawn(self, command, environment):
        def limit():
            if self.files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (self.files, self.files))

        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, preexec_fn=limit)

    def _listening(self, names):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.said()}")
            return all(reachable(self.port(name)) for name in names)

        until(ready, f"{names} answer\n{self.said()}", 60)

    def said(self):
        """The log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def stop(self):
        """Asks it to stop; it has to end with 0 in time."""
        if self.process.poll() is not None:
            text = f"the server had ended with {self.process.returncode}:\n{self.said()[-4000:]}"
            self.kill()
            raise AssertionError(text)
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            code = "no exit within 20 s"
        text = self.said()
        self.kill()
        assert code == 0, f"SIGTERM: {code}\n{text[-4000:]}"
        assert "panicked" not in text, text[-4000:]

    def kill(self):
        """Ends it at once and forgets its folder."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def memory(self):
        """Resident bytes."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the server has no memory: it ended")

    def cpu(self):
        """Seconds of processor time it has used."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Tidegate(Process):
    """Tidegate as it was built. `overrides` are further keys: {"router.max_queued": 10}."""

    passwords = None

    def __init__(self, overrides=None, files=None):
        super().__init__(files)
        shutil.copytree(HOUSE / "etc", self.folder / "etc")
        self.keys = {
            "http.bind": f"{HOST}:{self.port('http')}",
            "coap.listeners.udp.bind": f"{HOST}:{self.port('coap')}",
            "mqtt_sn.listeners.udp.bind": f"{HOST}:{self.port('mqtt_sn')}",
            "mqtt.listeners.login.anonymous": "never",
            "auth.bans.login_failures": 0,
        }
        for name in ("tcp", "ws", "login", "tls", "wss"):
            listener = f"mqtt.listeners.{name}"
            self.keys[f"{listener}.bind"] = f"{HOST}:{self.port(name)}"
            if name != "login":
                self.keys[f"{listener}.anonymous"] = "always"
        for name in ("tls", "wss"):
            section = f"mqtt.listeners.{name}.tls"
            self.keys |= {f"{section}.certificate": str(self.authority.server),
                          f"{section}.key": str(self.authority.server_key)}
        self.keys["mqtt.listeners.tls.tls.client_ca"] = str(self.authority.ca)
        self.keys["mqtt.listeners.tls.certificate_user"] = True
        self.keys["mqtt.listeners.wss.websocket.path"] = "/mqtt"
        self.keys |= overrides or {}
        self._users()

    def _users(self):
        """Hashing a password takes its time by design: it is done once for all servers of a run."""
        if Tidegate.passwords is None:
            for name, password in USERS.items():
                self.passwd(name, password)
            Tidegate.passwords = (self.folder / "etc/passwd").read_bytes()
        else:
            file = self.folder / "etc/passwd"
            file.touch(0o600)
            file.write_bytes(Tidegate.passwords)

    def start(self):
        """Runs it until it says that it is ready."""
        self._spawn([str(binary())], self.environment())
        self._listening([name for name in ("tcp", "ws", "login", "tls", "wss") if self._has(name)])
        until(lambda: self.get("/health")[0] == 200, "/health is 200", 60)
        return self

    def end(self, with_signal=signal.SIGTERM):
        """Ends it and keeps its folder; asked to stop, it ends with 0."""
        self.process.send_signal(with_signal)
        code = self.process.wait(30)
        expected = 0 if with_signal == signal.SIGTERM else -with_signal
        assert code == expected, f"{with_signal.name}: {code}\n{self.said()[-4000:]}"

    def again(self):
        """Asked to stop, and started again with what it has kept."""
        self.end()
        self.start()

    def killed(self):
        """Killed, and started again with what it has kept."""
        self.end(signal.SIGKILL)
        self.start()

    def _has(self, name):
        return self.keys.get(f"mqtt.listeners.{name}.enabled", True)

    def environment(self):
        """What it is started with: the keys in the form TIDEGATE__SECTION__KEY."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("TIDEGATE__")}
        for key, value in self.keys.items():
            clean["TIDEGATE__" + key.upper().replace(".", "__")] = json.dumps(value)
        return clean

    def cli(self, *words, check=True, text=None, timeout=30):
        """Runs a command of the operator in the server's folder."""
        done = subprocess.run([str(binary()), *words], cwd=self.folder, env=self.environment(), input=text or "",
                              capture_output=True, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"tidegate {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    @contextlib.contextmanager
    def command(self, *words):
        """A command of the operator that runs until the test is done with it; its lines are read from stdout."""
        process = subprocess.Popen([str(binary()), *words], cwd=self.folder, env=self.environment(), text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def items(self, *words):
        """What a command lists, as objects."""
        return [json.loads(line) for line in self.cli("--json", *words).stdout.splitlines()]

    def passwd(self, name, password):
        """Adds a user or changes the password."""
        self.cli("passwd", "etc/passwd", name, "--stdin", text=password + "\n")

    def reload(self):
        """SIGHUP, until the log says that it was heard."""
        before = self.said().count("configuration read again")
        self.process.send_signal(signal.SIGHUP)
        until(lambda: self.said().count("configuration read again") > before, "the configuration is read again")

    def get(self, path):
        """Status and body of the HTTP port; status 0 while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port('http')}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name, **labels):
        """Sum of the samples of this name whose labels hold these."""
        status, body = self.get("/metrics")
        assert status == 200, status
        found = [line for line in body.splitlines() if line.startswith((name + " ", name + "{"))
                 and all(f'{label}="{value}"' in line for label, value in labels.items())]
        assert found, f"no sample {name} {labels} in\n{body}"
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)


class Mosquitto(Process):
    """Debian's mosquitto with the same listeners, to try the tests themselves."""

    def __init__(self, overrides=None, files=None):
        super().__init__(files)
        passwords = self.folder / "passwd"
        for name, password in USERS.items():
            create = [] if passwords.exists() else ["-c"]
            subprocess.run(["mosquitto_passwd", *create, "-b", passwords, name, password], check=True)
        lines = ["per_listener_settings true", "user root", "max_queued_messages 100000",
                 "max_packet_size 1048576"]
        for name in ("tcp", "ws", "login", "tls", "wss"):
            lines += [f"listener {self.port(name)} {HOST}",
                      "allow_anonymous " + ("false" if name == "login" else "true")]
            if name in ("ws", "wss"):
                lines.append("protocol websockets")
            if name in ("tls", "wss"):
                lines += [f"certfile {self.authority.server}", f"keyfile {self.authority.server_key}"]
            if name == "tls":
                lines += [f"cafile {self.authority.ca}", "require_certificate true", "use_identity_as_username true"]
            if name == "login":
                lines.append(f"password_file {passwords}")
        self.config = self.folder / "mosquitto.conf"
        self.config.write_text("\n".join(lines) + "\n")

    def start(self):
        """Runs it until it listens."""
        self._spawn(["/usr/sbin/mosquitto", "-c", str(self.config)], dict(os.environ))
        self._listening(("tcp", "ws", "login", "tls", "wss"))
        return self


def is_mosquitto():
    """Whether the tests are being tried against mosquitto."""
    return os.environ.get("TIDEGATE_PEER") == "mosquitto"


def server(overrides=None):
    """The server that is tested."""
    return Mosquitto() if is_mosquitto() else Tidegate(overrides)


def reachable(port):
    """Whether somebody listens."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
