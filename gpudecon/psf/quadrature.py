"""Gauss-Legendre quadrature of oscillating integrands: as many nodes as the phase asks for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]


def gauss_legendre(low: float, high: float, span: float) -> tuple[Real, Real]:
    """Nodes and weights on (low, high) for smooth amplitudes times exp(i phase), phase changing by ``span`` radians.

    For a linear phase the error falls beneath any power once there are more than span / 4 nodes; with 0.27 span + 24 it
    is rounding (1e-13 of the largest value in the tests).
    """
    from scipy.special import roots_legendre

    x, w = roots_legendre(24 + int(0.27 * span))
    return low + (high - low) * (x + 1) / 2, (high - low) * w / 2
