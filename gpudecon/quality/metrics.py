"""Errors of a restoration against the truth: NRMSE, PSNR and SSIM."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.errors import InputError


def nrmse(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """Root mean square error after the best affine match of intensities, divided by the truth's standard deviation.

    sqrt(min over a, b of mean (a image + b - truth)^2) / std(truth) = sqrt(1 - r^2) with r Pearson's correlation: 0 is
    perfect, 1 no better than a constant.
    """
    check_comparable(image, truth)
    x = np.asarray(image, np.float64).ravel()
    t = np.asarray(truth, np.float64).ravel()
    x = x - x.mean()
    t = t - t.mean()
    if not t.any():
        raise InputError("The truth is constant; an error relative to its variation does not exist.")
    residual = t - x * (x @ t) / max(float(x @ x), np.finfo(float).tiny)
    return float(np.sqrt((residual @ residual) / (t @ t)))


def psnr(image: NDArray[Any], truth: NDArray[Any], *, match: bool = True) -> float:
    """Peak signal-to-noise ratio in dB:  10 log10(range^2 / mean (image - truth)^2)  with the range of the truth.

    With ``match`` the image is first brought to the truth by the best affine map of intensities, as in `nrmse`, since
    restorations differ in scale; without it the values are compared as they are.  Infinite for equal images.
    """
    check_comparable(image, truth)
    t = np.asarray(truth, np.float64)
    extent = float(t.max() - t.min())
    if extent == 0:
        raise InputError("The truth is constant; an error relative to its range does not exist.")
    x = matched(image, truth) if match else np.asarray(image, np.float64)
    error = float(np.mean((x - t) ** 2))
    return float(10 * np.log10(extent**2 / error)) if error > 0 else float("inf")


def ssim(image: NDArray[Any], truth: NDArray[Any], *, match: bool = True, sigma: float = 1.5) -> float:
    """Structural similarity (Wang et al., IEEE Trans. Image Process. 13, 2004), 1 for equal images; 2-D or 3-D.

    The mean of  (2 m_x m_t + C1) (2 c_xt + C2) / ((m_x^2 + m_t^2 + C1) (v_x + v_t + C2))  with means, variances and
    covariance in a Gaussian window of ``sigma`` voxels, cut off at 3.5 sigma, along every axis; C1 = (0.01 range)^2 and
    C2 = (0.03 range)^2 with the range of the truth.  Voxels nearer to a face than the window's reach are left out.
    ``match`` as in `psnr`.
    """
    from scipy import ndimage

    check_comparable(image, truth)
    reach = int(3.5 * sigma + 0.5)
    if sigma <= 0 or min(image.shape) < 2 * reach + 1:
        raise InputError(
            f"ssim: the image has shape {tuple(image.shape)}; with sigma {sigma:g} every axis needs at least "
            f"{2 * reach + 1} voxels, and sigma must be positive."
        )
    t = np.asarray(truth, np.float64)
    x = matched(image, truth) if match else np.asarray(image, np.float64)
    c1, c2 = ((k * float(t.max() - t.min())) ** 2 for k in (0.01, 0.03))

    def local(values: NDArray[np.float64]) -> NDArray[np.float64]:
        mean = ndimage.gaussian_filter(values, sigma, truncate=3.5)
        return np.asarray(mean[(slice(reach, -reach),) * values.ndim])

    mean_x, mean_t = local(x), local(t)
    variance_x, variance_t = local(x * x) - mean_x**2, local(t * t) - mean_t**2
    covariance = local(x * t) - mean_x * mean_t
    similarity = (2 * mean_x * mean_t + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_t**2 + c1) * (variance_x + variance_t + c2)
    return float(similarity.mean())


def matched(image: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """The image as  a image + b  with the a and b of the least mean square error."""
    check_comparable(image, truth)
    x, t = np.asarray(image, np.float64), np.asarray(truth, np.float64)
    centred = x - x.mean()
    energy = float((centred * centred).sum())
    scale = float((centred * (t - t.mean())).sum()) / energy if energy > 0 else 0.0
    return np.asarray(t.mean() + scale * centred)


def check_comparable(image: NDArray[Any], truth: NDArray[Any]) -> None:
    """Refuse what cannot be compared by one figure."""
    same_shape(image, truth)
    check_finite(image, "The image")
    check_finite(truth, "What it is compared with")


def same_shape(image: NDArray[Any], truth: NDArray[Any]) -> None:
    """Refuse what cannot be compared voxel by voxel."""
    if image.shape != truth.shape:
        raise InputError(f"The image has shape {image.shape} and the truth {truth.shape}; they must be the same.")


def check_finite(values: NDArray[Any], name: str) -> None:
    """Refuse NaN and infinities, which no sum over all voxels survives."""
    wrong = int(values.size - np.isfinite(values).sum())
    if wrong:
        raise InputError(f"{name} holds {wrong} NaN or infinite voxels; replace them or crop the image.")
