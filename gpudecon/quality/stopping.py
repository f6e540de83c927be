"""When to stop an iteration: after a fixed number, when it changes little, or when it begins to fit the noise."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from gpudecon.backend import Array
from gpudecon.errors import InputError
from gpudecon.methods.noise import gain_of
from gpudecon.methods.problem import Method, Problem


@dataclass(frozen=True)
class Choice:
    """What a `HoldOut` chose: the number of iterations, from a curve (iteration, divergence of the held-out counts)."""

    iterations: int
    curve: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class RelativeChange:
    """Stop when the estimate changes by less than ``tolerance`` of its norm: |f_k - f_(k-1)| < tolerance |f_k|.

    A sign of convergence, not of quality: maximum likelihood converges towards an estimate that fits the noise.
    """

    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise InputError(f"RelativeChange: tolerance is {self.tolerance}; it must be between 0 and 1.")

    def is_reached(self, latest: Array, previous: Array) -> bool:
        """Whether the step from ``previous`` to ``latest`` is small enough; ``previous`` is overwritten."""
        norm = float((latest.astype(np.float64) ** 2).sum())
        previous -= latest
        return float((previous.astype(np.float64) ** 2).sum()) < self.tolerance**2 * norm


@dataclass(frozen=True)
class HoldOut:
    """Choose the number of iterations by counts that the iteration has not seen.

    The photo-electrons are dealt binomially into two images, ``fraction`` of them into the one that is held out.  The
    method iterates on the other; where the Poisson likelihood of the held-out image is largest it begins to fit noise.

    Parameters
    ----------
    fraction
        Of the counts that are held out.
    seed
        Of the deal.
    patience
        The trial ends when there was no better iteration for this fraction of those done, and at least 5.
    """

    fraction: float = 0.2
    seed: int = 0
    patience: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1 or self.patience <= 0:
            raise InputError(
                f"HoldOut: fraction is {self.fraction} and patience {self.patience}; the fraction must be between "
                "0 and 1, the patience positive."
            )

    def choose(self, method: Method, problem: Problem) -> Choice:
        """Run the trial and return the number of iterations for the whole image."""
        kept, held = self.deal(problem)
        held_data, model = held.data(), problem.model
        rows = problem.backend.xp.empty(held_data.image.shape[:2], np.float64)
        best, curve = (0, np.inf), []
        for k, estimate in enumerate(method.iterate(kept), start=1):
            work = model.blur(estimate)
            problem.backend.ops.poisson_divergence(rows, work, held_data.image, *held_data.scene)
            divergence = float(rows.sum()) / held_data.image.size
            curve.append((k, divergence))
            if divergence < best[1]:
                best = (k, divergence)
            elif k - best[0] >= max(5, self.patience * k):
                break
        return Choice(max(best[0], 1), tuple(curve))

    def deal(self, problem: Problem) -> tuple[Problem, Problem]:
        """(kept, held out): the image's counts dealt binomially, each part scaled to the image's mean."""
        gain = gain_of(problem)
        rng = np.random.default_rng(self.seed)
        electrons = np.maximum(problem.backend.download(problem.image).astype(np.float64), 0) / gain
        whole = np.floor(electrons)
        whole += rng.random(whole.shape) < electrons - whole
        held = rng.binomial(whole.astype(np.int64), self.fraction)
        parts = []
        for counts, share in ((whole - held, 1 - self.fraction), (held, self.fraction)):
            image = problem.backend.upload((counts * (gain / share)).astype(np.float32))
            parts.append(dataclasses.replace(problem, image=image, highest=float(image.max()), gain=gain / share))
        return parts[0], parts[1]
