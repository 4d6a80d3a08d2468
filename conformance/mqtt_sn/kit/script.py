"""Dialogues with a gateway, octet by octet: files of cases, each a list of lines. See `README.md` for the language."""

import dataclasses
import random
import re
import shlex
import string
import threading
import time

import paho.mqtt.client as paho

import harness
from coap.kit import links

PATIENCE = 5
CASE = re.compile(r'case (\S+) "([^"]+)"$')


@dataclasses.dataclass
class Case:
    """A case: the section of MQTT-SN 1.2 that it plays, what it says, and its lines with their numbers."""

    section: str
    title: str
    file: str
    lines: list = dataclasses.field(default_factory=list)


def read(path):
    """All cases of a file."""
    cases = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if not line:
            continue
        if match := CASE.match(line):
            cases.append(Case(*match.groups(), path.name))
        else:
            assert cases, f"{path.name}:{number}: a line before the first case"
            cases[-1].lines.append((number, line))
    return cases


class Mqtt:
    """The MQTT client of a case."""

    def __init__(self, port):
        self.heard, self.subscribed, self.published = [], threading.Semaphore(0), threading.Semaphore(0)
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.on_message = lambda c, u, message: self.heard.append(message)
        self.client.on_subscribe = lambda *a: self.subscribed.release()
        self.client.on_publish = lambda *a: self.published.release()
        self.client.connect(harness.HOST, port)
        self.client.loop_start()

    def subscribe(self, topic, qos=2):
        self.client.subscribe(topic, qos)
        assert self.subscribed.acquire(timeout=PATIENCE), f"no SUBACK for {topic}"

    def publish(self, topic, payload, qos=1, retain=False):
        self.client.publish(topic, payload, qos, retain)
        assert self.published.acquire(timeout=PATIENCE), f"not published: {topic}"

    def next(self, seconds=PATIENCE):
        """The oldest message, taken away; None if there is none in time."""
        end = time.monotonic() + seconds
        while not self.heard:
            if time.monotonic() > end:
                return None
            time.sleep(0.01)
        return self.heard.pop(0)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


class Player:
    """Plays one case. Every letter but `m` is a socket."""

    def __init__(self, port, mqtt_port):
        self.port, self.mqtt_port = port, mqtt_port
        self.unique = "".join(random.choices(string.ascii_lowercase, k=4))
        self.sockets, self.mqtt, self.values = {}, None, {}

    def play(self, case):
        """All lines, and at the end nothing may be left over."""
        try:
            for number, line in case.lines:
                try:
                    self.step(line.replace("{u}", self.unique))
                except AssertionError as wrong:
                    raise AssertionError(f"{case.file}:{number}: {line}: {wrong}") from None
            for name, link in self.sockets.items():
                left = link.receive(0.05)
                assert left is None, f"{case.file}: at the end {name} gets {left.hex(' ')}"
            if self.mqtt:
                assert not self.mqtt.heard, f"{case.file}: at the end m gets {self.mqtt.heard[0].topic}"
        finally:
            for link in self.sockets.values():
                link.close()
            if self.mqtt:
                self.mqtt.close()

    def step(self, line):
        name, verb, rest = (line.split(None, 2) + [""])[:3]
        if name == "wait":
            time.sleep(float(verb))
        elif name == "m":
            self.mqtt = self.mqtt or Mqtt(self.mqtt_port)
            getattr(self, f"mqtt_{verb}")(*shlex.split(rest))
        else:
            link = self.sockets.get(name) or self.sockets.setdefault(name, self.link(name))
            verbs = {">": self.send, "<": self.expect, "moves": self.move, "joins": self.join, "leaves": self.leave}
            verbs[verb](link, rest)

    def link(self, name):
        """A socket; one whose letter is behind r is on another host."""
        return links.Udp(self.port, own=("127.0.0.2", 0)) if name > "r" else links.Moving(self.port)

    def send(self, link, words):
        out = b""
        for kind, word in tokens(words):
            assert kind != "any", "a choice cannot be sent"
            out += self.values[word] if kind == "name" else word
        link.send(out)

    def expect(self, link, words):
        if words.startswith("nothing"):
            seconds = float(words.split()[1]) if " " in words else 0.3
            came = link.receive(seconds)
            assert came is None, f"came {came.hex(' ')}"
            return
        came = link.receive(PATIENCE)
        assert came is not None, f"nothing within {PATIENCE} s"
        assert self.matches(came, list(tokens(words))), f"came {came.hex(' ')}, {printable(came)}"

    def matches(self, came, wanted):
        """Whether this is the frame; names that are new are given their two octets."""
        new, at = {}, 0
        for kind, word in wanted:
            if kind == "bytes":
                size = len(word)
                fits = came[at:at + size] == word
            elif kind == "any":
                size, fits = 1, came[at:at + 1] in word
            else:
                size = 2
                new.setdefault(word, self.values.get(word, came[at:at + 2]))
                # No id that a gateway makes is one of these (5.3.7, 5.3.11).
                fits = came[at:at + 2] == new[word] and new[word] not in (b"\0\0", b"\xff\xff")
            if not fits:
                return False
            at += size
        self.values |= new
        return at == len(came)

    def move(self, link, _):
        link.move()

    def join(self, link, words):
        """CONNECT with a name, clean unless it says `kept`, until CONNACK."""
        name, *rest = shlex.split(words)
        flags = 0 if "kept" in rest else 4
        frame = bytes([6 + len(name), 4, flags, 1, 0, 60]) + name.encode()
        link.send(frame)
        self.expect(link, "03 05 00")

    def leave(self, link, _):
        link.send(b"\x02\x18")
        self.expect(link, "02 18")

    def mqtt_subscribes(self, topic, qos="2"):
        self.mqtt.subscribe(topic, int(qos))

    def mqtt_publishes(self, topic, payload, qos="1", *retain):
        self.mqtt.publish(topic, payload, int(qos), bool(retain))

    def mqtt_hears(self, topic, payload=None, qos=None, *retain):
        if topic == "nothing":
            came = self.mqtt.next(float(payload or 0.3))
            assert came is None, f"came {came.topic} {came.payload}"
            return
        # `x*300` is that many of them.
        if times := re.fullmatch(r"(\w)\*(\d+)", payload):
            payload = times[1] * int(times[2])
        came = self.mqtt.next()
        assert came is not None, f"nothing within {PATIENCE} s"
        assert (came.topic, came.payload) == (topic, payload.encode()), f"came {came.topic} {came.payload}"
        assert qos is None or came.qos == int(qos), f"QoS {came.qos}"
        assert came.retain == bool(retain), f"retain {came.retain}"


TOKEN = re.compile(r'"([^"]*)"(?:\*(\d+))?|@(\w+)|\[([0-9a-f ]+)\]|([0-9a-f]+)\s*|\s+')


def tokens(words):
    """`0a 04`, `"text"`, `"x"*300`, `@name` of two octets, `[01 03]` one of these."""
    at = 0
    while at < len(words):
        match = TOKEN.match(words, at)
        assert match, f"what is {words[at:]}?"
        text, times, name, choice, octets = match.groups()
        if text is not None:
            yield "bytes", text.encode() * int(times or 1)
        elif name:
            yield "name", name
        elif choice:
            yield "any", [bytes.fromhex(one) for one in choice.split()]
        elif octets:
            yield "bytes", bytes.fromhex(octets)
        at = match.end()


def printable(octets):
    """As text, for whoever reads a failure."""
    return "".join(chr(octet) if 32 <= octet < 127 else "." for octet in octets)
