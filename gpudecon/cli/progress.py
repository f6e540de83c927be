"""Progress: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType

from gpudecon.backend import Array
from gpudecon.deconvolve import Info

PAUSE = 2.0  # seconds, at least, between two lines of a kind


class Progress:
    """Shows a run's iterations; to be used in a ``with`` statement and given to `gpudecon.engine.run.run`.

    On a terminal a bar with the time left.  Elsewhere, so that logs stay readable, one line when a stack or tile begins
    and one at each likelihood that becomes known, at most every two seconds.
    """

    def __init__(self) -> None:
        from tqdm import tqdm

        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(total=None, unit="it", dynamic_ncols=True, disable=not self._terminal, file=sys.stderr)
        self._name = ""
        self._spoken: dict[str, float] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def expect(self, iterations: int, remark: str = "") -> None:
        """There are so many more to come; ``remark`` is why."""
        self._bar.total = (self._bar.total or 0) + iterations
        self._bar.refresh()
        if remark:
            self._say(remark)

    def __call__(self, name: str, iteration: int, estimate: Array, info: Info) -> None:
        """Take note of one iteration."""
        if name != self._name:
            self._name = name
            if info.choice is not None:
                self.expect(info.choice.iterations, f"{name}: {info.choice.iterations} iterations chosen")
            elif self._is_due("name"):
                self._say(name)
        elif info.divergence is not None and self._is_due("divergence"):
            self._say(f"iteration {iteration}, divergence {info.divergence:.6g}, {info.seconds:.1f} s")
        self._bar.update()
        if info.divergence is not None:
            self._bar.set_postfix_str(f"divergence {info.divergence:.4g}")

    def _is_due(self, what: str) -> bool:
        now = time.monotonic()
        if now - self._spoken.get(what, -math.inf) < PAUSE:
            return False
        self._spoken[what] = now
        return True

    def _say(self, text: str) -> None:
        if not self._terminal:
            print(f"gpudecon: {text}", file=sys.stderr, flush=True)
