"""Progress: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from gpudecon.backend import Array
from gpudecon.deconvolve import Info


class Progress:
    """Shows a job's iterations; to be used in a ``with`` statement and given to `restore`.

    On a terminal a bar with the time left.  Elsewhere, so that logs stay readable, one line when a stack begins, one at
    each likelihood that becomes known, at most every two seconds.  ``total`` None: it becomes known stack by stack, as
    their numbers of iterations are chosen.
    """

    def __init__(self, total: int | None) -> None:
        from tqdm import tqdm

        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, unit="it", dynamic_ncols=True, disable=not self._terminal, file=sys.stderr)
        self._name = ""
        self._spoken = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def __call__(self, name: str, iteration: int, estimate: Array, info: Info) -> None:
        """Take note of one iteration."""
        is_new = name != self._name
        self._name = name
        if is_new and info.choice is not None:
            self._bar.total = self._bar.n + info.choice.iterations
        self._bar.update()
        if self._terminal:
            if info.divergence is not None:
                self._bar.set_postfix_str(f"divergence {info.divergence:.4g}")
            return
        now = time.monotonic()
        if is_new:
            chosen = "" if info.choice is None else f": {info.choice.iterations} iterations chosen"
            print(f"gpudecon: {name}{chosen}", file=sys.stderr, flush=True)
        elif info.divergence is not None and now - self._spoken > 2:
            self._spoken = now
            print(
                f"gpudecon: iteration {iteration}, divergence {info.divergence:.6g}, {info.seconds:.1f} s",
                file=sys.stderr,
                flush=True,
            )
