"""What is restored in the benchmarks: random images, a PSF without symmetry, and single steps of a method."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Backend
from gpudecon.forward import Edges, ForwardModel
from gpudecon.methods import Problem
from gpudecon.methods.richardson_lucy import RichardsonLucy

Shape = tuple[int, int, int]
FOR_EVER = 10**9


def random_image(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Positive counts without structure: no voxel is zero, none special.  Takes no memory besides the result."""
    image = rng.random(shape, np.float32)
    image *= 100
    image += 1
    return image


def random_psf(shape: Shape, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth, of sum 1, symmetric along no axis: mirrored or shifted use of it shows in a result."""
    from scipy.ndimage import gaussian_filter

    position = [(np.arange(n) - n // 2) / (n / 6 + 1) for n in shape]
    z, y, x = (np.exp(-0.5 * (p - shift) ** 2) for p, shift in zip(position, (0.3, -0.2, 0.4), strict=True))
    psf = z[:, None, None] * y[:, None] * x * (0.2 + gaussian_filter(rng.random(shape), 1.5))
    return (psf / psf.sum()).astype(np.float32)


def make_problem(
    backend: Backend, image: Any, psf: NDArray[np.float32], edges: Edges, background: float = 0.0
) -> Problem:
    """As `Deconvolver` makes it, for a backend of our choice."""
    data = backend.upload(image)
    model = ForwardModel(backend, image.shape, psf, edges)
    return Problem(backend, model, data, background, (1.0, 1.0, 1.0), float(data.max()))


def stepper(problem: Problem, acceleration: str) -> Callable[[], object]:
    """One more iteration of Richardson-Lucy with each call."""
    method = RichardsonLucy(iterations=FOR_EVER, acceleration=acceleration)
    return functools.partial(next, method.iterate(problem))
