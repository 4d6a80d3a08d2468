"""One device's end of a line, step by step."""

import socket
import struct
import time

import harness
from tcp.kit import jt808, teltonika

PATIENCE = 5


class Peer:
    """A TCP connection; reading has an end."""

    def __init__(self, port):
        self.socket = socket.create_connection((harness.HOST, port), PATIENCE)
        self.came = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def say(self, frame):
        self.socket.sendall(frame)

    def more(self):
        """Some bytes; an assertion if none come in time or the line ends."""
        some = self.socket.recv(4096)
        assert some, "the line has ended"
        self.came += some

    def read(self, size):
        while len(self.came) < size:
            self.more()
        taken, self.came = self.came[:size], self.came[size:]
        return taken

    def is_closed(self, seconds=PATIENCE):
        """Whether the gateway ends the line in time, without another word."""
        self.socket.settimeout(seconds)
        try:
            return self.came == b"" and self.socket.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        finally:
            self.socket.settimeout(PATIENCE)

    def is_silent(self, seconds=0.5):
        """Whether nothing comes, and the line stays."""
        self.socket.settimeout(seconds)
        try:
            return self.came == b"" and self.socket.recv(1) is None
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)


class Terminal(Peer):
    """Of JT/T 808."""

    def __init__(self, port, phone, is_2019=False):
        super().__init__(port)
        self.speaker = jt808.Speaker(phone, is_2019)

    def next(self):
        """The next message of the platform."""
        frame = b""
        while not frame:
            while b"\x7e" not in self.came:
                self.more()
            frame, self.came = self.came.split(b"\x7e", 1)
        return jt808.Message.read(frame)

    def ask(self, message):
        """Says it, and returns the result of the general answer."""
        serial, frame = message
        self.say(frame)
        answer = self.next()
        assert answer.kind == jt808.GENERAL, answer
        to, _, result = struct.unpack(">HHB", answer.body)
        assert to == serial, answer
        return result

    def register(self):
        """The code that it is issued."""
        serial, frame = self.speaker.register()
        self.say(frame)
        answer = self.next()
        assert answer.kind == jt808.REGISTERED and answer.body[:3] == struct.pack(">HB", serial, jt808.DONE), answer
        return answer.body[3:]

    def log_in(self, code=None):
        """Registers if it has no code, and authenticates."""
        code = code or self.register()
        assert self.ask(self.speaker.authenticate(code)) == jt808.DONE
        return code


class Tracker(Peer):
    """Of Teltonika."""

    def __init__(self, port, imei):
        super().__init__(port)
        self.imei = imei

    def log_in(self):
        self.say(teltonika.login(self.imei))
        assert self.read(1) == b"\1"

    def ask(self, numbers, codec=teltonika.CODEC_8):
        """How many of the records the gateway says that it has."""
        self.say(teltonika.records(codec, numbers))
        return struct.unpack(">I", self.read(4))[0]

    def command(self):
        """The next command's text."""
        zero, length = struct.unpack(">II", self.read(8))
        data = self.read(length)
        assert zero == 0 and struct.unpack(">I", self.read(4))[0] == teltonika.crc16(data)
        return teltonika.command(data)


class Heard:
    """What came at MQTT, to be waited for."""

    def __init__(self):
        self.messages = []

    def __call__(self, device, kind, value, _message):
        self.messages.append((device, kind, value))

    def next(self, device, kind, seconds=PATIENCE):
        """The oldest of this device and kind, taken away."""
        end = time.monotonic() + seconds
        while True:
            for at, (who, what, value) in enumerate(self.messages):
                if (who, what) == (device, kind):
                    self.messages.pop(at)
                    return value
            assert time.monotonic() < end, f"no {kind} of {device} in {self.messages}"
            time.sleep(0.01)

    def nothing(self, device, kind, seconds=0.5):
        """Asserts that nothing of this device and kind comes."""
        time.sleep(seconds)
        found = [value for who, what, value in self.messages if (who, what) == (device, kind)]
        assert not found, found
