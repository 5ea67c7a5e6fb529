"""What is counted, as plain numbers: a request adds a few, and who asks for `/metrics` reads them.

The numbers are doubles in memory that forked processes share, a row for each process: adding to one takes
a tenth of a microsecond and no lock, whoever is asked sees all, and a worker that is started again goes on
where the last one ended. One thread at most adds to each number of a row.
"""

import mmap
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate, product
from typing import Generic, TypeVar

Label = TypeVar("Label")

ROW_NUMBERS = 4096
"""How many numbers a process may have; 32 kB of them."""
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
OUTCOMES = ("accepted", "duplicate", "conflict", "test")
"""What became of an event that the contract allows."""
LIMITS = ("key", "failure", "staff-failure", "log-in")
UNKNOWN = "unknown"
"""Stands for every operation that is none of ours: a label has few values, whatever is asked for."""


class Memory:
    """Rows of numbers that forked processes share."""

    def __init__(self, processes: int = 1) -> None:
        """Make a row for each of some processes; this one has the first."""
        numbers = memoryview(mmap.mmap(-1, processes * ROW_NUMBERS * 8)).cast("d")
        self._rows = [numbers[n * ROW_NUMBERS : (n + 1) * ROW_NUMBERS] for n in range(processes)]
        self.process, self.row = 0, self._rows[0]
        self._taken = 0

    def be(self, process: int) -> None:
        """Add to the row of the process of this number from now on: what a worker says after the fork."""
        self.process, self.row = process, self._rows[process]

    def take(self, count: int) -> int:
        """Return the first of so many places that nobody else has."""
        self._taken += count
        if self._taken > ROW_NUMBERS:
            raise RuntimeError("Raise ROW_NUMBERS: there are more numbers than a row holds.")
        return self._taken - count

    def total(self, place: int) -> float:
        """Return the sum of a place's numbers over the processes."""
        return sum(row[place] for row in self._rows)


class Counter(Generic[Label]):
    """A number for each of some labels that only grows."""

    def __init__(self, memory: Memory, labels: Collection[Label]) -> None:
        """Count from nothing."""
        first = memory.take(len(labels))
        self._memory = memory
        self._places = {label: first + n for n, label in enumerate(labels)}

    def add(self, label: Label) -> None:
        """Count one. Raises KeyError for a label that was not named."""
        self._memory.row[self._places[label]] += 1

    def __contains__(self, label: object) -> bool:
        return label in self._places

    def totals(self) -> Iterator[tuple[Label, float]]:
        """Yield each label and its count, over all processes."""
        for label, place in self._places.items():
            yield label, self._memory.total(place)


class Histogram:
    """How many values were how large at most, and their sum."""

    def __init__(self, memory: Memory, bounds: Sequence[float]) -> None:
        """Count from nothing; a bucket ends at each of `bounds`, and one has no end."""
        self._memory, self._bounds = memory, bounds
        self._first = memory.take(len(bounds) + 2)
        self._sum = self._first + len(bounds) + 1

    def observe(self, value: float) -> None:
        """Count a value."""
        row = self._memory.row
        row[self._first + bisect_left(self._bounds, value)] += 1
        row[self._sum] += value

    def totals(self) -> tuple[list[tuple[str, float]], float]:
        """Return how many values were within each bound, as Prometheus writes it, and the sum of all."""
        counts = accumulate(map(self._memory.total, range(self._first, self._sum)))
        return list(zip([*map(str, self._bounds), "+Inf"], counts, strict=True)), self._memory.total(
            self._sum
        )


class Metrics:
    """All that a server counts, by labels whose values are known when it starts."""

    def __init__(
        self,
        *,
        events: Collection[str] = (),
        operations: Collection[str] = (),
        problems: Collection[str] = (),
        keys: Collection[str] = (),
        releases: Collection[str] = (),
        memory: Memory | None = None,
    ) -> None:
        """Count from nothing; `keys` are fingerprints."""
        memory = memory or Memory()
        operations = [*operations, UNKNOWN]
        self.events = Counter(memory, list(product(events, OUTCOMES)))
        self.responses = Counter(memory, list(product(operations, "12345")))
        """By operation and the first digit of the status."""
        self.refused = Counter(memory, problems)
        self.rate_limited = Counter(memory, LIMITS)
        self.key_uses = Counter(memory, keys)
        self.webhooks = Counter(memory, releases)
        """By release of the contract: all that came with a right key."""
        self.commit_failures = Counter(memory, [()])
        self.request_seconds = {operation: Histogram(memory, SECONDS) for operation in operations}
        self.commit_seconds = Histogram(memory, SECONDS)
        self.batch_sizes = Histogram(memory, SIZES)
