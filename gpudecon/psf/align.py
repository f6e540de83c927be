"""Images of beads brought to one place and one scale, and their robust mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]

ITERATIONS = 3  # of Gauss-Newton; it starts within a tenth of a voxel
CLIP_SIGMAS = 5.0
FEWEST_FOR_CLIPPING = 5


def fourier_shift(data: Real, shift: Real) -> Real:
    """``data`` moved by ``shift`` voxels (to higher indices for positive ones), periodically, by a phase."""
    from scipy import fft

    spectrum = fft.rfftn(data)
    for axis, s in enumerate(shift):
        n = data.shape[axis]
        k = fft.rfftfreq(n) if axis == data.ndim - 1 else fft.fftfreq(n)
        phase = np.exp(-2j * np.pi * k * s)
        if n % 2 == 0:
            phase[n // 2] = np.cos(np.pi * s)  # the Nyquist term stays real
        spectrum *= phase.reshape([-1 if a == axis else 1 for a in range(data.ndim)])
    return np.asarray(fft.irfftn(spectrum, data.shape))


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


def register(window: Real, template: Real, start: Real, noise: float, core: NDArray[np.bool_]) -> Registration:
    """Weighted least squares for shift, amplitude and background, by Gauss-Newton from the shift ``start``.

    ``noise`` is the standard deviation in the dark; light adds variance in proportion to itself, by a factor that is
    found from the residual.  ``core`` marks the voxels near the centre.
    """
    shift = np.array(start, np.float64)
    weight = np.ones(window.shape)
    gradient = _gradient(template)
    for iteration in range(ITERATIONS + 1):
        moved = fourier_shift(template, shift)
        columns = [moved, np.ones_like(moved)]
        if iteration:  # amplitude and background first, then the shift with them
            columns += [-found.amplitude * fourier_shift(g, shift) for g in gradient]
        solved = _least_squares(columns, window, weight)
        model, background = solved[0] * moved, float(solved[1])
        if iteration:
            shift = shift + np.clip(solved[2:], -1, 1)
        light = np.maximum(model, 0)
        residual = float(((window - model - background)[core] ** 2).sum())
        found = Registration(
            shift,
            float(solved[0]),
            background,
            residual,
            float(light[core].sum()),
            float((model[core] ** 2).sum()),
            noise**2 * int(core.sum()),
            int(core.sum()),
        )
        weight = 1 / (noise**2 + found.gain * light + 1e-9 * float(light.max()) ** 2 + 1e-30)
    return found


def _gradient(template: Real) -> list[Real]:
    """Derivatives along each axis, in the units of a voxel, by the factor i k."""
    from scipy import fft

    spectrum = fft.rfftn(template)
    derivatives = []
    for axis, n in enumerate(template.shape):
        k = fft.rfftfreq(n) if axis == template.ndim - 1 else fft.fftfreq(n)
        if n % 2 == 0:
            k[n // 2] = 0.0  # the Nyquist term has no derivative on this grid
        factor = (2j * np.pi * k).reshape([-1 if a == axis else 1 for a in range(template.ndim)])
        derivatives.append(np.asarray(fft.irfftn(spectrum * factor, template.shape)))
    return derivatives


def _least_squares(columns: list[Real], target: Real, weight: Real) -> Real:
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
