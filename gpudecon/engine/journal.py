"""Journal: which tasks of a run are done, as lines that are true whatever happens to the process that wrote them."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import uuid
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gpudecon.io.durable import flush, write_durably
from gpudecon.io.store import checksum


@dataclass(frozen=True)
class Record:
    """One finished task: what kind it is and its number there, the checksum of the pixels that it wrote, their lowest
    and highest value, and the seconds it took.

    For a tile also the iterations it had, the warnings that came up, and what was found for it where it was restored
    without constants of a whole (`Constants.summary`).
    """

    kind: str
    task: int
    checksum: str
    low: float
    high: float
    seconds: float
    iterations: int = 0
    said: tuple[str, ...] = ()
    found: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, kind: str, task: int, block: NDArray[Any], seconds: float, *more: Any) -> Record:
        """Of the pixels that the task wrote, and the fields after the seconds."""
        low, high = float(block.min()), float(block.max())
        return cls(kind, task, checksum(block), low, high, round(seconds, 6), *more)


class Journal:
    """The finished tasks of all workers of a run: a folder with one file for each, a line of JSON for each task.

    A worker appends to a file of its own (host, process, a random number), so that none waits for another, also on a
    network's file system.  `add` is called after the data of the task are durable and returns when the line is: a line
    is true after a power failure.  A line that was cut off is no line; its task is done again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: int | None = None
        self._adding = threading.Lock()

    def add(self, record: Record) -> None:
        """Put down a task whose data are durable; from any thread."""
        line = json.dumps(asdict(record), allow_nan=False) + "\n"
        with self._adding:
            if self._file is not None and not os.fstat(self._file).st_nlink:
                os.close(self._file)  # `strike` of another process has replaced it
                self._file = None
            if self._file is None:
                self._file = self._own_file()
            if os.write(self._file, line.encode()) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file)

    def records(self, kind: str) -> Iterator[Record]:
        """The finished tasks of a kind in no particular order; one that two workers finished comes twice."""
        return (record for path in self._paths() for record in _read(path) if record.kind == kind)

    def done(self, kind: str) -> set[int]:
        """The numbers of the finished tasks of a kind."""
        return {record.task for record in self.records(kind)}

    def strike(self, kind: str, tasks: Collection[int] | None = None) -> None:
        """Take these tasks of a kind (None: all) off the list; only while no worker adds to it."""
        for path in self._paths():
            kept = [r for r in _read(path) if r.kind != kind or (tasks is not None and r.task not in tasks)]
            write_durably(path, "".join(json.dumps(asdict(record)) + "\n" for record in kept).encode())
        self.close()  # our own file has been replaced

    def close(self) -> None:
        """Let go of the file; `add` opens another one."""
        with self._adding:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _own_file(self) -> int:
        self._folder.mkdir(exist_ok=True)
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
        file = os.open(self._folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
        flush(self._folder)
        return file

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("*.jsonl"))


def _read(path: Path) -> Iterator[Record]:
    for line in path.read_bytes().splitlines():
        try:
            fields = json.loads(line)
            yield Record(**{**fields, "said": tuple(fields["said"])})
        except (KeyError, TypeError, ValueError):  # cut off, or never written by a disk that lost its power
            continue
