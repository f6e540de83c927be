"""Back projectors other than the adjoint: they undo part of the blur, so that few iterations suffice."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array
from gpudecon.methods.noise import snr_of
from gpudecon.methods.problem import Data, Problem

ORDER = 10  # of the Butterworth filter, as in the paper

# Found on phantoms: larger constants are slower, smaller ones bring in noise, or diverge where light comes from outside
# the frame.
ALPHA_PER_INVERSE_SNR = 1.5
LEAST_ALPHA, MOST_ALPHA = 0.1, 1.0
CUTOFF_PER_ALPHA = 0.3


class BackProjector:
    """f <- f max(1 + B( g / (H f + b) - 1 ), 1/2)  with  B = W H^T,  W = (1 + alpha) / (|H|^2 + alpha) times a limit.

    "wb": the limit is a Butterworth filter whose half axes are the highest frequencies that are passed with |H| =
    ``cutoff`` (Guo et al., Nat. Biotechnol. 38, 2020).  "omw": it is a mask of what the OTF passes (Ruan et al. 2024),
    (1 + cutoff^4) |H|^4 / (|H|^4 + cutoff^4): one with a sharp border rings across the faces.

    Where light is not measured everywhere (edges "extend", masks) a B at once would meet the jump at the frame's faces
    and put what comes from outside onto them.  There the correction of a plain step, H^T( g / (H f + b) ) / H^T 1 - 1,
    which goes on smoothly across the faces, is made first, and W then undoes the blur in it: six transforms for four.
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
        self._data, self._weights = data, weights
        self._otf = _sharpening(problem, kind, alpha, cutoff)
        if weights is None:
            self._otf *= self._model.otf
        else:
            self._otf *= np.float32(1 / self._model.size)

    def factor(self) -> Array:
        """``work`` <- the factor of the update, where it is H f."""
        model, ops, data, work = self._model, self._ops, self._data, self._model.work
        if self._weights is None:
            ops.rl_excess(work, data.image, *data.scene)
            model.adjoint(self._otf)
        else:
            ops.rl_ratio(work, data.image, *data.scene)
            model.adjoint()
            ops.rl_correction(work, self._weights)
            model.correlate(self._otf)
        ops.rl_unmatched_factor(work, self._weights)
        return work


def automatic_alpha(problem: Problem) -> float:
    """The Wiener constant from the signal-to-noise ratio of the brightest structure: 1.5 / SNR within 0.1 and 1."""
    return float(np.clip(ALPHA_PER_INVERSE_SNR / max(snr_of(problem), 1e-3), LEAST_ALPHA, MOST_ALPHA))


def _sharpening(problem: Problem, kind: Literal["wb", "omw"], alpha: float, cutoff: float) -> Array:
    """W on the half spectrum, complex64."""
    model, xp = problem.model, problem.backend.xp
    otf = xp.empty_like(model.otf)
    squares = _relative_squares(problem, cutoff) if kind == "wb" else None
    for z in range(model.domain[0]):
        power = xp.abs(model.otf[z] * np.float32(model.size)) ** 2
        plane = np.float32(1 + alpha) / (power + np.float32(alpha))
        if squares is None:
            fourth = np.float32(cutoff) ** 4
            plane *= (1 + fourth) * power**2 / (power**2 + fourth)
        else:
            radius = squares[0][z] + squares[1][:, None] + squares[2]
            plane /= xp.sqrt(1 + xp.minimum(radius, np.float32(1e3)) ** ORDER)
        otf[z] = plane
    return otf


def _relative_squares(problem: Problem, cutoff: float) -> tuple[NDArray[np.float32], Array, Array]:
    """(k / k_c)^2 along each axis, where k_c is the highest frequency with |H| >= ``cutoff``, at least one step.

    For k, in cycles per voxel, stands sin(pi k): k itself has a kink at the sampling limit, by which the filter's
    kernel would reach through the whole image.
    """
    model, xp = problem.model, problem.backend.xp

    def highest_passed() -> list[float]:
        passed = xp.abs(model.otf) * np.float32(model.size) >= np.float32(cutoff)
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
