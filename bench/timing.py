"""Timing: calls in turn, so that a change in the machine's speed meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


class Clock(Protocol):
    """Marks moments: on the host, or in the queue of a GPU."""

    def stamp(self) -> Any: ...
    def wait(self) -> None:
        """Until everything before the last stamp is done."""
        ...

    def seconds(self, before: Any, after: Any) -> float: ...


class WallClock:
    """The host's clock; what is timed must be done when its call returns."""

    def stamp(self) -> float:
        return time.perf_counter()

    def wait(self) -> None: ...

    def seconds(self, before: float, after: float) -> float:
        return after - before


@dataclass(frozen=True)
class Timing:
    """Seconds of ``n`` calls; ``fields`` are those of a row."""

    median: float
    least: float
    n: int

    @property
    def fields(self) -> dict[str, float]:
        return {"seconds_median": self.median, "seconds_min": self.least, "n": self.n}


def in_turn(
    calls: dict[str, Callable[[], object]], clock: Clock, *, rounds: int, warm_up: int = 2
) -> dict[str, list[float]]:
    """Seconds of each call in each of ``rounds``, one call after the other, after ``warm_up`` calls of each."""
    for call in calls.values():
        for _ in range(warm_up):
            call()
    stamps: dict[str, list[tuple[Any, Any]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            before = clock.stamp()
            call()
            stamps[name].append((before, clock.stamp()))
    clock.wait()
    return {name: [clock.seconds(*pair) for pair in pairs] for name, pairs in stamps.items()}


def summary(seconds: list[float]) -> Timing:
    return Timing(statistics.median(seconds), min(seconds), len(seconds))


def interleaved(
    calls: dict[str, Callable[[], object]], clock: Clock, *, rounds: int, warm_up: int = 2
) -> dict[str, Timing]:
    """Time each call ``rounds`` times, one after the other, after ``warm_up`` calls of each."""
    taken = in_turn(calls, clock, rounds=rounds, warm_up=warm_up)
    return {name: summary(seconds) for name, seconds in taken.items()}


class Cap:
    """The time that a section may take."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def fits(self, seconds: float = 0.0) -> bool:
        return time.monotonic() + seconds < self._end
