"""Images of beads brought to one place and one scale, and their robust mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]

ITERATIONS = 2  # of Gauss-Newton, which starts within a tenth of a voxel
CLIP_SIGMAS = 5.0
FEWEST_FOR_CLIPPING = 5


def fourier_shift(data: Real, shift: Real) -> Real:
    """``data`` moved by ``shift`` voxels (to higher indices for positive ones), periodically, by a phase."""
    return Shiftable(data).shifted(shift)


class Shiftable:
    """An array whose shifted copies and their derivatives are wanted many times: its spectrum is kept."""

    def __init__(self, data: Real) -> None:
        from scipy import fft

        self._shape = data.shape
        self._spectrum = fft.rfftn(data)
        self._k = [fft.fftfreq(n) for n in data.shape[:-1]] + [fft.rfftfreq(data.shape[-1])]

    def shifted(self, shift: Real) -> Real:
        """The array moved by ``shift`` voxels."""
        return self._back(self._moved(shift))

    def shifted_with_slopes(self, shift: Real) -> list[Real]:
        """The moved array, and its derivatives along each axis, per voxel."""
        moved = self._moved(shift)
        slopes = []
        for axis, (k, n) in enumerate(zip(self._k, self._shape, strict=True)):
            factor = 2j * np.pi * np.where(np.abs(k) * 2 == 1, 0, k) if n % 2 == 0 else 2j * np.pi * k
            slopes.append(self._back(moved * self._along(factor, axis)))
        return [self._back(moved), *slopes]

    def _moved(self, shift: Real) -> NDArray[np.complex128]:
        spectrum = self._spectrum
        for axis, (k, n, s) in enumerate(zip(self._k, self._shape, shift, strict=True)):
            phase = np.exp(-2j * np.pi * k * s)
            if n % 2 == 0:
                phase[n // 2] = np.cos(np.pi * s)  # the Nyquist term stays real
            spectrum = spectrum * self._along(phase, axis)
        return np.asarray(spectrum)

    def _along(self, factor: NDArray[np.complex128], axis: int) -> NDArray[np.complex128]:
        return factor.reshape([-1 if a == axis else 1 for a in range(len(self._shape))])

    def _back(self, spectrum: NDArray[np.complex128]) -> Real:
        from scipy import fft

        return np.asarray(fft.irfftn(spectrum, self._shape))


@dataclass(frozen=True)
class Registration:
    """``window`` = ``amplitude`` template(x - ``shift``) + ``background``, and how well that holds near the centre.

    There, ``residual`` is the sum of the squared deviations, ``light`` the sum of the model without background,
    ``energy`` that of its squares, and ``dark`` the part of ``residual`` that the noise without light explains.
    """

    shift: Real
    amplitude: float
    background: float
    residual: float
    light: float
    energy: float
    dark: float
    voxels: int

    @property
    def gain(self) -> float:
        """Variance per light that would explain the residual."""
        return max((self.residual - self.dark) / max(self.light, 1e-30), 0.0)

    def deviation(self, gain: float) -> float:
        """Root mean square deviation from the template, relative to it, that noise of this ``gain`` cannot explain."""
        explained = (self.dark + gain * self.light) * (1 + 4 * np.sqrt(2 / self.voxels))
        return float(np.sqrt(max(self.residual - explained, 0.0) / max(self.energy, 1e-30)))


def register(
    window: Real,
    template: Shiftable,
    start: Real,
    noise: float,
    core: NDArray[np.bool_],
    inside: NDArray[np.bool_],
) -> Registration:
    """Weighted least squares for shift, amplitude and background, by Gauss-Newton from the shift ``start``.

    ``noise`` is the standard deviation in the dark; light adds variance in proportion to itself, by a factor that is
    found from the residual.  ``core`` marks the voxels near the centre, ``inside`` those that hold recorded values.
    """
    shift = np.array(start, np.float64)
    moved, *slopes = template.shifted_with_slopes(shift)
    found = _fitted(window, shift, moved, _least_squares([moved, np.ones_like(moved)], window, inside), noise, core)
    for _ in range(ITERATIONS):
        light = np.maximum(found.amplitude * moved, 0)
        weight = inside / (noise**2 + found.gain * light + 1e-9 * float(light.max()) ** 2 + 1e-30)
        columns = [moved, np.ones_like(moved), *(-found.amplitude * slope for slope in slopes)]
        solved = _least_squares(columns, window, weight)
        shift = shift + np.clip(solved[2:], -1, 1)
        moved, *slopes = template.shifted_with_slopes(shift)
        found = _fitted(window, shift, moved, solved, noise, core)
    return found


def _fitted(
    window: Real, shift: Real, moved: Real, solved: Real, noise: float, core: NDArray[np.bool_]
) -> Registration:
    amplitude, background = float(solved[0]), float(solved[1])
    model = amplitude * moved[core]
    return Registration(
        shift,
        amplitude,
        background,
        residual=float(((window[core] - model - background) ** 2).sum()),
        light=float(np.maximum(model, 0).sum()),
        energy=float((model**2).sum()),
        dark=noise**2 * model.size,
        voxels=model.size,
    )


def _least_squares(columns: list[Real], target: Real, weight: NDArray[Any]) -> Real:
    rows = np.stack([c.ravel() for c in columns])
    weighted = rows * weight.ravel()
    return np.asarray(np.linalg.lstsq(weighted @ rows.T, weighted @ target.ravel(), rcond=None)[0])


def robust_mean(windows: list[Real], found: list[Registration]) -> Real:
    """The mean of the windows after background, scale and shift are taken out, weighted by their amplitudes.

    Shot noise makes the variance of a scaled window the inverse of its amplitude.  With five beads or more, values
    further than 5 standard deviations from the median over the beads (its median absolute deviation, averaged with
    that of the neighbouring voxels) are left out: light of a neighbour, a hot pixel.
    """
    from scipy import ndimage

    amplitude = np.array([f.amplitude for f in found])
    stack = np.stack(
        [
            fourier_shift((w - f.background) / f.amplitude, -f.shift).astype(np.float32)
            for w, f in zip(windows, found, strict=True)
        ]
    )
    weight = np.broadcast_to(amplitude.astype(np.float32)[:, None, None, None], stack.shape)
    if len(stack) >= FEWEST_FOR_CLIPPING:
        middle = np.median(stack, axis=0)
        # the square root of the amplitude brings the scatter of all beads to one width
        scatter = np.abs(stack - middle) * np.sqrt(weight)
        limit = CLIP_SIGMAS * 1.4826 * ndimage.uniform_filter(np.median(scatter, axis=0), 3, mode="nearest")
        weight = np.where(scatter > limit, 0, weight)
    total = weight.sum(axis=0, dtype=np.float64)
    return np.asarray((stack * weight).sum(axis=0, dtype=np.float64) / np.maximum(total, 1e-30))
