"""Runs that a scheduler ends: SIGTERM and SIGUSR1 ask for a stop between two tiles, a second one does not wait."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Whether a stop was asked for since; the tile in hand is then to be finished.

    Who sends a second signal gets an end at once, by way of the clean-up, with the status 128 + the signal's number.
    """
    asked = False

    def ask(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if asked:
            sys.exit(128 + number)
        asked = True
        print("gpudecon: stopping when the tile in hand is finished", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def to_resume() -> str:
    """The command line of this process with --resume, for a shell."""
    words = [word for word in sys.argv[1:] if word not in ("--overwrite", "--resume")]
    return shlex.join(["gpudecon", *words, "--resume"])
