"""Many devices that only send, and one subscriber that keeps count: fast enough in Python for thousands of frames a second."""

import collections
import json
import pathlib
import select
import socket
import threading
import time

import harness


def packet(kind, body):
    """An MQTT packet of less than 128 bytes."""
    return bytes([kind, len(body)]) + body


def text(value):
    return len(value).to_bytes(2, "big") + value.encode()


class Counter(threading.Thread):
    """An MQTT 3.1.1 subscriber of QoS 0 that hands on each topic and payload with the time at which it came."""

    def __init__(self, port, topic, hear):
        super().__init__(daemon=True)
        self.hear, self.failure, self.is_over = hear, None, False
        self.socket = socket.create_connection((harness.HOST, port))
        self.socket.sendall(packet(0x10, text("MQTT") + b"\x04\x02\0\0" + text("counter")))
        self.socket.sendall(packet(0x82, b"\0\1" + text(topic) + b"\0"))
        self.left = b""
        while b"\x90\x03" not in self.left:
            self.left += self.socket.recv(4096)
        self.left = self.left.split(b"\x90\x03", 1)[1][3:]
        self.start()

    def run(self):
        try:
            while data := self.socket.recv(1 << 18):
                self.left = self._take(self.left + data, time.monotonic())
        except OSError as error:
            self.failure = None if self.is_over else error

    def _take(self, data, now):
        at = 0
        while True:
            length, shift, head = 0, 0, at + 1
            while head < len(data):
                octet = data[head]
                length |= (octet & 127) << shift
                head, shift = head + 1, shift + 7
                if octet < 128:
                    break
            else:
                return data[at:]
            if len(data) < head + length:
                return data[at:]
            if data[at] >> 4 == 3:
                topic = head + 2 + int.from_bytes(data[head:head + 2], "big")
                self.hear(data[head + 2:topic].decode(), data[topic:head + length], now)
            at = head + length

    def close(self):
        self.is_over = True
        self.socket.shutdown(socket.SHUT_RDWR)
        self.join()
        self.socket.close()


# Lines that a device is ahead of what was heard of it at most. A machine that is slower than the pace would else have
# minutes of lines in the buffers of its sockets, and a subscriber of QoS 0 that loses some by right.
AHEAD = 100


class Fleet(threading.Thread):
    """Connections that say who they are and then send numbered lines at an even pace, `rate` a second all together, as
    long as the lines are heard: `heard` counts them by device."""

    def __init__(self, port, count, rate, heard, name="dev"):
        super().__init__(daemon=True)
        self.links = [socket.create_connection((harness.HOST, port)) for _ in range(count)]
        self.names = [f"{name}-{number}" for number in range(count)]
        self.sent = [0] * count
        self.rate, self.heard, self.lost, self.is_over = rate, heard, [], False
        for link, device in zip(self.links, self.names):
            link.sendall(f"{device}\n".encode())
        self.start()

    def run(self):
        began, sent, turn = time.monotonic(), 0, 0
        while not self.is_over:
            due = int((time.monotonic() - began) * self.rate) - sent
            if due < len(self.links):
                time.sleep(0.005)
                continue
            # After a pause of this process it goes on at its pace: nobody is to be flooded.
            each = min(due // len(self.links), 1 + self.rate // len(self.links) // 4)
            sent = int((time.monotonic() - began) * self.rate) - due % len(self.links)
            for at, link in enumerate(self.links):
                count = max(min(each, self.heard[self.names[at]] + AHEAD - self.sent[at]), 0)
                lines = "".join(f"{n}\n" for n in range(self.sent[at], self.sent[at] + count))
                cut = turn % max(len(lines), 1)
                try:
                    # Cut anywhere: half a line is in the buffer when a codec is replaced.
                    link.sendall(lines[:cut].encode())
                    link.sendall(lines[cut:].encode())
                    self.sent[at] += count
                except OSError as error:
                    self.lost.append((self.names[at], error))
                    return
            turn += 7

    def stop(self):
        """How many each has sent. Fails if a connection was ended."""
        self.is_over = True
        self.join()
        readable, _, _ = select.select(self.links, [], [], 0)
        assert not readable and not self.lost, f"connections ended: {self.lost} {readable}"
        return dict(zip(self.names, self.sent))

    def close(self):
        for link in self.links:
            link.close()


class Numbers:
    """What came of the numbered lines: device by device, in order, each once."""

    def __init__(self):
        self.next = collections.Counter()
        self.versions, self.wrong = collections.defaultdict(list), []

    def hear(self, topic, payload, _):
        device, value = topic.split("/")[1], json.loads(payload)
        if value["n"] != self.next[device]:
            self.wrong.append(f"{device}: {value['n']} came, and not {self.next[device]}")
        if value["first"] != value["last"]:
            self.wrong.append(f"{device}: half of version {value['first']} and half of {value['last']}")
        self.next[device] = value["n"] + 1
        if not self.versions[device] or self.versions[device][-1] != value["first"]:
            self.versions[device].append(value["first"])


def ask(server, **request):
    """A request over the admin socket: its items, or the error as text."""
    with socket.socket(socket.AF_UNIX) as admin:
        admin.settimeout(30)
        admin.connect(str(server.folder / "data/admin.sock"))
        admin.sendall(json.dumps(request).encode() + b"\n")
        items = []
        for line in admin.makefile():
            answer = json.loads(line)
            if "error" in answer:
                return answer["error"]
            if "done" in answer:
                return items
            items.append(answer["item"])
    raise AssertionError("no answer")


def workers(server):
    """Process ids of the server's workers."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
            command = (entry.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == server.process.pid and b"script-worker" in command:
            found.append(int(entry.parent.name))
    return found
