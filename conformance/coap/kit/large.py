"""Bodies that go in blocks."""

import random

SIZE = 100_000


def body(seed):
    """100 kB that no other test has."""
    return random.Random(seed).randbytes(SIZE)
