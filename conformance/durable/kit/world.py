"""A server that is killed again and again under a crowd of clients, and what has to be true all the time and at the end.

    with Gateway() as server:
        world = asyncio.run(World(server, seed).live(kills=50))
        print(world.summary()); assert not world.failures

`image` is called with the data folder while the server is dead: it may put in its place what a power failure would have
left there. `environment` of `Gateway` is for what the server is run under, such as LD_PRELOAD.
"""

import asyncio
import random
import time

import harness
from durable.kit import wire
from durable.kit.ledger import Ledger
from durable.kit.others import Brief, Changer, Testator, Watcher
from durable.kit.session import Publisher, Subscriber

# Failures after which it is clear that something is wrong.
ENOUGH = 20


class Gateway(harness.Tidegate):
    """Tidegate with the plain listener alone, which can be killed and started again on its data."""

    def __init__(self, overrides=None, environment=None):
        self.extra = environment or {}
        closed = {f"mqtt.listeners.{name}.enabled": False for name in ("ws", "login", "tls", "wss")}
        super().__init__(closed | {
            "node.sys_interval": "0 s",
            "router.max_queued": 1_000_000,
            "router.max_queued_bytes": "1 GiB",
        } | (overrides or {}))
        self.data = self.folder / "data"

    def environment(self):
        return super().environment() | self.extra

    def crash(self):
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def spawn(self):
        """Starts it without waiting for anything."""
        self._spawn([str(harness.binary())], self.environment())

    def ready(self):
        """Waits until it serves. Its ports take connections before that."""
        self._listening(["tcp"])
        harness.until(lambda: self.get("/health")[0] == 200, "/health is 200", 60)


class World:
    """The clients, and the hand that kills."""

    def __init__(self, server, seed, *, image=None, cuts=0.01, lives=(0.02, 0.6)):
        self.server, self.seed, self.image, self.cuts, self.lives = server, seed, image, cuts, lives
        self.port = server.port("tcp")
        self.ledger = Ledger(self)
        self.random = self.fork("world")
        self.failures, self.draining, self.ended = [], False, False
        self.kills, self.began, self.ups, self.up = 0, time.monotonic(), [time.monotonic()], True
        self._cast()

    def _cast(self):
        def publisher(name, version, topics, qos, **words):
            return Publisher(self, name, version, topics.split(), qos, **words)

        def subscriber(name, version, topic_filter, qos, presence="steady", **words):
            return Subscriber(self, name, version, [(topic_filter, qos)], presence, **words)

        narrow = {wire.RECEIVE_MAXIMUM: 5}
        self.publishers = [
            publisher("one-4", 4, "t/a t/b", 1),
            publisher("one-5", 5, "t/a t/c", 1),
            publisher("two-4", 4, "t/a t/b", 2),
            publisher("two-5", 5, "t/b t/c", 2),
            publisher("passing", 5, "t/a", 1, expiry=0, pace=0.03),
            publisher("lasting", 5, "t/a", 2, message_expiry=3600, pace=0.03),
            publisher("share-4", 4, "s/a", 1, pace=0.02),
            publisher("share-5", 5, "s/b", 2, pace=0.02),
            publisher("expire-1", 5, "e/a", 1, message_expiry=2, pace=0.05),
            publisher("expire-2", 5, "e/b", 2, message_expiry=2, pace=0.05),
            publisher("delay-4", 4, "d/a", 1, delay=3, pace=0.05),
            publisher("delay-5", 5, "d/b", 2, delay=3, pace=0.05),
            publisher("keep-4", 4, "r/a", 1, retain=True, window=1),
            publisher("keep-5", 5, "r/b", 2, retain=True, window=1),
            publisher("clear-5", 5, "r/c", 1, retain=True, window=1, clear=3),
        ]
        self.groups = [[
            subscriber("member-1", 4, "$share/g/s/#", 2),
            subscriber("member-2", 5, "$share/g/s/#", 2, "sleeper"),
            subscriber("member-3", 5, "$share/g/s/#", 2, "cutter", properties=narrow),
        ]]
        self.subscribers = [
            subscriber("steady-4", 4, "t/#", 1),
            subscriber("steady-5", 5, "t/#", 2),
            subscriber("sleeper-4", 4, "t/#", 2, "sleeper"),
            subscriber("sleeper-5", 5, "t/+", 1, "sleeper"),
            subscriber("cutter-4", 4, "t/+", 2, "cutter"),
            subscriber("cutter-5", 5, "t/#", 1, "cutter", properties=narrow),
            subscriber("taker-4", 4, "t/#", 1, "taker"),
            subscriber("taker-5", 5, "t/#", 2, "taker"),
            subscriber("expired-4", 4, "e/#", 1, "sleeper"),
            subscriber("expired-5", 5, "e/#", 2, "sleeper"),
            subscriber("delayed-4", 4, "d/#", 1, "sleeper"),
            subscriber("delayed-5", 5, "d/#", 2),
            subscriber("heir", 5, "w/#", 2, "cutter"),
        ]
        self.changers = [Changer(self, "changer-4", 4, "t/a", 1), Changer(self, "changer-5", 5, "t/b", 2)]
        self.others = [Watcher(self, "watcher-4", 4, "r/#"), Watcher(self, "watcher-5", 5, "r/#")]
        self.mortal = [*(Brief(self, f"brief-{number}") for number in range(3)), Testator(self, "testator", "w/1"),
                       Testator(self, "testatrix", "w/2")]

    def fork(self, name):
        """A source of chance of its own: what others do does not change it."""
        return random.Random(f"{self.seed} {name}")

    def wrong(self, what):
        """Something is not as it should be."""
        if len(self.failures) < ENOUGH:
            self.failures.append(f"{self.at(time.monotonic())}, after {self.kills} kills: {what}")

    def refused(self, message, code):
        """A publication is not taken; nobody is at fault in these worlds."""
        self.ledger.refused(message)
        self.wrong(f"{message} was refused with {code:#x}")

    def at(self, moment):
        """Seconds since the world began."""
        return f"{moment - self.began:.3f} s"

    @property
    def up_since(self):
        """When the server was ready the last time."""
        return self.ups[-1]

    def is_up(self):
        """Whether it is ready."""
        return self.up

    async def nap(self, seconds):
        """Sleeps, and wakes when the drain begins."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.draining:
            await asyncio.sleep(0.02)

    async def live(self, kills, least=15.0):
        """From the first subscription to the last message; `least` are the seconds until the drain begins."""
        takers = [*sum(self.groups, []), *self.subscribers, *self.changers]
        await asyncio.wait_for(asyncio.gather(*(one.subscribe() for one in takers)), 60)
        publishing = [asyncio.create_task(one.run()) for one in (*self.publishers, *self.mortal)]
        taking = [asyncio.create_task(one.run()) for one in (*takers, *self.others)]
        while self.kills < kills and len(self.failures) < ENOUGH:
            for task in publishing + taking:
                if task.done():
                    task.result()
            await asyncio.sleep(self.random.uniform(*self.lives))
            await self.kill()
        await self.nap(self.began + least - time.monotonic())
        await self._drain(publishing, taking)
        self.ledger.check_complete(self.subscribers, self.groups)
        for changer in self.changers:
            changer.check()
        return self

    async def kill(self):
        """Kills the server and starts it again; now and then it is killed while it starts, too."""
        await asyncio.to_thread(self.server.crash)
        self.up = False
        self.kills += 1
        if self.image:
            await asyncio.to_thread(self.image, self.server.data)
        self.server.spawn()
        if self.random.random() < 0.1:
            await asyncio.sleep(self.random.uniform(0.005, 0.3))
            await self.kill()
            return
        await asyncio.to_thread(self.server.ready)
        self.ups.append(time.monotonic())
        self.up = True

    async def _drain(self, publishing, taking):
        """Publishers finish what they have begun, then everybody takes until nothing comes."""
        self.draining = True
        done, late = await asyncio.wait(publishing, timeout=60)
        for task in done:
            task.result()
        if late:
            self.wrong("publishers wait for acknowledgements after 60 s")
        ledger, seen, since = self.ledger, -1, time.monotonic()
        due = max(m.last_sent + m.publisher.delay for m in ledger.messages.values())
        end = time.monotonic() + 120
        while time.monotonic() < max(due + 1, since + 1.5):
            if ledger.figures["delivered"] != seen:
                seen, since = ledger.figures["delivered"], time.monotonic()
            if time.monotonic() > end:
                self.wrong("messages come without end")
                break
            await asyncio.sleep(0.05)
        self.ended = True
        for task in late:
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*taking), 30)

    def summary(self):
        """One line of figures."""
        figures = {"kills": self.kills, "seconds": round(time.monotonic() - self.began), **self.ledger.figures}
        return f"seed {self.seed}: " + ", ".join(f"{value} {name}" for name, value in figures.items())
