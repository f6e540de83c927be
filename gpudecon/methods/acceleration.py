"""Accelerations of Richardson-Lucy: from where the next step starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol

from gpudecon.backend import Array
from gpudecon.methods.least_squares import inner_product
from gpudecon.methods.problem import Problem

Acceleration = Literal["none", "shb", "biggs"]


class Steps(Protocol):
    """Steps from ``estimate``, y_k, on; see `RichardsonLucy.acceleration`."""

    estimate: Array
    number: float

    def step(self, factor: Array, weights: Array | None) -> Array:
        """f_k = y_k max(factor, 0) weights, which is returned, and y_(k+1); ``factor`` is lost."""
        ...

    @property
    def fields(self) -> list[Array]:
        """What the next step depends on beside ``number``, ``estimate`` first."""
        ...


class PlainSteps:
    """y_(k+1) = f_k."""

    number = 0.0

    def __init__(self, problem: Problem, estimate: Array) -> None:
        self._ops = problem.backend.ops
        self.estimate = estimate
        self.fields = [estimate]

    def step(self, factor: Array, weights: Array | None) -> Array:
        self._ops.rl_update(self.estimate, factor, weights)
        return self.estimate


class HeavyBall:
    """Acceleration "shb"; ``number`` is t_k."""

    number = 1.0

    def __init__(self, problem: Problem, estimate: Array) -> None:
        self._ops = problem.backend.ops
        self.estimate, self._latest = estimate, problem.model.empty()
        self._latest[...] = estimate
        self.fields = [self.estimate, self._latest]

    def step(self, factor: Array, weights: Array | None) -> Array:
        t, self.number = self.number, (1 + math.sqrt(1 + 4 * self.number**2)) / 2
        momentum, excess = (t - 1) / self.number, t / self.number
        self._ops.rl_update_momentum(self.estimate, self._latest, factor, weights, momentum, excess)
        return self._latest


class BiggsAndrews:
    """Acceleration "biggs"; ``number`` is the square of the last step."""

    number = 0.0

    def __init__(self, problem: Problem, estimate: Array) -> None:
        self._ops, self._record, self._dot = problem.backend.ops, problem.record, inner_product(problem)
        self.estimate, self._latest = estimate, problem.model.empty()
        self._latest[...] = estimate
        self._step, self._last_step = problem.model.empty(), problem.model.empty()

    @property
    def fields(self) -> list[Array]:
        return [self.estimate, self._latest, self._last_step]

    def step(self, factor: Array, weights: Array | None) -> Array:
        self._ops.rl_step(factor, self._step, self.estimate, weights)
        momentum = self._record.number("momentum", self._along_last_step)
        self._step, self._last_step = self._last_step, self._step
        self._ops.rl_predict(self.estimate, self._latest, factor, momentum)
        return self._latest

    def _along_last_step(self) -> float:
        before, self.number = self.number, self._dot(self._step, self._step)
        return min(max(self._dot(self._step, self._last_step) / before, 0.0), 1.0) if before > 0 else 0.0


ACCELERATIONS: dict[Acceleration, Callable[[Problem, Array], Steps]] = {
    "none": PlainSteps,
    "shb": HeavyBall,
    "biggs": BiggsAndrews,
}


class Kept:
    """The state before a step, to return to.  Between `keep` and `take_back` its arrays belong to it."""

    def __init__(self, problem: Problem, steps: Steps) -> None:
        self._steps, self._number = steps, steps.number
        self._fields = [problem.model.empty() for _ in steps.fields]
        self.free = self._fields[0]  # for others, when no step may be taken back

    def keep(self) -> None:
        self._number = self._steps.number
        for kept, field in zip(self._fields, self._steps.fields, strict=True):
            kept[...] = field

    def take_back(self) -> None:
        self._steps.number = self._number
        for kept, field in zip(self._fields, self._steps.fields, strict=True):
            field[...] = kept
