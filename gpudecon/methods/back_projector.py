"""Back projectors other than the adjoint: they undo part of the blur, so that few iterations suffice."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array
from gpudecon.methods.noise import snr_of
from gpudecon.methods.problem import Data, Problem
from gpudecon.methods.spectrum import energy

# Found on phantoms, with momentum: larger constants are slower, smaller ones bring in noise, or diverge where light
# comes from outside the frame.
ALPHA_PER_INVERSE_SNR = 5.0
LEAST_ALPHA, MOST_ALPHA = 0.35, 1.0
CUTOFF_PER_ALPHA = 0.01
LEAST_SHARE = 0.2  # of B 1 that is divided by
REST = 3  # every so many steps are with H^T where not all is measured


class BackProjector:
    """f <- f max(1 + B( g / (H f + b) - 1 ) / B 1, 1/2)  with  B = W H^T,  W = (1 + alpha) / (|H|^2 + alpha) times a
    limit, where B 1 is 1 unless something is not measured.

    "wb": the limit is a Butterworth filter whose half axes are the highest frequencies that are passed with |H| =
    ``cutoff`` (Guo et al., Nat. Biotechnol. 38, 2020).  "omw": it is a mask of what the OTF passes (Ruan et al. 2024),
    (1 + cutoff^4) |H|^4 / (|H|^4 + cutoff^4): one with a sharp border rings across the faces.

    Where light is not measured (edges "extend", masks) the excess g / (H f + b) - 1 is 0, which B would take for what
    the model foresees.  Dividing by B 1, or `LEAST_SHARE` if that is more, mends it.  What has next to no share, or a
    negative one, keeps its value, and is left to the steps with H^T, every third.
    """

    def __init__(
        self,
        problem: Problem,
        data: Data,
        weights: Array | None,
        kind: Literal["wb", "omw"],
        alpha: float,
        cutoff: float,
    ) -> None:
        self._model, self._ops = problem.model, problem.backend.ops
        self._data = data
        self._otf = _sharpened(problem, kind, alpha, cutoff)
        # noted, since a part without a masked voxel has no weights where the whole has
        self._rests = bool(problem.record.number("rests", lambda: weights is not None))
        self._weights = None if weights is None else self._model.inverse_sensitivity(data.mask, self._otf, LEAST_SHARE)

    def rests(self, k: int) -> bool:
        """Whether step k, from 1, is to be one with H^T."""
        return self._rests and k % REST == 0

    def factor(self) -> Array:
        """``work`` <- the factor of the update, where it is H f."""
        model, ops, data, work = self._model, self._ops, self._data, self._model.work
        ops.rl_excess(work, data.image, *data.scene)
        model.adjoint(self._otf)
        ops.rl_unmatched_factor(work, self._weights)
        return work


def automatic_alpha(problem: Problem) -> float:
    """The Wiener constant from the signal-to-noise ratio of the brightest structure: 5 / SNR within 0.35 and 1."""
    return float(np.clip(ALPHA_PER_INVERSE_SNR / max(snr_of(problem), 1e-3), LEAST_ALPHA, MOST_ALPHA))


def _sharpened(problem: Problem, kind: Literal["wb", "omw"], alpha: float, cutoff: float) -> Array:
    """The transfer function of the adjoint of B, complex64 on the half spectrum."""
    model, xp = problem.model, problem.backend.xp
    otf = xp.empty_like(model.otf)
    squares = _relative_squares(problem, cutoff) if kind == "wb" else None
    for z in range(model.domain[0]):
        power = energy(model.otf[z]) * np.float32(model.size) ** 2
        plane = np.float32(1 + alpha) / (power + np.float32(alpha))
        if squares is None:
            fourth = np.float32(cutoff) ** 4
            plane *= (1 + fourth) * power**2 / (power**2 + fourth)
        else:
            square = xp.minimum(squares[0][z] + squares[1][:, None] + squares[2], np.float32(1e3))
            fifth = square**2  # the filter is of order 10, as in the paper; general powers are slow
            fifth *= fifth
            fifth *= square
            plane /= xp.sqrt(1 + fifth**2)
        xp.multiply(model.otf[z], plane, out=otf[z])
    return otf


def _relative_squares(problem: Problem, cutoff: float) -> tuple[NDArray[np.float32], Array, Array]:
    """(k / k_c)^2 along each axis, where k_c is the highest frequency with |H| >= ``cutoff``, at least one step.

    For k, in cycles per voxel, stands sin(pi k): k itself has a kink at the sampling limit, by which the filter's
    kernel would reach through the whole image.
    """
    model = problem.model

    def highest_passed() -> list[float]:
        passed = energy(model.otf) >= np.float32(cutoff / model.size) ** 2
        ends = []
        for axis, n in enumerate(model.domain):
            seen = problem.backend.download(passed.any(axis=tuple(a for a in range(3) if a != axis)))
            k = np.abs(np.fft.fftfreq(n, 1 / n))[: len(seen)]
            ends.append(max(float(k[seen].max(initial=0)), 1.0) / n)
        return ends

    # recorded, since it is found on the domain's own grid of frequencies, which parts of an image do not share
    ends = problem.record.numbers("passed", highest_passed)
    z, y, x = (
        ((np.sin(np.pi * np.fft.fftfreq(n)) / np.sin(np.pi * end)) ** 2).astype(np.float32)
        for n, end in zip(model.domain, ends, strict=True)
    )
    x = x[: model.domain[2] // 2 + 1]
    return z, problem.backend.upload(y), problem.backend.upload(x)
