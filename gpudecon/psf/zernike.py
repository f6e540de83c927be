"""Zernike polynomials on the unit disc, of unit mean square, and their names and numbers.

    Z(n, m) = N R(n, |m|; rho) cos(m phi) for m >= 0, sin(|m| phi) for m < 0;  N = sqrt(n + 1), if m != 0 sqrt(2 n + 2)

with the radial polynomials R of Born & Wolf.  A coefficient is then the root mean square of its term over the pupil.
Numbers follow Noll (J. Opt. Soc. Am. 66, 1976), from 1, or the OSA / ANSI Z80.28 standard, from 0.
"""

from __future__ import annotations

from math import factorial, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpudecon.errors import InputError

Numbering = Literal["noll", "osa"]

NAMES: dict[str, tuple[int, int]] = {
    "piston": (0, 0),
    "tilt y": (1, -1),
    "tilt x": (1, 1),
    "astigmatism oblique": (2, -2),
    "defocus": (2, 0),
    "astigmatism vertical": (2, 2),
    "trefoil y": (3, -3),
    "coma y": (3, -1),
    "coma x": (3, 1),
    "trefoil x": (3, 3),
    "quadrafoil oblique": (4, -4),
    "secondary astigmatism oblique": (4, -2),
    "spherical": (4, 0),
    "secondary astigmatism vertical": (4, 2),
    "quadrafoil vertical": (4, 4),
    "secondary spherical": (6, 0),
}
HIGHEST_ORDER = 40  # beyond it the radial sum cancels


def zernike(n: int, m: int, rho: NDArray[Any], phi: NDArray[Any]) -> NDArray[np.float64]:
    """Z(n, m) at the polar coordinates rho (0 to 1) and phi, any shapes that broadcast."""
    a = abs(m)
    radial = np.zeros_like(rho, np.float64)
    for k in range((n - a) // 2 + 1):
        terms = factorial(k) * factorial((n + a) // 2 - k) * factorial((n - a) // 2 - k)
        radial = radial + (-1) ** k * (factorial(n - k) // terms) * rho ** (n - 2 * k)
    angular = np.cos(m * phi) if m >= 0 else np.sin(a * phi)
    return np.asarray(sqrt((n + 1) * (1 if m == 0 else 2)) * radial * angular)


def noll(j: int) -> tuple[int, int]:
    """(n, m) of Noll's number ``j`` = 1, 2, ...; even numbers are cosines."""
    n = int((sqrt(8 * j - 7) - 1) / 2)
    place = j - n * (n + 1) // 2 - 1  # within the order n, by rising |m|
    m = 2 * ((place + 1) // 2) if n % 2 == 0 else 2 * (place // 2) + 1
    return n, m if j % 2 == 0 else -m


def osa(j: int) -> tuple[int, int]:
    """(n, m) of the OSA / ANSI number ``j`` = 0, 1, ..."""
    n = int((sqrt(8 * j + 1) - 1) / 2)
    return n, 2 * j - n * (n + 2)


def mode(key: int | str, numbering: Numbering = "noll") -> tuple[int, int]:
    """(n, m) of a mode given by its number or by a name of `NAMES`."""
    if isinstance(key, str):
        if key not in NAMES:
            raise InputError(f"Unknown Zernike mode {key!r}; use a number or one of {', '.join(NAMES)}.")
        return NAMES[key]
    if numbering not in ("noll", "osa"):
        raise InputError(f"Unknown numbering {numbering!r} of Zernike modes; use 'noll' or 'osa'.")
    first = 1 if numbering == "noll" else 0
    last = (HIGHEST_ORDER + 1) * (HIGHEST_ORDER + 2) // 2 - 1 + first
    if isinstance(key, bool) or not isinstance(key, int | np.integer) or not first <= key <= last:
        raise InputError(f"Zernike mode {key!r} does not exist: {numbering} numbers run from {first} (to {last} here).")
    return noll(int(key)) if numbering == "noll" else osa(int(key))
