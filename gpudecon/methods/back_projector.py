"""Back projectors other than the adjoint: they undo part of the blur, so that few iterations suffice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array
from gpudecon.methods.noise import snr_of
from gpudecon.methods.problem import Data, Problem

ORDER = 10  # of the Butterworth filter, as in the paper

# Measured with bench/quality.py: larger constants are slower, smaller ones bring in noise or diverge where much of the
# light comes from outside the frame.
ALPHA_PER_INVERSE_SNR = 1.5
LEAST_ALPHA, MOST_ALPHA = 0.1, 1.0
CUTOFF_PER_ALPHA = 0.1

# Outside the frame, where the data say little, steps may be larger than inside by this factor at most.
LARGEST_RATE = 4.0


@dataclass(frozen=True)
class BackProjector:
    """``otf`` takes the place of H in H^T; ``rates``: the size of a step on the domain, 0 where nothing is seen."""

    otf: Array
    rates: Array


def automatic_alpha(problem: Problem) -> float:
    """The Wiener constant from the signal-to-noise ratio of the brightest structure: 1.5 / SNR within 0.1 and 1."""
    return float(np.clip(ALPHA_PER_INVERSE_SNR / max(snr_of(problem), 1e-3), LEAST_ALPHA, MOST_ALPHA))


def back_projector(
    problem: Problem, data: Data, weights: Array | None, kind: Literal["wb", "omw"], alpha: float, cutoff: float
) -> BackProjector:
    """Wiener filter conj(H) / (|H|^2 + alpha) times a band limit, scaled to 1 at frequency 0.

    "wb": the limit is a Butterworth filter whose half axes are the highest frequencies that are passed with |H| =
    ``cutoff`` (Guo et al., Nat. Biotechnol. 38, 2020).  "omw": it is 1 where |H| >= ``cutoff`` and 0 elsewhere
    (Ruan et al., 2024).
    """
    model, xp = problem.model, problem.backend.xp
    otf = xp.empty_like(model.otf)
    edges = _half_axes(problem, cutoff) if kind == "wb" else None
    for z in range(model.domain[0]):
        transfer = model.otf[z] * np.float32(model.size)
        power = transfer.real**2 + transfer.imag**2
        plane = transfer * (np.float32((1 + alpha) / model.size) / (power + np.float32(alpha)))
        if edges is None:
            plane *= power >= np.float32(cutoff) ** 2
        else:
            radius = edges[0][z] + edges[1][:, None] + edges[2]
            plane *= 1 / xp.sqrt(1 + xp.minimum(radius, 1e3) ** ORDER)
        otf[z] = plane
    rates = model.empty()
    if weights is None:
        rates[...] = 1
    else:
        xp.minimum(weights, np.float32(LARGEST_RATE), out=rates)
    return BackProjector(otf, rates)


def _half_axes(problem: Problem, cutoff: float) -> tuple[NDArray[np.float32], Array, Array]:
    """(k / k_c)^2 along each axis, where k_c is the highest frequency with |H| >= ``cutoff``, at least one step."""
    model, xp = problem.model, problem.backend.xp
    passed = xp.abs(model.otf) * np.float32(model.size) >= np.float32(cutoff)
    squares = []
    for axis, n in enumerate(model.domain):
        others = tuple(a for a in range(3) if a != axis)
        seen = problem.backend.download(passed.any(axis=others))
        k = np.abs(np.fft.fftfreq(n, 1 / n))[: len(seen)]
        squares.append(((k / max(float(k[seen].max(initial=0)), 1.0)) ** 2).astype(np.float32))
    return squares[0], problem.backend.upload(squares[1]), problem.backend.upload(squares[2])
