"""Decorrelation analysis: the resolution of one image without a truth (Descloux et al., Nat. Methods 16, 2019)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.errors import InputError
from gpudecon.methods.spectrum import fading
from gpudecon.quality.metrics import check_finite

FILTERS = 10  # high-pass filters in each of the two series
LEAST_DROP = 5e-4  # a peak falls by this at least towards higher frequencies
LEAST_PEAK = 0.05  # lower peaks are noise


def decorrelation_resolution_um(image: NDArray[Any], voxel_um: tuple[float, ...], direction: str = "xy") -> float:
    """Resolution in um, 1 / the cut-off frequency of what the image holds above its noise; infinite if nothing.

    The spectrum F is correlated with itself normalised to phases, F / |F|, within radius r::

        d(r) = sum_(k<r) |F| / sqrt( sum |F|^2 * number of (k<r) )

    which rises as long as frequencies with signal come in and falls when noise comes in.  The position of its largest
    maximum over a series of Gaussian high-pass filters of the image, which weaken coarse structure step by step, and
    over a second, finer series about the best of the first, is the cut-off.

    ``direction`` "xy" gathers all planes (y, x); "z" the sections (z, x) and (z, y), frequencies within 45 degrees of
    the z axis only.  Frequencies are physical, so voxels may be anisotropic.  The image should be sampled finely enough
    for its cut-off to lie well within the spectrum.
    """
    image = np.asarray(image, np.float64)
    if image.ndim not in (2, 3) or direction not in ("xy", "z") or (direction == "z" and image.ndim == 2):
        raise InputError(
            f"direction is {direction!r} for an image of {image.ndim} dimensions; use 'xy', or 'z' in 3-D."
        )
    check_finite(image, "The image")
    if direction == "xy":
        cut_off = _cut_off(image.reshape(-1, *image.shape[-2:]), voxel_um[-2:], is_axial=False)
    else:
        cut_off = min(
            _cut_off(np.moveaxis(image, across, 0), (voxel_um[0], voxel_um[3 - across]), is_axial=True)
            for across in (1, 2)
        )
    return 1 / cut_off if cut_off > 0 else float("inf")


def _cut_off(sections: NDArray[np.float64], pixel_um: tuple[float, ...], *, is_axial: bool) -> float:
    """The cut-off frequency in 1/um of all sections (n, a, b) together; 0 if they hold noise only."""
    rings = _Rings(sections, pixel_um, is_axial=is_axial)
    start, _ = rings.peak(0.0)
    if start == 0:
        return 0.0
    finest, coarsest = 0.15 * min(pixel_um), max(n * v for n, v in zip(sections.shape[1:], pixel_um, strict=True)) / 4
    widths = np.concatenate([[coarsest], np.geomspace(1 / start, finest, FILTERS)])
    found = [rings.peak(width) for width in widths]
    best = int(np.argmax([frequency if height > LEAST_PEAK else 0.0 for frequency, height in found]))
    around = widths[max(best - 1, 0)], widths[min(best + 1, len(widths) - 1)]
    found += [rings.peak(width) for width in np.geomspace(*around, FILTERS)]
    return max([start, *(frequency for frequency, height in found if height > LEAST_PEAK)])


class _Rings:
    """Sums of |F| and |F|^2 over rings of frequency, of all sections: all that d(r) needs, whatever the filter."""

    def __init__(self, sections: NDArray[np.float64], pixel_um: tuple[float, ...], *, is_axial: bool) -> None:
        shape = sections.shape[1:]
        window = np.multiply.outer(*(fading(n).astype(np.float64) for n in shape))
        first, second = (np.abs(np.fft.fftfreq(n, v)) for n, v in zip(shape, pixel_um, strict=True))
        radius = np.hypot(first[:, None], second)
        nyquist = 0.5 / pixel_um[0] if is_axial else 0.5 / max(pixel_um)
        self.width = (
            1 / (shape[0] * pixel_um[0]) if is_axial else max(1 / (n * v) for n, v in zip(shape, pixel_um, strict=True))
        )
        inside = (radius > 0.5 * self.width) & (radius <= nyquist)
        if is_axial:
            inside &= first[:, None] >= second
        ring = np.rint(radius[inside] / self.width).astype(int)
        rings = int(ring.max(initial=1)) + 1
        amplitude, power = np.zeros(rings), np.zeros(rings)
        for section in sections:
            spectrum = np.abs(np.fft.fft2((section - section.mean()) * window))[inside]
            amplitude += np.bincount(ring, weights=spectrum, minlength=rings)
            power += np.bincount(ring, weights=spectrum**2, minlength=rings)
        self.amplitude, self.power = amplitude, power
        self.number = np.bincount(ring, minlength=rings) * float(len(sections))

    def peak(self, sigma_um: float) -> tuple[float, float]:
        """(Frequency, height) of the maximum of d(r) after the high-pass 1 - exp(-2 pi^2 sigma^2 f^2); (0, 0): none.

        A maximum at the end of the curve, or one from which it hardly falls, is none: the curve is shortened.
        """
        frequency = np.arange(len(self.power)) * self.width
        passed = -np.expm1(-2 * (np.pi * sigma_um * frequency) ** 2) if sigma_um > 0 else np.ones(len(frequency))
        energy = float((self.power * passed**2).sum())
        if energy == 0:
            return 0.0, 0.0
        curve = np.cumsum(self.amplitude * passed) / np.sqrt(energy * np.maximum(np.cumsum(self.number), 1))
        end = len(curve)
        while end > 1:
            top = int(np.argmax(curve[:end]))
            if top == 0:
                break
            if top < end - 1 and curve[top] - curve[top:end].min() >= LEAST_DROP:
                return float(frequency[top]), float(curve[top])
            end -= 1
        return 0.0, 0.0
