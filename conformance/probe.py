"""A publisher and a subscriber that behave, and how long a message takes between them while others do not."""

import threading
import time

import packets


# A measurement has at least so many messages.
FEW = 10


class Probe:
    """With it running, `worst` and `p99` tell the seconds that its messages took."""

    def __init__(self, server, listener="tcp"):
        self.subscriber, self.publisher = packets.Client(server.port(listener)), packets.Client(server.port(listener))
        self.times, self.failure = [], None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.subscriber.connect("probe-sub")
        self.publisher.connect("probe-pub")
        self.subscriber.subscribe("probe", qos=1)
        self.thread.start()
        return self

    def __exit__(self, *_):
        end = time.monotonic() + 15
        while len(self.times) < FEW and not self.failure and time.monotonic() < end:
            time.sleep(0.01)
        self.ended.set()
        self.thread.join(15)
        self.subscriber.socket.close()
        self.publisher.socket.close()

    def _run(self):
        try:
            number = 0
            while not self.ended.is_set():
                number += 1
                began = time.monotonic()
                self.publisher.send(packets.publish("probe", str(number).encode(), 1, number % 65535 + 1))
                _, payload, _ = self.subscriber.message()
                self.times.append(time.monotonic() - began)
                self.publisher.expect(packets.PUBACK)
                if payload != str(number).encode():
                    raise AssertionError(f"{payload} in place of {number}")
                time.sleep(0.005)
        except Exception as failure:  # told to the test's thread
            self.failure = failure

    def check(self, test, worst, at_least=FEW):
        """All messages came, none later than `worst` seconds. The bound leaves room for a machine with two cores that
        builds debug code and does the misbehaving as well; a gateway that waits for somebody bad is far above it."""
        if self.failure:
            raise AssertionError(f"the probe: {self.failure!r}") from self.failure
        test.assertGreaterEqual(len(self.times), at_least)
        test.assertLess(max(self.times), worst, f"the worst of {len(self.times)}")
