"""Conveyor: reading, computing and writing of many tasks overlapped, with a bounded number of them on the way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gpudecon.errors import GpudeconError, RunError

Task = TypeVar("Task")
Held = TypeVar("Held")
Result = TypeVar("Result")


@dataclass
class Busy:
    """Seconds that the threads of each stage worked, added up, and the seconds that the whole took."""

    read: float = 0.0
    compute: float = 0.0
    write: float = 0.0
    seconds: float = 0.0
    readers: int = 1
    writers: int = 1

    @property
    def fractions(self) -> dict[str, float]:
        """Which part of the time each stage worked, from 0 to 1."""
        seconds = self.seconds or 1.0
        return {
            "reading": self.read / self.readers / seconds,
            "computing": self.compute / seconds,
            "writing": self.write / self.writers / seconds,
        }

    @property
    def limiting(self) -> str:
        """The stage that the others wait for."""
        fractions = self.fractions
        return max(fractions, key=fractions.__getitem__)

    def __str__(self) -> str:
        parts = ", ".join(f"{stage} {fraction:.0%}" for stage, fraction in self.fractions.items())
        return f"busy: {parts} of the time; limited by {self.limiting}"


@dataclass(frozen=True)
class Conveyor(Generic[Task, Held, Result]):
    """``write(task, compute(task, read(task)))`` for many tasks: threads read ahead, others write behind.

    ``compute`` runs in the caller's thread, in the order of the tasks; there is one such thread for a device.  Beside
    the task that is computed at most ``ahead`` are read, or being read, and at most ``behind`` are computed and wait
    to be written: the memory taken does not depend on the number of tasks.  ``name`` says in words which task an error
    came from.
    """

    read: Callable[[Task], Held]
    compute: Callable[[Task, Held], Result]
    write: Callable[[Task, Result], object]
    name: Callable[[Task], str] = str
    readers: int = 1
    writers: int = 1
    ahead: int = 1
    behind: int = 1

    def run(self, tasks: Iterable[Task], stop: Callable[[], bool] = lambda: False) -> Busy:
        """Carry out the tasks until none is left or ``stop`` says True; then what is computed is still written.

        The first error ends it and is raised with the name of its task: what is computed before it is still written,
        the rest is left, and no thread remains.  Ctrl-C is such an error.
        """
        busy = Busy(readers=self.readers, writers=self.writers)
        start = time.perf_counter()
        waiting = iter(tasks)
        reading: deque[tuple[Task, Future[tuple[Held, float]]]] = deque()
        writing: dict[Future[tuple[object, float]], Task] = {}
        readers = ThreadPoolExecutor(self.readers, "gpudecon-read")
        writers = ThreadPoolExecutor(self.writers, "gpudecon-write")
        try:
            while not stop():
                while len(reading) <= self.ahead and (task := next(waiting, None)) is not None:
                    reading.append((task, readers.submit(_timed, self.read, task)))
                if not reading:
                    break
                task, arriving = reading.popleft()
                with _naming(self.name, task):
                    held, seconds = arriving.result()
                    busy.read += seconds
                    del arriving
                    result, seconds = _timed(self.compute, task, held)
                    busy.compute += seconds
                    del held
                self._collect(writing, busy, self.behind - 1)
                writing[writers.submit(_timed, self.write, task, result)] = task
                del result
            self._collect(writing, busy, 0)
        finally:
            readers.shutdown(cancel_futures=True)
            writers.shutdown()
        busy.seconds = time.perf_counter() - start
        return busy

    def _collect(self, writing: dict[Future[tuple[object, float]], Task], busy: Busy, most: int) -> None:
        """Take note of what is written, and wait until at most ``most`` results are not."""
        while writing:
            ready, _ = wait(writing, None if len(writing) > most else 0, FIRST_COMPLETED)
            if not ready:
                return
            for future in ready:
                with _naming(self.name, writing.pop(future)):
                    busy.write += future.result()[1]


def _timed(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What it returns, and the seconds that it took."""
    start = time.perf_counter()
    result = work(*arguments)
    return result, time.perf_counter() - start


@contextmanager
def _naming(name: Callable[[Task], str], task: Task) -> Iterator[None]:
    """Say in an error which task it came from."""
    try:
        yield
    except GpudeconError as error:
        raise type(error)(f"{name(task)}: {error}") from error
    except OSError as error:
        raise RunError(f"{name(task)}: {error.strerror or error}.") from error
    except BaseException as error:
        error.add_note(f"in {name(task)}")
        raise
