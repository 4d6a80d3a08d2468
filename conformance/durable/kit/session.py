"""A client's side of an MQTT session, which outlives its connections: ids, acknowledgements and half a QoS 2 handshake.

Everything a packet does is done at once, in the order in which packets come; tasks only connect, wait and decide to cut.
"""

import asyncio
import time

import packets
from durable.kit import wire

# The default of how long a session outlives its connection, in seconds.
LONG = 3600


class Link(asyncio.Protocol):
    """One connection. What it gets goes to `session`, until the link is left."""

    def __init__(self, session):
        self.session, self.splitter, self.transport = session, wire.Splitter(), None
        self.ended = asyncio.get_running_loop().create_future()
        # Acknowledgements that are held back, in order.
        self.held = []

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, exc):
        if not self.ended.done():
            self.ended.set_result(exc)

    def data_received(self, data):
        for kind, flags, body in self.splitter.feed(data):
            if self.session is None:
                return
            self.session.packet(kind, flags, body)

    def send(self, data):
        """Writes, if there is still somebody to write to."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def acknowledge(self, data, hold):
        """Writes at once or in `hold` seconds, and never before what was to be written earlier."""
        if hold and not self.held:
            asyncio.get_running_loop().call_later(hold, self._let_go)
        if hold or self.held:
            self.held.append(data)
        else:
            self.send(data)

    def _let_go(self):
        self.send(b"".join(self.held))
        self.held.clear()

    def leave(self):
        """Takes no more from it; it stays open until somebody closes it."""
        self.session = None
        self.held.clear()

    def cut(self):
        """Ends without a word."""
        self.leave()
        self.transport.abort()


class Session:
    """The part that publishers and subscribers share: connecting, and what CONNACK says of the session."""

    def __init__(self, world, name, version, *, expiry=LONG, properties=None):
        self.world, self.name, self.version, self.expiry = world, name, version, expiry
        self.random = world.fork(name)
        self.link, self.joined, self.link_was_made = None, None, False
        # Whether the server has the session: not, None while nobody knows, or surely, as a CONNACK said so.
        self.known = False
        self.properties = dict(properties or {})
        if version == 5 and expiry:
            self.properties[packets.SESSION_EXPIRY] = expiry
        self.will = None

    async def join(self):
        """Connects and takes the session up. Whether it came to that."""
        self.link_was_made = False
        loop = asyncio.get_running_loop()
        try:
            _, link = await loop.create_connection(lambda: Link(self), packets.HOST, self.world.port)
        except OSError:
            await asyncio.sleep(0.03)
            return False
        if self.link:
            # A takeover: the old connection is read no more, or a packet in it would be taken for one of the new.
            self.link.leave()
        old, self.link, self.joined = self.link, link, loop.create_future()
        self.link_was_made = True
        self.known = self.known or None
        self.began = time.monotonic()
        link.send(wire.connect(self.name, self.version, self.expiry == 0, self.properties, self.will))
        await asyncio.wait({self.joined, link.ended}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        if old:
            old.cut()
        if self.joined.done():
            return True
        if not link.ended.done():
            self.world.wrong(f"{self.name}: no CONNACK within 30 s")
        self.part()
        return False

    def part(self):
        """Cuts the connection, if there is one."""
        if self.link:
            self.link.cut()
        self.link = None

    async def leave(self):
        """DISCONNECT, until the server has closed."""
        link, self.link = self.link, None
        link.leave()
        link.send(packets.packet(packets.DISCONNECT))
        await asyncio.wait({link.ended}, timeout=10)
        link.cut()

    def alive(self):
        """Whether there is a connection to the server."""
        return self.link is not None and not self.link.ended.done()

    def packet(self, kind, flags, body):
        """What came, by its kind."""
        if kind == packets.CONNACK:
            self.connack(bool(body[0] & 1), body[1])
        elif kind == packets.DISCONNECT:
            pass
        elif self.joined and self.joined.done():
            self.take(kind, flags, body)
        else:
            self.world.wrong(f"{self.name}: packet {kind} before CONNACK")

    def connack(self, present, code):
        """The session is there, or new."""
        if code:
            self.world.wrong(f"{self.name}: CONNACK with {code:#x}")
            return
        self.check_present(present)
        self.known = self.expiry != 0
        self.joined.set_result(None)
        self.resume(present)

    def check_present(self, present):
        """Session present is 1 once a CONNACK came (MQTT-3.2.2-2), and 0 before."""
        if self.known is not None and present != self.known:
            self.world.wrong(f"{self.name}: session present is {present:d} and should be {self.known:d}")

    def resume(self, present):
        """Sends again what the session holds unacknowledged."""

    def take(self, kind, flags, body):
        """A packet on a connection that is accepted."""
        raise NotImplementedError


class Publisher(Session):
    """Publishes numbers to its topics, all of one QoS, as many in flight as its window lets it.

    It resends after a reconnection in the order of before with DUP, and holds a PUBREL back now and then. `clear` makes
    every n-th retained message an empty one.
    """

    def __init__(self, world, name, version, topics, qos, *, window=8, pace=0.01, message_expiry=None, retain=False,
                 clear=0, delay=0, **words):
        super().__init__(world, name, version, **words)
        self.topics, self.qos, self.window, self.pace = topics, qos, window, pace
        self.message_expiry, self.retain, self.clear, self.delay = message_expiry, retain, clear, delay
        self.numbers = dict.fromkeys(topics, 0)
        # By packet id, in the order in which they were sent first.
        self.inflight = {}

    async def run(self):
        """Publishes until the world wants no more and all of it is acknowledged."""
        while not self.done():
            if not await self.join():
                continue
            while self.alive() and not self.done():
                if not self.world.draining and len(self.inflight) < self.window:
                    self.publish()
                if self.random.random() < self.world.cuts and not self.world.draining:
                    self.part()
                await asyncio.sleep(self.pace * self.random.uniform(0.2, 1.8))
                self.release()
            if self.done() and self.alive():
                await self.leave()
            self.part()

    def done(self):
        """Whether nothing is left to do."""
        return self.world.draining and not self.inflight

    def publish(self):
        """The next number of one of the topics."""
        topic = self.random.choice(self.topics)
        self.numbers[topic] += 1
        number = self.numbers[topic]
        padding = self.random.choice((0, 10, 100, 1000)) if self.random.random() < 0.95 else 20_000
        payload = f"{self.name} {number} ".encode() + b"%x" % (number % 16) * padding
        if self.clear and number % self.clear == 0:
            payload = b""
        message = self.world.ledger.sent(self, topic, number, payload)
        message.packet_id = next(i for i in range(1, 65536) if i not in self.inflight)
        self.inflight[message.packet_id] = message
        self._send(message, False)

    def _send(self, message, dup):
        properties = {} if self.message_expiry is None else {wire.MESSAGE_EXPIRY: self.message_expiry}
        topic = f"$delayed/{self.delay}/{message.topic}" if self.delay else message.topic
        message.last_sent = time.monotonic()
        self.link.send(wire.publish(wire.Publication(topic, message.payload, self.qos, dup, self.retain,
                                                     message.packet_id, properties), self.version))

    def resume(self, present):
        """A session that is not kept forgets; what it had sent may have come or not."""
        if self.expiry == 0:
            self.inflight.clear()
            return
        for message in self.inflight.values():
            if message.received:
                self.link.send(wire.answer(packets.PUBREL, message.packet_id))
                message.held = False
            else:
                self._send(message, True)

    def release(self):
        """Sends the PUBRELs that were held back, now and then."""
        if not self.alive() or self.random.random() < 0.5 and not self.world.draining:
            return
        for message in self.inflight.values():
            if message.held:
                message.held = False
                self.link.send(wire.answer(packets.PUBREL, message.packet_id))

    def take(self, kind, flags, body):
        packet_id, code = wire.read_answer(body)
        message = self.inflight.get(packet_id)
        if message is None:
            # The answer to a packet that was sent twice.
            return
        if code >= 0x80 and not (kind == packets.PUBCOMP and code == 0x92):
            self.world.refused(message, code)
            del self.inflight[packet_id]
        elif kind == packets.PUBREC and self.qos == 2:
            message.received = True
            message.held = self.random.random() < 0.2
            if not message.held:
                self.link.send(wire.answer(packets.PUBREL, packet_id))
        elif kind == (packets.PUBACK if self.qos == 1 else packets.PUBCOMP):
            if self.qos == 2 and not message.received:
                self.world.wrong(f"{self.name}: PUBCOMP {packet_id} without PUBREC")
            del self.inflight[packet_id]
            self.world.ledger.acknowledged(message)
        else:
            self.world.wrong(f"{self.name}: packet {kind} for QoS {self.qos}")


class Subscriber(Session):
    """Subscribes once and takes what comes, for as long as its presence lets it be there.

    Presence: "steady" is there whenever the server is, "sleeper" is away for several lives of the server, "cutter" cuts
    at any packet, "taker" is taken over by another connection of its own.
    """

    def __init__(self, world, name, version, filters, presence="steady", **words):
        super().__init__(world, name, version, **words)
        self.filters, self.presence = filters, presence
        self.subscribed = False
        # Ids between PUBLISH and PUBREL, and what they are (MQTT 5.0, 4.3.3).
        self.received = {}
        self.online_since = None

    async def subscribe(self):
        """Connects and subscribes for the first time."""
        while not self.subscribed:
            if not await self.join():
                continue
            while self.alive() and not self.subscribed:
                await asyncio.sleep(0.005)

    async def run(self):
        """Comes and goes until the world is at its end."""
        while not self.world.ended:
            if self.presence == "sleeper" and not self.world.draining:
                self.part()
                await self.world.nap(self.random.uniform(1, 7))
            if not self.alive() and not await self.join():
                continue
            end = time.monotonic() + self.random.uniform(0.2, 3)
            while self.alive() and not self.world.ended:
                await asyncio.sleep(0.02)
                if time.monotonic() > end and not self.world.draining and self.presence != "steady":
                    break
            if self.alive() and self.presence == "taker" and not self.world.ended:
                await self.join()
            elif not self.alive():
                self.part()
        if self.alive():
            await self.leave()
        self.part()

    def part(self):
        super().part()
        self.online_since = None

    def resume(self, present):
        self.online_since = time.monotonic()
        if not present:
            self.received.clear()
        if not self.subscribed:
            self.link.send(wire.subscribe(self.filters, 1, self.version))

    def take(self, kind, flags, body):
        if kind == packets.PUBLISH:
            self._publish(wire.read_publish(flags, body, self.version))
        elif kind == packets.PUBREL:
            packet_id, _ = wire.read_answer(body)
            self.received.pop(packet_id, None)
            self._answer(packets.PUBCOMP, packet_id)
        elif kind == packets.SUBACK:
            granted = list(body[-len(self.filters):])
            if granted != [qos for _, qos in self.filters]:
                self.world.wrong(f"{self.name}: SUBACK grants {granted}")
            self.subscribed = True
        else:
            self.world.wrong(f"{self.name}: packet {kind} at a subscriber")

    def _publish(self, got):
        if got.qos == 2 and got.packet_id in self.received:
            before = self.received[got.packet_id]
            if (before.topic, before.payload) != (got.topic, got.payload):
                self.world.wrong(f"{self.name}: id {got.packet_id} is another message before its PUBREL: "
                                 f"{before.payload[:40]!r}, then {got.payload[:40]!r}")
            if not got.dup:
                self.world.wrong(f"{self.name}: {got.payload[:40]!r} came again without DUP (MQTT-3.3.1-1)")
        else:
            if got.qos == 2:
                self.received[got.packet_id] = got
            self.world.ledger.arrived(self, got)
        if got.qos:
            self._answer(packets.PUBACK if got.qos == 1 else packets.PUBREC, got.packet_id)

    def _answer(self, kind, packet_id):
        """Answers, later now and then, or cuts in place of it."""
        if self.presence in ("cutter", "taker") and not self.world.draining and self.random.random() < self.world.cuts:
            self.part()
            return
        hold = self.random.uniform(0.005, 0.1) if self.random.random() < 0.05 else 0
        self.link.acknowledge(wire.answer(kind, packet_id), hold)
