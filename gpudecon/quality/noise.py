"""The noise of one recording: the camera, read off the image, and the SNR of its brightest structure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import get_backend
from gpudecon.camera import Camera
from gpudecon.errors import InputError
from gpudecon.forward import ForwardModel, Unblurred
from gpudecon.methods.noise import snr_of
from gpudecon.methods.photon_transfer import differences, fitted_line
from gpudecon.methods.problem import Problem
from gpudecon.psf.psf import PSF, as_psf
from gpudecon.quality.background import estimate_background
from gpudecon.quality.metrics import check_finite

DARKEST = 0.02  # the fraction of the image that is taken to have received no light, where the offset is asked for
CERTAIN = 6  # standard errors of the slope: boxes overlap, so that even noise reaches 4 of them
ROUNDING = 1 / 12  # variance of rounding to whole grey values


def estimate_camera(
    image: NDArray[Any],
    *,
    offset: float | None = None,
    gain: float | None = None,
    read_noise: float | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> Camera:
    """Offset, gain and read noise from one raw image (z, y, x) or (y, x); what is given is kept.

    The gain is the slope of the noise's variance over the level, with the noise read from fourth differences between
    neighbours, in which a specimen that is sampled finely enough cancels (see `gpudecon.methods.photon_transfer`).

    A level without light cannot be told from one with even light by one image alone.  So the offset, if not given, is
    taken to be the level of the darkest 2 %: right where they see no light, else too high by the light there.  The read
    noise is what the variance at the darkest level has beyond the shot noise of  (level - offset) / gain  electrons and
    the rounding of integers; it inherits the offset's error.  ``mask`` is True where a voxel is measured.
    """
    array = np.asarray(image)
    if array.ndim not in (2, 3):
        raise InputError(f"The image has shape {array.shape}; give a volume (z, y, x) or a plane (y, x).")
    check_finite(array if mask is None else array[np.reshape(mask, array.shape) != 0], "The image")
    shape = array.shape if array.ndim == 3 else (1, *array.shape)
    levels, squares = differences(array.reshape(shape), None if mask is None else np.reshape(mask, shape), np)
    line = fitted_line(levels, squares)
    if gain is None:
        if line.slope < CERTAIN * line.error:
            raise InputError(
                "The noise of the image does not grow with its level, so it does not tell the camera's gain (too small "
                "or too even an image, or one that was processed); give gain=."
            )
        gain = line.slope
    if offset is None:
        offset = float(np.quantile(levels, DARKEST))
    if read_noise is None:
        dark = line.variance(line.lowest) - gain * max(line.lowest - offset, 0.0)
        dark -= ROUNDING if array.dtype.kind in "ui" else 0.0
        read_noise = float(np.sqrt(max(dark, 0.0))) / gain
    return Camera(offset, gain, read_noise)


def signal_to_noise(
    image: NDArray[Any],
    psf: PSF | NDArray[Any] | None = None,
    *,
    background: float | None = None,
    camera: Camera | None = None,
) -> float:
    """SNR s / sqrt(s + b) of the brightest structure, s and b in photo-electrons; see `gpudecon.methods.noise.snr_of`.

    The PSF says over which neighbours to average when the brightest structure is looked for; without one these are the
    3 voxels along each axis.  ``background`` is in grey values, by default `estimate_background`.  Without a ``camera``
    the noise is estimated from the image.
    """
    array = np.asarray(image)
    if array.ndim not in (2, 3):
        raise InputError(f"The image has shape {array.shape}; give a volume (z, y, x) or a plane (y, x).")
    check_finite(array, "The image")
    level = estimate_background(array) if background is None else background
    shift = 0.0 if camera is None else camera.read_variance - camera.offset
    box = (array.shape[0] if array.ndim == 3 else 1, array.shape[-2], array.shape[-1])
    data = np.ascontiguousarray(array.reshape(box), np.float32) + np.float32(shift)
    backend = get_backend("cpu")
    if psf is None:
        model: ForwardModel = Unblurred(backend, box)
    else:
        kernel = as_psf(psf, array.ndim, None).array
        model = ForwardModel(backend, box, kernel if kernel.ndim == 3 else kernel[None])
    highest = float(data.max())
    if not highest > 0:
        raise InputError("The image holds no light above the camera's offset.")
    gain = None if camera is None else camera.gain
    return snr_of(Problem(backend, model, data, level + shift, (1.0, 1.0, 1.0), highest, gain=gain))
