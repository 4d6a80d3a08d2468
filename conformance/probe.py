"""A publisher and a subscriber that behave, and how long a message takes between them while others do not."""

import threading
import time

import packets


# A measurement has at least so many messages.
FEW = 10


class Probe:
    """With it running, `times` are the seconds that its messages took."""

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

    def check(self, test, late, at_least=FEW):
        """All messages came, and nine of ten within `late` seconds: a gateway that serves somebody bad first is far above
        that. No bound is put on the worst but the ten seconds that a client here waits for anything: a machine with two
        cores that builds something beside it, or that has its host's attention elsewhere, may rest for a second."""
        if self.failure:
            raise AssertionError(f"the probe: {self.failure!r}") from self.failure
        test.assertGreaterEqual(len(self.times), at_least)
        times = sorted(self.times)
        test.assertLess(times[(len(times) - 1) * 9 // 10], late, f"{len(times)} messages, the worst {times[-5:]}")
