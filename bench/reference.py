"""Float64 reference: the methods written from their formulas with `numpy.fft`, sharing no code with gpudecon."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]


def relative_error(got: Any, expected: Any) -> float:
    """||got - expected|| / ||expected||; NaN if anything is."""
    expected = np.asarray(expected, np.complex128)
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def extended(image: Any, domain: tuple[int, ...]) -> Real:
    """The image continued into the margin: the mirror image behind it fades into the one before it."""
    result = np.asarray(image, np.float64)
    for axis, length in enumerate(domain):
        result = np.moveaxis(result, axis, 0)
        n = len(result)
        margin = length - n
        rest = [(0, 0)] * (result.ndim - 1)
        behind = np.pad(result, [(0, margin), *rest], "symmetric")[n:]
        before = np.pad(result, [(margin, 0), *rest], "symmetric")[:margin]
        fade = 0.5 - 0.5 * np.cos(np.pi * (np.arange(margin) + 0.5) / max(margin, 1))
        fade = fade.reshape(-1, *[1] * (result.ndim - 1))
        result = np.moveaxis(np.concatenate([result, (1 - fade) * behind + fade * before]), 0, axis)
    return result


def transfer(psf: Any, domain: tuple[int, ...]) -> NDArray[np.complex128]:
    """OTF of a PSF no larger than the domain, centre at n // 2."""
    placed = np.zeros(domain)
    placed[tuple(slice(n) for n in psf.shape)] = psf
    return np.fft.rfftn(np.roll(placed, [-(n // 2) for n in psf.shape], axis=(0, 1, 2)))


def richardson_lucy(
    image: Any,
    psf: Any,
    domain: tuple[int, ...],
    edges: str,
    *,
    background: float,
    iterations: int,
    acceleration: str = "none",
    start: Real | None = None,
) -> Real:
    """Iterations of  f <- f / (H^T 1) H^T(g / (H f + b)),  plain or with momentum, cut to the image.

    From a flat start unless one is given.
    """
    otf = transfer(psf, domain)

    def convolve(field: Real, factor: NDArray[np.complex128]) -> Real:
        return np.fft.irfftn(np.fft.rfftn(field) * factor, s=domain, axes=(0, 1, 2))

    box = tuple(slice(n) for n in (image.shape if edges == "extend" else domain))
    data = np.asarray(image, np.float64) if edges == "extend" else extended(image, domain)
    seen = np.zeros(domain)
    seen[box] = 1
    sensitivity = convolve(seen, otf.conj())
    weights = np.where(sensitivity > 0.01, 1 / np.maximum(sensitivity, 0.01), 0)
    floor = 1e-6 * float(np.max(image))

    flat = (data.mean() - background) * (weights > 0)
    start = latest = flat if start is None else start
    t = 1.0
    for _ in range(iterations):
        ratio = np.zeros(domain)
        ratio[box] = data / np.maximum(convolve(start, otf)[box] + background, floor)
        new = start * np.maximum(convolve(ratio, otf.conj()), 0) * weights
        step, following = np.zeros(domain), (1 + np.sqrt(1 + 4 * t**2)) / 2
        if acceleration == "shb":
            step = (t - 1) / following * (new - latest) + t / following * (new - start)
        falling = new * np.exp(np.maximum(np.minimum(step, 0), -16 * new) / np.maximum(new, 1e-30))
        start, latest, t = np.where(step < 0, falling, new + step), new, following
    return latest[tuple(slice(n) for n in image.shape)]


def linear_filter(
    image: Any, psf: Any, domain: tuple[int, ...], *, background: float, noise_to_signal: float, gamma: float
) -> Real:
    """conj(H) G / (|H|^2 + noise_to_signal + gamma L^2) with the discrete Laplacian L of cubic voxels."""
    otf = transfer(psf, domain)
    waves = [np.fft.fftfreq(n) for n in domain[:2]] + [np.fft.rfftfreq(domain[2])]
    z, y, x = (2 - 2 * np.cos(2 * np.pi * w) for w in waves)
    laplacian = z[:, None, None] + y[:, None] + x
    spectrum = np.fft.rfftn(extended(image, domain) - background)
    spectrum *= otf.conj() / (np.abs(otf) ** 2 + noise_to_signal + gamma * laplacian**2)
    return np.fft.irfftn(spectrum, s=domain, axes=(0, 1, 2))[tuple(slice(n) for n in image.shape)]
