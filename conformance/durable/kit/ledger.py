"""What was published, acknowledged and delivered, and what of it must never be."""

import collections
import dataclasses
import time

from durable.kit import wire

# How much later than its expiry a message may come, and a delayed one than its time, on a busy machine.
SLACK = 1.0
LATE = 4.0
# A busy gateway reads its clock once for all that came meanwhile.
EARLY = 0.25


@dataclasses.dataclass
class Message:
    """One publication, of a client that keeps to the standard."""

    publisher: object
    topic: str
    number: int
    payload: bytes
    first_sent: float
    last_sent: float
    packet_id: int = 0
    # QoS 2: PUBREC came; and its PUBREL is held back.
    received: bool = False
    held: bool = False
    acknowledged: float = 0.0

    def __str__(self):
        return f"{self.publisher.name} {self.topic} {self.number}"


class Values:
    """What the retained message of one topic, which has one publisher with one message in flight, may be."""

    def __init__(self):
        self.payloads = [b""]
        self.least = 0


class Ledger:
    """Kept by all clients of a world; `world.wrong` takes what is not as it should be."""

    def __init__(self, world):
        self.world = world
        self.messages = {}
        self.retained = collections.defaultdict(Values)
        # Arrivals: by subscriber, how often each message came, and the last number that came first of a stream.
        self.arrivals = collections.defaultdict(collections.Counter)
        self.last_first = collections.defaultdict(int)
        self.pairs = {}
        self.figures = collections.Counter()
        self.refusals = set()

    def sent(self, publisher, topic, number, payload):
        """A message that is about to be published for the first time."""
        now = time.monotonic()
        message = Message(publisher, topic, number, payload, now, now)
        self.messages[publisher.name, topic, number] = message
        if publisher.retain:
            self.retained[topic].payloads.append(payload)
        self.figures["sent"] += 1
        return message

    def acknowledged(self, message):
        """PUBACK or PUBCOMP came: from now on the server answers for it."""
        message.acknowledged = time.monotonic()
        self.figures["acknowledged"] += 1
        if message.publisher.retain:
            values = self.retained[message.topic]
            values.least = max(values.least, message.number)

    def refused(self, message):
        """The server does not take it. Of QoS 1 it may have been taken all the same when it was sent before."""
        self.refusals.add((message.publisher.name, message.topic, message.number))
        self.figures["refused"] += 1

    def arrived(self, subscriber, got):
        """A PUBLISH that is not the repetition of one which the receiver still knows."""
        now = time.monotonic()
        self.figures["delivered"] += 1
        if got.payload == b"":
            return
        publisher, number, _ = got.payload.split(b" ", 2)
        key = publisher.decode(), got.topic, int(number)
        message = self.messages.get(key)
        if message is None or message.payload != got.payload:
            self.world.wrong(f"{subscriber.name}: nobody published {got.topic} {got.payload[:60]!r}")
            return
        if got.qos != min(message.publisher.qos, subscriber.filters[0][1]):
            self.world.wrong(f"{subscriber.name}: {message} came with QoS {got.qos}")
        counts = self.arrivals[subscriber.name]
        counts[key] += 1
        if counts[key] > 1:
            self._again(subscriber, message, got)
        else:
            self._first(subscriber, message, got, now)

    def _again(self, subscriber, message, got):
        if got.qos == 2:
            self.world.wrong(f"{subscriber.name}: QoS 2 message {message} came twice "
                             f"(id {got.packet_id}, DUP {got.dup:d})")
        self.figures["QoS 1 again"] += 1

    def _first(self, subscriber, message, got, now):
        if message.publisher.delay:
            self._delayed(subscriber, message, now)
        elif not subscriber.filters[0][0].startswith("$share/"):
            # A message that a publisher repeats may go to another member than the first time, out of order there.
            stream = subscriber.name, message.publisher.name, message.topic
            if message.number < self.last_first[stream]:
                self.world.wrong(f"{subscriber.name}: {message} came after number {self.last_first[stream]}")
            self.last_first[stream] = message.number
        elif got.qos == 2:
            key = message.publisher.name, message.topic, message.number
            other = self.pairs.setdefault(key, subscriber.name)
            if other != subscriber.name:
                self.world.wrong(f"{message} came to {other} and to {subscriber.name} of one shared subscription")
        if message.publisher.message_expiry is not None:
            self._expiring(subscriber, message, got, now)

    def _delayed(self, subscriber, message, now):
        due = message.publisher.delay
        early = message.first_sent + due - now
        if early > EARLY:
            self.world.wrong(f"{subscriber.name}: {message} came {early:.2f} s before its time")
        late = now - max(message.last_sent + due, subscriber.online_since, self.world.up_since)
        if late > LATE:
            self.world.wrong(f"{subscriber.name}: {message} came {late:.1f} s after its time")
        self.figures["delayed"] += 1

    def _expiring(self, subscriber, message, got, now):
        """Whoever got a message before may get it again at any time; it has been on its way since (3.3.2.3.3)."""
        if got.dup:
            return
        age, expiry = now - message.last_sent, message.publisher.message_expiry
        if age > expiry + SLACK:
            self.world.wrong(f"{subscriber.name}: {message} came {age:.2f} s after it was sent, "
                             f"it expires in {expiry} s")
        left = got.properties.get(wire.MESSAGE_EXPIRY)
        if subscriber.version == 5 and (left is None or left > expiry or left + age > expiry + SLACK + 1):
            self.world.wrong(f"{subscriber.name}: {message} is {age:.2f} s old and has {left} of {expiry} s left")
        self.figures["expiring"] += 1

    def check_retained(self, found, least):
        """Retained messages as a new subscriber got them. `least` are the numbers acknowledged when it asked."""
        for topic, values in self.retained.items():
            if found.get(topic, b"") not in values.payloads[least.get(topic, 0):]:
                self.world.wrong(f"retained {topic} is {found.get(topic, b'')[:40]!r}, number {least.get(topic, 0)} of "
                                 f"{len(values.payloads) - 1} was acknowledged")
        if unknown := set(found) - set(self.retained):
            self.world.wrong(f"retained messages that nobody published: {unknown}")
        self.figures["retained seen"] += len(found)

    def check_complete(self, subscribers, groups):
        """At the end: everything acknowledged came to everybody whom it matches, and once to each group."""
        for key, message in self.messages.items():
            if not message.acknowledged or message.payload == b"":
                continue
            if message.publisher.message_expiry is not None and message.publisher.message_expiry < 60:
                self.figures["expired"] += not any(self.arrivals[s.name][key] for s in subscribers)
                continue
            for subscriber in subscribers:
                is_his = any(matches(f, message.topic) for f, _ in subscriber.filters)
                if is_his and not self.arrivals[subscriber.name][key]:
                    self.lost(subscriber.name, message)
            for members in groups:
                topic_filter = members[0].filters[0][0].split("/", 2)[2]
                has_come = any(self.arrivals[member.name][key] for member in members)
                if matches(topic_filter, message.topic) and not has_come:
                    self.lost("a shared subscription", message)

    def lost(self, subscriber, message):
        """An acknowledged message that did not come."""
        self.figures["lost"] += 1
        self.world.wrong(f"{subscriber} never got {message}, sent at {self.world.at(message.last_sent)}, "
                         f"acknowledged at {self.world.at(message.acknowledged)}")


def matches(topic_filter, topic):
    """Whether a filter matches a topic (MQTT 5.0, 4.7)."""
    left, right = topic_filter.split("/"), topic.split("/")
    for index, level in enumerate(left):
        if level == "#":
            return True
        if index >= len(right) or level not in ("+", right[index]):
            return False
    return len(left) == len(right)
