"""From a radial table to voxels: expansion over one quadrant, the mean over each pixel, mirror images.

A camera's pixel averages over its area.  For the band-limited function that a PSF is, that is a product of its spectrum
with sinc(k_y p_y) sinc(k_x p_x) for pixels of p_y by p_x.  Here the product is carried out in space, where nothing
wraps around: along each axis, a mean over a pixel is a weighted sum of samples (fine enough, and some of them outside
the pixel) with weights whose spectrum is that sinc wherever the PSF's spectrum is not 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpudecon.backend import Array, Backend
from gpudecon.errors import InputError
from gpudecon.psf.quadrature import Real

# Samples on each side of a pixel's centre, besides those inside, and the cutoff in cycles per sample that they allow:
# together they bound the error of the sinc by 3e-7.
TAPS = 12
LARGEST_CUTOFF = 0.375


def check_shape(shape: tuple[int, ...]) -> None:
    """Raise an `InputError` unless a PSF may have this shape."""
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise InputError(f"shape is {shape}; it must be (z, y, x) or (y, x), each at least 1.")


@dataclass(frozen=True)
class Lateral:
    """One lateral axis: where it is sampled, and how samples are averaged into pixels.

    ``samples`` (m,) in um from the centre, of pitch ``pitch_um``; ``average`` (pixels, m) makes pixels of them, None
    where each sample is one.  `quadrant` gives the half of them from the centre on, for a function that is even.
    """

    length: int
    samples: Real
    pitch_um: float
    average: Real | None

    @classmethod
    def of(cls, length: int, pixel_um: float, cutoff: float | None) -> Lateral:
        """``length`` pixels around length // 2: means over each for spectra up to ``cutoff`` cycles per um, which may
        need finer samples; None samples their middles.
        """
        if cutoff is None:
            return cls(
                length, np.arange(-(length // 2), length - length // 2, dtype=np.float64) * pixel_um, pixel_um, None
            )
        parts = max(1, int(np.ceil(cutoff * pixel_um / LARGEST_CUTOFF - 1e-9)))
        pitch = pixel_um / parts
        weights = box_weights(cutoff * pitch, parts)
        reach = len(weights) - 1
        average = np.zeros((length, (length - 1) * parts + 2 * reach + 1))
        for offset in range(-reach, reach + 1):
            average[np.arange(length), np.arange(length) * parts + reach + offset] = weights[abs(offset)]
        samples = (np.arange(average.shape[1], dtype=np.float64) - (length // 2 * parts + reach)) * pitch
        return cls(length, samples, pitch, average)

    @property
    def quadrant(self) -> Lateral:
        """The pixels from the centre outwards, made of samples from the centre outwards."""
        order = np.rint(np.abs(self.samples) / self.pitch_um).astype(int)
        samples = np.arange(order.max() + 1, dtype=np.float64) * self.pitch_um
        if self.average is None:
            return Lateral(self.length, samples, self.pitch_um, None)
        folded = np.zeros((self.length, len(samples)))
        np.add.at(folded.T, order, self.average.T)
        return Lateral(self.length, samples, self.pitch_um, folded[self.length // 2 :: -1])


def box_weights(cutoff: float, parts: int) -> Real:
    """Weights w_0 ... w_T with w_0 + 2 sum w_t cos(2 pi f t) = sinc(f parts) up to f = ``cutoff`` cycles per sample.

    They average a function, sampled ``parts`` times per pixel, over the pixel; least squares over the band.
    """
    reach = TAPS + parts // 2
    f = cutoff * (1 + np.cos(np.pi * (np.arange(8 * reach) + 0.5) / (8 * reach))) / 2
    waves = 2 * np.cos(2 * np.pi * np.multiply.outer(f, np.arange(reach + 1)))
    waves[:, 0] = 1
    return np.asarray(np.linalg.lstsq(waves, np.sinc(f * parts), rcond=1e-13)[0])


def expanded(backend: Backend, table: Array, step_um: float, y: Lateral, x: Lateral) -> Array:
    """The samples (z, y, x), float32, of quadrants ``y``, ``x`` from a float32 table (z, r) of pitch ``step_um``."""
    out = backend.xp.empty((len(table), len(y.samples), len(x.samples)), np.float32)
    backend.ops.radial_expand(out, table, 0.0, 0.0, y.pitch_um / step_um, x.pitch_um / step_um)
    return out


def averaged(backend: Backend, samples: Array, y: Lateral, x: Lateral) -> Array:
    """Pixels (z, y, x) of samples (z, y, x), float32."""
    for axis in (x, y):
        # the last axis becomes the middle one, twice; one large product each instead of one for every plane
        nz, rows, m = samples.shape
        if axis.average is not None:
            matrix = backend.xp.asarray(axis.average.T.astype(np.float32))
            samples = (samples.reshape(nz * rows, m) @ matrix).reshape(nz, rows, -1)
        samples = samples.transpose(0, 2, 1)
    return samples


def mirrored(backend: Backend, pixels: Array, length_y: int, length_x: int) -> Array:
    """The whole planes (z, length_y, length_x) of a quadrant, centre at length // 2."""
    cy, cx = length_y // 2, length_x // 2
    out = backend.xp.empty((len(pixels), length_y, length_x), np.float32)
    for rows, from_rows in ((slice(cy, None), slice(0, length_y - cy)), (slice(0, cy), slice(cy, 0, -1))):
        out[:, rows, cx:] = pixels[:, from_rows, : length_x - cx]
        out[:, rows, :cx] = pixels[:, from_rows, cx:0:-1]
    return out
