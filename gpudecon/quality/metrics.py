"""Measures of a restoration against the truth: error and resolution."""

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
    _same_shape(image, truth)
    x = np.asarray(image, np.float64).ravel()
    t = np.asarray(truth, np.float64).ravel()
    x = x - x.mean()
    t = t - t.mean()
    if not t.any():
        raise InputError("The truth is constant; an error relative to its variation does not exist.")
    residual = t - x * (x @ t) / max(float(x @ x), np.finfo(float).tiny)
    return float(np.sqrt((residual @ residual) / (t @ t)))


def fourier_correlation(
    image: NDArray[Any], truth: NDArray[Any], voxel_um: tuple[float, ...], direction: str = "xy"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fourier shell correlation: (spatial frequencies in 1/um, correlation in each shell).

    Re sum(F conj(T)) / sqrt(sum |F|^2 sum |T|^2) over shells of physical frequency (Saxton & Baumeister, J. Microsc.
    127, 1982).  ``direction`` "xy" takes the frequencies within 45 degrees of the lateral plane, "z" the others;
    images (y, x) have "xy" only.  A Hann window along each axis keeps the faces from correlating.
    """
    _same_shape(image, truth)
    if direction not in ("xy", "z") or (direction == "z" and image.ndim == 2):
        raise InputError(
            f"direction is {direction!r} for an image of {image.ndim} dimensions; use 'xy', or 'z' in 3-D."
        )
    window = np.ones(image.shape)
    for axis, n in enumerate(image.shape):
        hann = np.hanning(n + 2)[1:-1]
        window *= hann.reshape([-1 if a == axis else 1 for a in range(image.ndim)])
    spectra = [np.fft.fftn((a - np.mean(a)) * window) for a in (np.asarray(image, float), np.asarray(truth, float))]
    frequency = np.meshgrid(
        *(np.fft.fftfreq(n, v) for n, v in zip(image.shape, voxel_um, strict=True)), indexing="ij", sparse=True
    )
    lateral = np.sqrt(frequency[-1] ** 2 + frequency[-2] ** 2)
    axial = np.abs(frequency[0]) if image.ndim == 3 else np.zeros(1)
    wanted = np.broadcast_to(lateral >= axial if direction == "xy" else axial > lateral, image.shape)
    radius = np.sqrt(lateral**2 + axial**2)
    axes = [image.ndim - 1, image.ndim - 2] if direction == "xy" else [0]
    width = max(1 / (image.shape[a] * voxel_um[a]) for a in axes)
    nyquist = min(0.5 / voxel_um[a] for a in axes)
    shells = max(int(nyquist / width), 1)
    index = np.broadcast_to(np.rint(radius / width).astype(int), image.shape)
    inside = wanted & (index >= 1) & (index <= shells)

    def over_shells(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.bincount(index[inside], weights=values[inside], minlength=shells + 1)
        return np.asarray(sums[1:], np.float64)

    f, t = spectra
    cross = over_shells((f * t.conj()).real)
    norm = np.sqrt(over_shells(np.abs(f) ** 2) * over_shells(np.abs(t) ** 2))
    return np.arange(1, shells + 1) * width, cross / np.maximum(norm, np.finfo(float).tiny)


def resolution_um(
    image: NDArray[Any],
    truth: NDArray[Any],
    voxel_um: tuple[float, ...],
    direction: str = "xy",
    threshold: float = 0.5,
) -> float:
    """Resolution in um against the truth: 1 / the frequency at which `fourier_correlation` first falls below 0.5.

    Where it never does, the finest period that the sampling carries, about two voxels; where it starts below, infinity.
    """
    frequency, correlation = fourier_correlation(image, truth, voxel_um, direction)
    below = np.flatnonzero(correlation < threshold)
    if below.size == 0:
        return float(1 / frequency[-1])
    i = int(below[0])
    if i == 0:
        return float("inf")
    fraction = (correlation[i - 1] - threshold) / (correlation[i - 1] - correlation[i])
    return float(1 / (frequency[i - 1] + fraction * (frequency[i] - frequency[i - 1])))


def _same_shape(image: NDArray[Any], truth: NDArray[Any]) -> None:
    if image.shape != truth.shape:
        raise InputError(f"The image has shape {image.shape} and the truth {truth.shape}; they must be the same.")
