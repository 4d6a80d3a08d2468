"""Clients whose state can be turned back to any earlier position of the shim's log, as if they had lost power with the gateway.

What a client does is a list of events, each with how long the log was: read after something was received and before
something is sent. So the log up to a position, and the events up to the same, are a state that all of them could have been
in together. `state.at(position)` is that of the client.
"""

import collections
import copy
import threading
import time

import packets
from durable.kit import wire

EXPIRY = 3600
REFUSED = 0x97


class State:
    """What a client knows, and how it came to that."""

    def __init__(self):
        self.known, self.events, self.origin = False, [], None

    def note(self, position, *event):
        """Something that has happened."""
        self.events.append((position, event))
        self.apply(*event)

    def apply(self, what, *words):
        """The consequence of an event."""
        getattr(self, what)(*words)

    def joined(self):
        """CONNACK came, and what had to be subscribed is."""
        self.known = True

    def at(self, position):
        """What it was. The past of the copy begins there."""
        past = copy.deepcopy(self.origin)
        for when, event in self.events:
            if when > position:
                break
            past.apply(*event)
        past.begin()
        return past

    def begin(self):
        """The present is what later ones may be turned back to."""
        self.events, self.origin = [], None
        self.origin = copy.deepcopy(self)


class Publishing(State):
    """Messages by packet id, in the order in which they were sent: number, and whether PUBREC came."""

    def __init__(self):
        super().__init__()
        self.next, self.inflight, self.acknowledged, self.refused, self.repeated = 1, {}, set(), set(), set()
        self.begin()

    def send(self, packet_id):
        """A new message."""
        self.inflight[packet_id] = [self.next, False]
        self.next += 1

    def repeat(self, packet_id):
        """A message again, with DUP. It may have been refused, and others taken since."""
        self.repeated.add(self.inflight[packet_id][0])

    def received(self, packet_id):
        """PUBREC."""
        self.inflight[packet_id][1] = True

    def done(self, packet_id):
        """PUBACK or PUBCOMP."""
        self.acknowledged.add(self.inflight.pop(packet_id)[0])

    def refuse(self, packet_id):
        """PUBACK or PUBREC with an error."""
        self.refused.add(self.inflight.pop(packet_id)[0])


class Subscribing(State):
    """Ids between PUBLISH and PUBREL, and all that came: number by publisher, in order."""

    def __init__(self):
        super().__init__()
        self.ids, self.came = {}, collections.defaultdict(list)
        self.begin()

    def publish(self, qos, packet_id, publisher, number):
        """PUBLISH."""
        if qos == 2 and packet_id in self.ids:
            assert self.ids[packet_id] == (publisher, number), \
                f"id {packet_id} was {self.ids[packet_id]} and is {publisher, number} before its PUBREL"
            return
        if qos == 2:
            self.ids[packet_id] = publisher, number
        self.came[publisher].append(number)

    def released(self, packet_id):
        """PUBREL."""
        self.ids.pop(packet_id, None)


class Client(threading.Thread):
    """Connects whenever there is no connection, until it is stopped. Session present must be what it knows."""

    def __init__(self, world, name, version, state):
        super().__init__(daemon=True)
        self.world, self.name, self.version, self.state = world, name, version, state
        self.connection, self.stopping, self.wrong, self.joins = None, False, None, 0

    def run(self):
        try:
            while not self.stopping:
                try:
                    self._live()
                except (packets.Closed, OSError):
                    time.sleep(0.02)
        except BaseException as error:  # Told by the world's thread in `check`.
            self.wrong = error
        finally:
            self._drop()

    def note(self, *event):
        """Something has happened now."""
        self.state.note(self.world.server.shim.position(), *event)

    def check(self):
        """Raises what went wrong here."""
        if self.wrong:
            raise AssertionError(f"{self.name}: {self.wrong!r}") from self.wrong

    def _live(self):
        self._drop()
        self.connection = packets.Client(self.world.server.port("tcp"), self.version)
        words = {"props": {packets.SESSION_EXPIRY: EXPIRY}} if self.version == 5 else {}
        self.connection.send(packets.connect(self.name, self.version, clean=False, **words))
        body = self.connection.expect(packets.CONNACK)
        if body[1] in (0x03, 0x88, REFUSED):
            # Not for now: a session that is not on the disk cannot begin while nothing can be written.
            raise packets.Closed
        assert body[1] == 0, f"CONNACK with {body[1]:#x}"
        assert body[0] == 1 or not self.state.known, "its session is gone"
        self.begin(body[0] == 1)
        self.joins += 1
        while not self.stopping:
            self.step()

    def begin(self, present):
        """Has connected."""
        raise NotImplementedError

    def step(self):
        """One thing to do, or to wait for a little while."""
        raise NotImplementedError

    def next_packet(self, seconds):
        """What comes within that time, or None."""
        self.connection.socket.settimeout(seconds)
        try:
            return self.connection.receive()
        except TimeoutError:
            return None
        finally:
            self.connection.socket.settimeout(10)

    def _drop(self):
        if self.connection:
            self.connection.socket.close()
        self.connection = None


class Publisher(Client):
    """Publishes numbers to one topic; with `finish` only what is not yet acknowledged."""

    def __init__(self, world, name, version, qos, topic, state, *, window=10, size=40, retain=False, pace=0.001,
                 finish=False):
        super().__init__(world, name, version, state)
        self.qos, self.topic, self.window, self.size, self.retain = qos, topic, window, size, retain
        self.pace, self.finish = pace, finish

    def begin(self, present):
        self.note("joined")
        for packet_id, (number, is_received) in list(self.state.inflight.items()):
            if is_received:
                self.connection.send(wire.answer(packets.PUBREL, packet_id))
            else:
                self.note("repeat", packet_id)
                self._send(packet_id, number, True)

    def step(self):
        if not self.finish and len(self.state.inflight) < self.window:
            packet_id = next(i for i in range(1, 65536) if i not in self.state.inflight)
            number = self.state.next
            self.note("send", packet_id)
            self._send(packet_id, number, False)
            found = self.next_packet(self.pace)
        else:
            found = self.next_packet(0.05)
        if found:
            self._take(*found)

    def _send(self, packet_id, number, dup):
        payload = f"{self.name} {number} ".encode().ljust(self.size, b".")
        self.connection.send(wire.publish(
            wire.Publication(self.topic, payload, self.qos, dup, self.retain, packet_id, {}), self.version))

    def _take(self, kind, _, body):
        if kind == packets.DISCONNECT:
            raise packets.Closed
        packet_id, code = wire.read_answer(body)
        if packet_id not in self.state.inflight:
            return
        is_received = self.state.inflight[packet_id][1]
        if code >= 0x80 and not (kind == packets.PUBCOMP and code == 0x92):
            assert self.version == 5 and code == REFUSED and not is_received, f"packet {kind} says {code:#x}"
            self.note("refuse", packet_id)
            time.sleep(0.02)
        elif kind == packets.PUBREC and self.qos == 2:
            if not is_received:
                self.note("received", packet_id)
            self.connection.send(wire.answer(packets.PUBREL, packet_id))
        else:
            assert kind == (packets.PUBACK if self.qos == 1 else packets.PUBCOMP), f"packet {kind}"
            assert self.qos == 1 or is_received, "PUBCOMP before PUBREC"
            self.note("done", packet_id)


class Subscriber(Client):
    """Takes what comes. What it says of a message is said only to a gateway that lives."""

    def __init__(self, world, name, version, qos, topic_filter, state):
        super().__init__(world, name, version, state)
        self.qos, self.topic_filter = qos, topic_filter
        self.last = time.monotonic()

    def begin(self, present):
        if not present:
            self.state.ids.clear()
        if not self.state.known:
            self.connection.send(wire.subscribe([(self.topic_filter, self.qos)], 1, self.version))
        else:
            self.note("joined")

    def step(self):
        found = self.next_packet(0.05)
        if not found:
            return
        self.last = time.monotonic()
        kind, flags, body = found
        if kind == packets.SUBACK:
            if body[-1] >= 0x80:
                raise packets.Closed
            self.note("joined")
        elif kind == packets.DISCONNECT:
            raise packets.Closed
        elif kind == packets.PUBLISH:
            got = wire.read_publish(flags, body, self.version)
            publisher, number, _ = got.payload.split(b" ", 2)
            self.note("publish", got.qos, got.packet_id, publisher.decode(), int(number))
            self.connection.send(wire.answer(packets.PUBACK if got.qos == 1 else packets.PUBREC, got.packet_id))
        elif kind == packets.PUBREL:
            packet_id, _ = wire.read_answer(body)
            self.note("released", packet_id)
            self.connection.send(wire.answer(packets.PUBCOMP, packet_id))


class Company:
    """Publishers of both QoS and versions, and durable subscribers: one away, which subscribes only at first, others there."""

    PUBLISHERS = {"pub-1": (4, 1), "pub-2": (5, 2), "pub-3": (5, 1), "pub-4": (4, 2)}
    SUBSCRIBERS = {"away-2": (5, 2), "there-2": (4, 2), "there-1": (5, 1)}

    def __init__(self, server, states=None, **words):
        self.server = server
        self.states = states or ({name: Publishing() for name in self.PUBLISHERS}
                                 | {name: Subscribing() for name in self.SUBSCRIBERS})
        self.clients, self.words = {}, words

    def at(self, server, position):
        """The same people at an earlier time, with another gateway."""
        return Company(server, {name: state.at(position) for name, state in self.states.items()}, **self.words)

    def begin(self):
        """What is true now is where a new life of the gateway begins."""
        for state in self.states.values():
            state.begin()

    def come(self, *names):
        """They begin, unless they are here."""
        for name in names:
            if name in self.clients:
                continue
            version, qos = (self.PUBLISHERS | self.SUBSCRIBERS)[name]
            if name in self.PUBLISHERS:
                client = Publisher(self, name, version, qos, f"p/{name}", self.states[name], **self.words)
            else:
                client = Subscriber(self, name, version, qos, "p/#", self.states[name])
            self.clients[name] = client
            client.start()

    def go(self, *names):
        """They stop."""
        clients = [self.clients.pop(name) for name in names or list(self.clients) if name in self.clients]
        for client in clients:
            client.stopping = True
        for client in clients:
            client.join(20)
            client.check()

    def subscribe(self):
        """All have subscribed, and the one that is away has gone."""
        self.come(*self.SUBSCRIBERS)
        self.wait(lambda: all(self.states[name].known for name in self.SUBSCRIBERS), "subscriptions")
        self.go("away-2")

    def wait(self, condition, what, seconds=20):
        """Until something is so; whoever fails meanwhile ends it."""
        end = time.monotonic() + seconds
        while not condition():
            for client in self.clients.values():
                client.check()
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
            time.sleep(0.01)

    def acknowledged(self):
        """How many messages by publisher."""
        return {name: len(self.states[name].acknowledged) for name in self.PUBLISHERS}

    def finish(self, is_refusing=False):
        """Publishers end what they have begun, everybody takes what there is, and all is compared."""
        for name in self.PUBLISHERS:
            if name in self.clients:
                self.clients[name].finish = True
        self.words["finish"] = True
        self.come(*self.PUBLISHERS, *self.SUBSCRIBERS)
        self.wait(lambda: not any(self.states[name].inflight for name in self.PUBLISHERS), "all is acknowledged")
        self._take_all()
        self.go()
        return self.compare(is_refusing)

    def _take_all(self):
        began = time.monotonic()
        while any(time.monotonic() - max(self.clients[name].last, began) < 0.4 for name in self.SUBSCRIBERS) \
                or (self.missing() and time.monotonic() - began < 15):
            self.wait(lambda: True, "nothing")
            time.sleep(0.02)

    def missing(self):
        """What somebody should have and has not."""
        return [f"{subscriber} has not got {publisher} {sorted(lost)[:10]} of {len(self.states[publisher].acknowledged)}"
                for subscriber in self.SUBSCRIBERS for publisher in self.PUBLISHERS
                if (lost := self.states[publisher].acknowledged - set(self.states[subscriber].came[publisher]))]

    def compare(self, is_refusing=False):
        """All that is not as it should be. What was sent again may be out of order if the gateway has refused something."""
        wrong = self.missing()
        for subscriber, (_, qos) in self.SUBSCRIBERS.items():
            for publisher, (_, published) in self.PUBLISHERS.items():
                came = self.states[subscriber].came[publisher]
                counts = collections.Counter(came)
                if min(qos, published) == 2 and (twice := [n for n, c in counts.items() if c > 1]):
                    wrong.append(f"{subscriber} got {publisher} {twice[:10]} more than once")
                again = self.states[publisher].repeated if is_refusing else ()
                firsts = [number for number in dict.fromkeys(came) if number not in again]
                if firsts != sorted(firsts):
                    at = next(i for i, (a, b) in enumerate(zip(firsts, firsts[1:])) if a > b)
                    wrong.append(f"{subscriber} got {publisher} out of order: {firsts[max(0, at - 2):at + 4]}")
        return wrong
