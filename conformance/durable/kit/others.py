"""Clients with one habit each: to look at retained messages, change a subscription, let a session expire, leave a will."""

import asyncio
import math
import time

import packets
from durable.kit import wire
from durable.kit.ledger import SLACK
from durable.kit.session import Session, Subscriber


class Watcher(Session):
    """Subscribes anew all the time and compares the retained messages it gets."""

    def __init__(self, world, name, version, topic_filter):
        super().__init__(world, name, version, expiry=0)
        self.topic_filter, self.found, self.answered = topic_filter, {}, False

    async def run(self):
        """Looks until the world ends."""
        while not self.world.ended:
            self.part()
            await asyncio.sleep(self.random.uniform(0.02, 0.2))
            await self.look()
        self.part()

    async def look(self):
        """One look."""
        least = {topic: values.least for topic, values in self.world.ledger.retained.items()}
        self.found, self.answered = {}, False
        if not await self.join():
            return
        self.link.send(wire.subscribe([(self.topic_filter, 1)], 1, self.version) + packets.packet(packets.PINGREQ))
        while self.alive() and not self.answered:
            await asyncio.sleep(0.005)
        if self.answered:
            self.world.ledger.check_retained(self.found, least)

    def take(self, kind, flags, body):
        if kind == packets.PUBLISH:
            got = wire.read_publish(flags, body, self.version)
            if got.retain:
                self.found[got.topic] = got.payload
            self.link.send(wire.answer(packets.PUBACK, got.packet_id))
        elif kind == packets.PINGRESP:
            self.answered = True


class Changer(Subscriber):
    """Subscribes and unsubscribes in turns; what was published between two acknowledgements came, or did not."""

    def __init__(self, world, name, version, topic_filter, qos):
        super().__init__(world, name, version, [(topic_filter, qos)], "cutter")
        # Times: SUBACK, UNSUBSCRIBE, UNSUBACK, and the next SUBSCRIBE.
        self.rounds, self.wanted = [], None

    async def run(self):
        """Changes its mind until the drain begins."""
        changes = asyncio.create_task(self._change())
        await super().run()
        await changes

    async def _change(self):
        while not self.world.draining:
            await self.world.nap(self.random.uniform(0.3, 2))
            if self.wanted is None and self.alive() and self.joined.done() and not self.world.draining:
                self.rounds[-1].append(time.monotonic())
                self.wanted = not self.subscribed
                self._ask()

    def _ask(self):
        if self.wanted:
            self.link.send(wire.subscribe(self.filters, 1, self.version))
        else:
            self.link.send(wire.unsubscribe([f for f, _ in self.filters], 1, self.version))

    def resume(self, present):
        if self.wanted is not None:
            self.online_since = time.monotonic()
            self._ask()
        elif self.rounds:
            self.online_since = time.monotonic()
        else:
            super().resume(present)

    def take(self, kind, flags, body):
        if kind == packets.UNSUBACK:
            self.subscribed, self.wanted = False, None
            self.rounds[-1].append(time.monotonic())
        else:
            super().take(kind, flags, body)
            if kind == packets.SUBACK:
                self.wanted = None
                self.rounds.append([time.monotonic()])

    def check(self):
        """Compares at the end."""
        ledger = self.world.ledger
        counts = ledger.arrivals[self.name]
        for key, message in ledger.messages.items():
            if message.topic != self.filters[0][0] or not message.acknowledged:
                continue
            for times in self.rounds:
                suback, unsubscribe, unsuback, subscribe = times + [math.inf] * (4 - len(times))
                if message.first_sent > suback and message.acknowledged < unsubscribe and not counts[key]:
                    ledger.lost(self.name, message)
                if message.first_sent > unsuback and message.acknowledged < subscribe and counts[key]:
                    self.world.wrong(f"{self.name} got {message} while it was not subscribed")
        ledger.figures["subscriptions changed"] += sum(len(times) // 2 for times in self.rounds)


class Brief(Session):
    """Its session outlives the connection by two seconds, and not by more."""

    EXPIRY = 2

    def __init__(self, world, name):
        super().__init__(world, name, 5, expiry=self.EXPIRY)
        # When it was surely connected for the last time, and when it surely was no more.
        self.alive_at = self.left_at = 0.0

    async def run(self):
        """Comes back soon or late."""
        while not self.world.draining:
            if await self.join():
                end = time.monotonic() + self.random.uniform(0.05, 0.5)
                while self.alive() and time.monotonic() < end:
                    self.alive_at = time.monotonic()
                    await asyncio.sleep(0.01)
                if self.alive() and self.random.random() < 0.5:
                    await self.leave()
                self.part()
                self.left_at = time.monotonic()
                away = (0.1, 1) if self.random.random() < 0.6 else (3.2, 6)
                await self.world.nap(self.random.uniform(*away))

    async def join(self):
        joined = await super().join()
        if not joined and self.link_was_made:
            # Its CONNECT may have made or resumed a session all the same.
            self.known = None
        return joined

    def check_present(self, present):
        if self.known is not True:
            return
        now = time.monotonic()
        # A server that was killed meanwhile may not have seen the end and count from its start.
        since = max([self.left_at, *[up for up in self.world.ups if up > self.left_at][:1]])
        if not present and now - self.alive_at < self.EXPIRY:
            self.world.wrong(f"{self.name}: its session is gone after {now - self.alive_at:.2f} of {self.EXPIRY} s")
        if present and self.began - since > self.EXPIRY + SLACK:
            self.world.wrong(f"{self.name}: its session is there {self.began - self.left_at:.2f} s after its end, "
                             f"{self.began - since:.2f} s after the start that followed")
        self.world.ledger.figures["short sessions kept" if present else "short sessions gone"] += 1


class Testator(Session):
    """Leaves a will with a delay, by cuts and by the server's own end, and comes back before or after its time."""

    qos, retain, message_expiry, delay = 2, False, None, 1

    def __init__(self, world, name, topic):
        super().__init__(world, name, 5)
        self.topic, self.number, self.message = topic, 0, None

    async def run(self):
        """Dies until the world drains, and once more then."""
        last = False
        while not last:
            last = self.world.draining
            left = time.monotonic()
            if not await self._live():
                # The will of a CONNECT without CONNACK may count; its time begins then at the earliest.
                self.message.first_sent, self.message.last_sent = left, time.monotonic()
                continue
            soon = self.random.random() < 0.4 and not last
            if soon:
                await self.world.nap(self.random.uniform(0, 0.4))
            else:
                await self._stay_away()

    async def _live(self):
        before = self.message
        self.number += 1
        self.message = self.world.ledger.sent(self, self.topic, self.number, f"{self.name} {self.number} ".encode())
        # Until the connection ends no time is right.
        self.message.first_sent = math.inf
        self.will = wire.Will(self.topic, self.message.payload, self.qos, self.delay)
        if not await self.join():
            return False
        now = time.monotonic()
        if before and now < before.first_sent + self.delay:
            # Who is back in time has no will published (MQTT 5.0, 3.1.3.2.2).
            before.first_sent = math.inf
            self.world.ledger.figures["wills withdrawn"] += 1
        end = now + self.random.uniform(0.05, 0.5)
        while self.alive() and time.monotonic() < end:
            now = time.monotonic()
            await asyncio.sleep(0.01)
        self.message.first_sent = now
        self.part()
        self.message.last_sent = time.monotonic()
        return True

    async def _stay_away(self):
        """Until the will is due for sure; then it counts as acknowledged."""
        while True:
            started = [up for up in self.world.ups if up > self.message.last_sent][:1]
            since = max([self.message.last_sent, *started])
            if self.world.is_up() and time.monotonic() > since + self.delay + SLACK:
                break
            await asyncio.sleep(0.05)
        self.message.acknowledged = time.monotonic()
        self.world.ledger.figures["wills due"] += 1
