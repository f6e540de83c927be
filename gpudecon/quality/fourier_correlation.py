"""Resolution by Fourier shell correlation: against the truth, between two recordings, and of a single recording."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpudecon.errors import InputError
from gpudecon.quality.metrics import check_comparable, check_finite

Threshold = float | Literal["half-bit"]

ONE_SEVENTH = 1 / 7
FEW = 8


@dataclass(frozen=True)
class ShellCorrelation:
    """Correlation of two images by spatial frequency.

    ``frequency`` in 1/um; ``correlation`` in each shell; ``independent``, about how many independent Fourier
    coefficients a shell holds, since a windowed image has fewer than frequencies and k and -k are one.
    """

    frequency: NDArray[np.float64]
    correlation: NDArray[np.float64]
    independent: NDArray[np.float64]

    def half_bit(self) -> NDArray[np.float64]:
        """The correlation at which a shell holds half a bit per coefficient (van Heel & Schatz, J. Struct. Biol. 151,
        2005):  (0.2071 + 1.9102 / sqrt n) / (1.2071 + 0.9102 / sqrt n).
        """
        root = np.sqrt(self.independent)
        return np.asarray(np.minimum((0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root), 1.0))

    def resolution_um(self, threshold: Threshold) -> float:
        """1 / the frequency at which the correlation first falls below the threshold, a number or "half-bit".

        Where it never does, the finest period that the sampling carries, about two voxels; where no shell before the
        first that is below it is above, infinity.  The coarsest shells, of fewer than `FEW` independent coefficients,
        are not asked, since they correlate by chance, but where the first shell that is asked is below: then the fall
        lies among them, after one that also exceeds the half-bit criterion.
        """
        if threshold == "half-bit":
            level = self.half_bit()
        elif isinstance(threshold, Real) and 0 < threshold < 1:
            level = np.full(len(self.frequency), threshold)
        else:
            raise InputError(f"threshold is {threshold!r}; give a correlation between 0 and 1, or 'half-bit'.")
        if self.independent.max() < FEW:
            raise InputError(
                f"The image is too small to tell a resolution: no shell of its spectrum holds {FEW} independent "
                "coefficients; give a larger one."
            )
        margin = self.correlation - level
        start = int(np.argmax(self.independent >= FEW))
        if margin[start] < 0:
            sure = np.minimum(margin, self.correlation - self.half_bit())[:start] >= 0
            if not sure.any():
                return float("inf")
            start = int(np.argmax(sure))
        below = start + np.flatnonzero(margin[start:] < 0)
        if below.size == 0:
            return float(1 / self.frequency[-1])
        i = int(below[0])
        fraction = margin[i - 1] / (margin[i - 1] - margin[i])
        return float(1 / (self.frequency[i - 1] + fraction * (self.frequency[i] - self.frequency[i - 1])))


def shell_correlation(
    first: NDArray[Any], second: NDArray[Any], voxel_um: tuple[float, ...], direction: str = "xy"
) -> ShellCorrelation:
    """Re sum(F conj(T)) / sqrt(sum |F|^2 sum |T|^2) over shells of physical frequency.

    (Saxton & Baumeister, J. Microsc. 127, 1982.)  ``direction`` "xy" takes the frequencies within 45 degrees of the
    lateral plane, "z" the others; images (y, x) have "xy" only.  A Hann window along each axis keeps the faces from
    correlating.
    """
    check_comparable(first, second)
    if direction not in ("xy", "z") or (direction == "z" and first.ndim == 2):
        raise InputError(
            f"direction is {direction!r} for an image of {first.ndim} dimensions; use 'xy', or 'z' in 3-D."
        )
    window, kept = np.ones(first.shape), 1.0
    for axis, n in enumerate(first.shape):
        hann = np.hanning(n + 2)[1:-1]
        window *= hann.reshape([-1 if a == axis else 1 for a in range(first.ndim)])
        kept *= float((hann**2).sum() ** 2 / (hann**4).sum()) / n
    spectra = [np.fft.fftn((a - np.mean(a)) * window) for a in (np.asarray(first, float), np.asarray(second, float))]
    frequency = np.meshgrid(
        *(np.fft.fftfreq(n, v) for n, v in zip(first.shape, voxel_um, strict=True)), indexing="ij", sparse=True
    )
    lateral = np.sqrt(frequency[-1] ** 2 + frequency[-2] ** 2)
    axial = np.abs(frequency[0]) if first.ndim == 3 else np.zeros(1)
    wanted = np.broadcast_to(lateral >= axial if direction == "xy" else axial > lateral, first.shape)
    radius = np.sqrt(lateral**2 + axial**2)
    axes = [first.ndim - 1, first.ndim - 2] if direction == "xy" else [0]
    width = max(1 / (first.shape[a] * voxel_um[a]) for a in axes)
    nyquist = min(0.5 / voxel_um[a] for a in axes)
    shells = max(int(nyquist / width), 1)
    index = np.broadcast_to(np.rint(radius / width).astype(int), first.shape)
    inside = wanted & (index >= 1) & (index <= shells)

    def over_shells(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.bincount(index[inside], weights=values[inside], minlength=shells + 1)
        return np.asarray(sums[1:], np.float64)

    f, t = spectra
    cross = over_shells((f * t.conj()).real)
    norm = np.sqrt(over_shells(np.abs(f) ** 2) * over_shells(np.abs(t) ** 2))
    independent = np.maximum(over_shells(np.ones(first.shape)) * kept / 2, 1.0)
    return ShellCorrelation(
        np.arange(1, shells + 1) * width, cross / np.maximum(norm, np.finfo(float).tiny), independent
    )


def fourier_correlation(
    image: NDArray[Any], truth: NDArray[Any], voxel_um: tuple[float, ...], direction: str = "xy"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(Spatial frequencies in 1/um, correlation in each shell); see `shell_correlation`."""
    curve = shell_correlation(image, truth, voxel_um, direction)
    return curve.frequency, curve.correlation


def resolution_um(
    image: NDArray[Any],
    truth: NDArray[Any],
    voxel_um: tuple[float, ...],
    direction: str = "xy",
    threshold: Threshold = 0.5,
) -> float:
    """Resolution in um against the truth: where their correlation first falls below 0.5.

    With a truth without noise, 0.5 is where as much of the image's power is wrong as a signal-to-noise ratio of 1/3
    would bring about.
    """
    return shell_correlation(image, truth, voxel_um, direction).resolution_um(threshold)


def recording_resolution_um(
    first: NDArray[Any],
    second: NDArray[Any],
    voxel_um: tuple[float, ...],
    direction: str = "xy",
    threshold: Threshold = ONE_SEVENTH,
) -> float:
    """Resolution in um of two recordings of the same scene with independent noise.

    ``threshold`` 1/7 (Nieuwenhuizen et al., Nat. Methods 10, 2013; 0.143 of Rosenthal & Henderson, J. Mol. Biol. 333,
    2003, is the same to the third digit) is the usual one; "half-bit" rises where shells hold few frequencies, so that
    chance is not taken for detail in small images.  Two restorations may be compared where each has seen one recording
    only.
    """
    return shell_correlation(first, second, voxel_um, direction).resolution_um(threshold)


def split_counts(
    image: NDArray[Any], *, gain: float, offset: float = 0.0, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two images of half the photo-electrons each, with independent shot noise, in electrons.

    Each electron, (image - offset) / gain of them rounded at random, goes to one of the two by the toss of a coin:
    halves of a Poisson count are independent Poisson counts.  Read noise is split with the counts and leaves a small
    negative correlation, and a wrong gain a positive one (too large) or negative one (too small).
    """
    if not gain > 0:
        raise InputError(f"split_counts: gain is {gain}; it must be positive, in grey values per photo-electron.")
    check_finite(image, "The image")
    rng = np.random.default_rng(seed)
    electrons = np.maximum((np.asarray(image, np.float64) - offset) / gain, 0)
    whole = np.floor(electrons)
    whole += rng.random(whole.shape) < electrons - whole
    first = rng.binomial(whole.astype(np.int64), 0.5)
    return first.astype(np.float64), whole - first


def single_resolution_um(
    image: NDArray[Any],
    voxel_um: tuple[float, ...],
    *,
    gain: float,
    offset: float = 0.0,
    direction: str = "xy",
    threshold: Threshold = ONE_SEVENTH,
    seed: int = 0,
) -> float:
    """Resolution in um of a single raw recording, from its split into two halves (`split_counts`).

    Each half has half of the light, so it is slightly coarser than that of the whole.  Only for raw images: what was
    filtered or restored has correlated noise, which a split does not make independent.
    """
    return recording_resolution_um(
        *split_counts(image, gain=gain, offset=offset, seed=seed), voxel_um, direction, threshold
    )
