"""When to stop an iteration: after a fixed number, when it changes little, or when it begins to fit the noise."""

from __future__ import annotations

import dataclasses
import math
import warnings
from dataclasses import dataclass

import numpy as np

from gpudecon.backend import Array
from gpudecon.errors import GpudeconWarning, InputError
from gpudecon.forward import Unblurred
from gpudecon.methods.least_squares import clear_behind
from gpudecon.methods.noise import gain_of
from gpudecon.methods.problem import Data, Method, Problem

# Square of the transfer below which frequencies count less than in the object.  Without it the noise of what the PSF
# hardly passes would decide; with 0.1 and more the error is compared as blurred, which goes on too long in dense
# specimens.  1e-3 to 1e-2 were equally good on phantoms.
TAPER = 1e-2
# Errors that differ by less than this fraction of what the estimate explains are a tie, which the earliest iteration
# wins: what they do not show, the noise at frequencies that the PSF does not pass, only grows.
TIE = 5e-5
# Every iteration is looked at up to the twentieth, then each twentieth of those done.
LOOK_EVERY = 0.05
# More counts than these in a voxel are not dealt one by one: their shot noise is below 1e-4 of the signal.
MOST_COUNTS = 1e8


@dataclass(frozen=True)
class Choice:
    """What a `HoldOut` chose: the number of iterations, from a curve (iteration, error against the held-out image).

    The error is relative to that of an empty estimate.  ``limited`` is True if it was still falling at the last
    iteration that the method allows: more might be better.
    """

    iterations: int
    curve: tuple[tuple[int, float], ...]
    limited: bool = False


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

    The photo-electrons are dealt binomially into two images, ``fraction`` of them into the one that is held out, so
    that the noise of the two is independent.  The method iterates on the other, and the iteration with the least ::

        sum over frequencies of |G_held - B - H F_k|^2 / (|H|^2 + 0.01)

    is chosen for the whole image (G, B, F: transforms of image, background, estimate); of those within 5e-5 of the
    least, the earliest.  Where the PSF passes light the expected summand is, but for a constant, the square error of
    the *object*, |F - F_k|^2.  The plain residual or likelihood sees this error only as blurred, in which amplified
    noise hardly shows, and goes on too long in dense specimens.

    Nothing in it depends on the method or on how far its steps go.  ``fraction`` is 1/2 since two errors then nearly
    cancel: half of the light asks for fewer iterations than all of it, and frequencies that the PSF does not pass,
    where noise asks for fewer too, are not compared.  With 1/5, dense phantoms ended too late.  bench/quality.py
    measures how near it comes to the best; bright points are its weak side.

    It costs the iterations made (about 1.4 times those chosen) and 3/4 of an iteration for each look.

    Parameters
    ----------
    fraction
        Of the counts that are held out.
    seed
        Of the deal.
    patience
        The trial ends when there was no better iteration for this fraction of those done, and at least 5.
    """

    fraction: float = 0.5
    seed: int = 0
    patience: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1 or not 0 < self.patience < math.inf:
            raise InputError(
                f"HoldOut: fraction is {self.fraction} and patience {self.patience}; the fraction must be between "
                "0 and 1, the patience positive."
            )
        if not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"HoldOut: seed is {self.seed!r}; it must be a whole number from 0.")

    def choose(self, method: Method, problem: Problem, most: int) -> Choice:
        """Run the trial, up to ``most`` iterations, and return the number of iterations for the whole image."""
        kept, held = self.deal(problem)
        if not (kept.highest > 0 and held.highest > 0):
            warnings.warn(
                "The image holds too few photo-electrons to choose the number of iterations by; one is made. If it "
                "is no dark image, check the camera's gain.",
                GpudeconWarning,
                stacklevel=5,
            )
            return Choice(1, ())
        data, estimate = held.data(), problem.model.empty()
        estimate[...] = 0
        empty = _object_error(held, data, estimate)
        best, curve, due = (1, math.inf), [], 1.0
        for k, estimate in enumerate(method.iterate(kept), start=1):
            if k < due and k < most:
                continue
            due = max(k + 1, k * (1 + LOOK_EVERY))
            error = _object_error(held, data, estimate) / empty
            curve.append((k, error))
            if error < best[1]:
                best = (k, error)
            elif k - best[0] >= max(5, self.patience * k):
                break
        as_good = best[1] + TIE * max(1 - best[1], 0)
        chosen = next(k for k, error in curve if error <= as_good)
        return Choice(chosen, tuple(curve), limited=best[0] == most)

    def deal(self, problem: Problem) -> tuple[Problem, Problem]:
        """(kept, held out): the image's counts dealt binomially, each part scaled to the image's mean.

        Dealt on the host, each plane from a stream of its own: the same on every device, and a voxel that is rounded
        otherwise changes one plane at most.
        """
        gain = max(gain_of(problem), problem.highest / MOST_COUNTS)
        image = problem.backend.download(problem.image)
        shares = (1 - self.fraction, self.fraction)
        parts = [np.empty(image.shape, np.float32) for _ in shares]
        for z, plane in enumerate(image):
            rng = np.random.default_rng((self.seed, z))
            electrons = np.maximum(plane.astype(np.float64), 0) / gain
            whole = np.floor(electrons)
            whole += rng.random(whole.shape) < electrons - whole
            held = rng.binomial(whole.astype(np.int64), self.fraction)
            for part, counts, share in zip(parts, (whole - held, held), shares, strict=True):
                part[z] = counts * (gain / share)
        kept, held_out = (
            dataclasses.replace(
                problem, image=problem.backend.upload(part), highest=float(part.max()), gain=gain / share
            )
            for part, share in zip(parts, shares, strict=True)
        )
        return kept, held_out


def _object_error(held: Problem, data: Data, estimate: Array) -> float:
    """Sum over all frequencies of |G - B - H F|^2 / (|H|^2 + TAPER)."""
    model, xp = held.model, held.backend.xp
    nz, ny, nx = model.data_shape
    work = model.blur(estimate)
    residual = work[:nz, :ny, :nx]
    xp.subtract(data.image, residual, out=residual)
    residual -= np.float32(data.background)
    if data.background_image is not None:
        residual -= data.background_image
    if data.mask is not None:
        residual *= data.mask
    if isinstance(model, Unblurred):  # |H|^2 is 1 everywhere
        return float((residual.astype(np.float64) ** 2).sum())
    clear_behind(work, model.data_shape)
    model.fft.forward(work, model.spectrum)
    total = xp.zeros((), np.float64)
    for otf, spectrum in zip(model.otf, model.spectrum, strict=True):  # plane by plane: no array of the domain's size
        power = xp.abs(spectrum).astype(np.float64) ** 2 / ((xp.abs(otf) * float(model.size)) ** 2 + TAPER)
        # the half spectrum holds each column once, but the whole one all of them twice except 0 and, if even, the last
        total += 2 * power.sum() - power[:, 0].sum()
        if model.domain[2] % 2 == 0:
            total -= power[:, -1].sum()
    return float(total)
