"""Quality against iterations: the error after each one, and the time it took without that of computing the error."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from quality_cases import Case
from quality_variants import Variant

from gpudecon.errors import RunError
from gpudecon.quality.fourier_correlation import resolution_um
from gpudecon.quality.metrics import nrmse


class _EnoughError(Exception):
    """The curve has passed its minimum."""


@dataclass
class Curve:
    """NRMSE after iteration 1, 2, ...; seconds from the call to then; the estimate at the least NRMSE."""

    errors: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best: NDArray[Any] | None = None

    @property
    def best_iteration(self) -> int:
        return int(np.argmin(self.errors)) + 1

    @property
    def least(self) -> float:
        return min(self.errors)

    def first_within(self, target: float) -> int | None:
        """The first iteration with an NRMSE of at most ``target``; None if there is none."""
        return next((k for k, error in enumerate(self.errors, start=1) if error <= target), None)


def follow(case: Case, variant: Variant, limit: int) -> Curve:
    """The curve over ``limit`` iterations, or over the default number if that is more; one point for a direct filter.

    Errors fall and then rise as noise is fitted.  The curve ends early where it has risen by a tenth above its minimum
    in at least as many iterations again as that took (and 10), or where three times as many (and 20) brought nothing
    better, but not before the default number.
    """
    curve, default = Curve(), variant.default_iterations
    evaluation = 0.0

    def watch(iteration: int, estimate: Any, _: object) -> None:
        nonlocal evaluation
        now = time.perf_counter()
        curve.seconds.append(now - start - evaluation)
        error = nrmse(estimate, case.truth)
        if not math.isfinite(error):
            raise RunError(f"Iteration {iteration} is not finite.")
        if not curve.errors or error < curve.least:
            curve.best = estimate.copy()
        curve.errors.append(error)
        evaluation += time.perf_counter() - now
        best = curve.best_iteration
        has_risen = iteration >= 2 * best + 10 and error > 1.1 * curve.least
        if iteration >= default and (has_risen or iteration >= 4 * best + 20):
            raise _EnoughError

    start = time.perf_counter()
    with contextlib.suppress(_EnoughError):
        case.restore(variant, iterations=max(limit, default), callback=watch)
    return curve


def automatic(case: Case, variant: Variant, limit: int) -> dict[str, Any]:
    """Fields of a row: what stop="auto" chose without the truth, and how good that is."""
    done = 0

    def count(iteration: int, *_: object) -> None:
        nonlocal done
        done = iteration

    start = time.perf_counter()
    restored = case.restore(variant, iterations=limit, callback=count, stop="auto")
    seconds = time.perf_counter() - start
    return {"iterations_auto": done, "nrmse_auto": nrmse(restored, case.truth), "seconds_auto": seconds}


def resolutions(case: Case, restored: NDArray[Any]) -> dict[str, float | None]:
    """Fields of a row: FSC resolution against the truth; None where not even the coarsest shell correlates."""
    found = {}
    for direction in ("xy", "z"):
        value = resolution_um(restored, case.truth, case.voxel_um, direction)
        found[f"resolution_{direction}_um"] = value if np.isfinite(value) else None
    return found
