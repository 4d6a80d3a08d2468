"""A device on a bad line: it says its records until each is answered, is cut off in the midst of things, and comes again."""

import asyncio
import socket
import struct

import harness

PATIENCE = 20
# Most records of one breath, and cuts of one device's life.
BREATH, CUTS = 4, 3


class Cut(Exception):
    """The line is cut: by chance, and by nobody else."""


class Line:
    """A TCP connection that can be cut in the midst of a frame."""

    def __init__(self, reader, writer, chance):
        self.reader, self.writer, self.chance = reader, writer, chance

    @staticmethod
    async def to(port, chance):
        return Line(*await asyncio.open_connection(harness.HOST, port), chance)

    def say(self, frame):
        """Whole, or in two pieces."""
        at = self.chance.randrange(len(frame)) if self.chance.random() < 0.3 else 0
        for piece in (frame[:at], frame[at:]):
            if piece:
                self.writer.write(piece)

    def cut(self):
        """A reset, or a plain end."""
        if self.chance.random() < 0.7 and not self.writer.is_closing():
            where = self.writer.get_extra_info("socket")
            where.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self):
        self.writer.close()


class Device:
    """What all devices do; a language adds `log_in`, `frame` and `listen`, and for who uses it by MQTT `kind` and
    `number_of` of its records, `order`, and what else it says."""

    # Whether a breath is several frames: half of it may say something.
    has_many = False
    asides = ()

    def __init__(self, name, port, ledger, chance):
        self.name, self.port, self.ledger, self.chance = name, port, ledger, chance
        self.cuts, self.line = CUTS, None
        # Its session is there: commands wait for it from now on.
        self.known = asyncio.Event()

    async def live(self, end):
        """Until `end`, and until all that it had to say is answered."""
        while not end.is_set() or self.ledger.due(self.name, 1):
            listener = None
            try:
                self.line = await Line.to(self.port, self.chance)
                await asyncio.wait_for(self.log_in(), PATIENCE)
                self.known.set()
                listener = asyncio.create_task(self.listen())
                await self.talk(listener, end)
                self.line.close()
            except Cut:
                self.ledger.figures["cuts"] += 1
            except (ConnectionError, asyncio.IncompleteReadError):
                self.ledger.figures["ends from elsewhere"] += 1
            except TimeoutError:
                self.ledger.fail(f"{self.name} was not answered within {PATIENCE} s")
            finally:
                if listener:
                    listener.cancel()
                    await asyncio.gather(listener, return_exceptions=True)
                if self.line:
                    self.line.writer.transport.abort()
                self.line = None
            await asyncio.sleep(self.chance.uniform(0.05, 0.5))

    async def talk(self, listener, end):
        """Says what is due until nothing is, and stays to hear commands."""
        while True:
            numbers = self.ledger.due(self.name, self.chance.randint(1, BREATH))
            if not numbers:
                if end.is_set():
                    return
                rest = asyncio.create_task(asyncio.sleep(0.2))
                done, _ = await asyncio.wait((rest, listener), return_when=asyncio.FIRST_COMPLETED)
                rest.cancel()
                if listener in done:
                    listener.result()
                continue
            frame, answer = self.frame(numbers)
            if self.has_many:
                self.ledger.tried(self.name, numbers)
            self.may_cut(frame)
            if not self.has_many:
                self.ledger.tried(self.name, numbers)
            self.line.say(frame)
            if self.strikes(0.05):
                # Sent whole, and perhaps published: nobody knows.
                await asyncio.sleep(self.chance.uniform(0, 0.02))
                self.line.cut()
                raise Cut
            await self.heard(answer, listener)
            self.ledger.answered(self.name, numbers)
            await asyncio.sleep(self.chance.uniform(0.05, 0.5))

    async def heard(self, answer, listener):
        """Waits for an answer, or the end of the line."""
        await asyncio.wait((answer, listener), timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if listener.done():
            listener.result()
        raise TimeoutError

    def strikes(self, likely):
        """Whether the line is cut now."""
        if self.cuts == 0 or self.chance.random() > likely:
            return False
        self.cuts -= 1
        return True

    def may_cut(self, frame):
        """Half a frame, and no more of it."""
        if self.strikes(0.05):
            self.line.writer.write(frame[:self.chance.randrange(1, len(frame))])
            self.line.cut()
            raise Cut

    def obey(self, order):
        """A command was heard; it may never be answered."""
        self.ledger.obeyed[order] += 1
        if self.strikes(0.1):
            self.line.cut()
            raise Cut
