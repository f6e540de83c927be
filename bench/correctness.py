"""Correctness: every operation and every method against float64, on fresh inputs and outputs poisoned with NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

import numpy as np
from cases import Shape, make_problem, random_image, random_psf
from numpy.typing import NDArray
from reference import extended, linear_filter, relative_error, richardson_lucy
from rows import Rows

from gpudecon.backend import Backend
from gpudecon.forward import Edges
from gpudecon.methods.constrained_least_squares import ConstrainedLeastSquares
from gpudecon.methods.richardson_lucy import RichardsonLucy
from gpudecon.methods.wiener import Wiener

OPERATION_TOLERANCE = 1e-5
METHOD_TOLERANCE = 1e-4  # three iterations
BACKGROUND = 7.0
FLOOR = 0.5


class Case(NamedTuple):
    """Arguments of an operation, and what some of them must hold afterwards, by position."""

    operation: str
    arguments: tuple[Any, ...]
    expected: dict[int, NDArray[Any]]


def check(rows: Rows, backend: Backend, shapes: list[tuple[Shape, Shape]], seed: int) -> None:
    """Rows for all operations and methods on images of the given shapes with PSFs of the given shapes."""
    rng = np.random.default_rng(seed)
    for shape, psf_shape in shapes:
        domain = backend.padded_shape(tuple(n + p - 1 for n, p in zip(shape, psf_shape, strict=True)))
        for case in operation_cases(rng, (domain[0], domain[1], domain[2]), shape):
            error = max(operation_errors(backend, case, domain))
            _add(rows, case.operation, error, OPERATION_TOLERANCE, shape=shape, domain=domain)
        image = random_image(shape, rng) + np.float32(BACKGROUND)
        psf = random_psf(psf_shape, rng)
        for edges in get_args(Edges):
            for name, error, domain in method_errors(backend, image, psf, edges):
                _add(rows, name, error, METHOD_TOLERANCE, shape=shape, domain=domain, edges=edges)


def failures(rows: Rows) -> list[str]:
    return [row["name"] for row in rows.all if row.get("passed") is False]


def _add(rows: Rows, name: str, error: float, tolerance: float, **fields: Any) -> None:
    passed = error <= tolerance  # False for NaN
    figure = {"relative_error": error} if math.isfinite(error) else {"note": f"relative error {error}"}
    rows.add("correctness", name, **fields, **figure, tolerance=tolerance, passed=passed)


def operation_cases(rng: np.random.Generator, domain: Shape, box: Shape) -> Iterator[Case]:
    """Every operation of `Ops` with its formula in float64; ``box`` must be smaller than ``domain``."""
    half = (*domain[:2], domain[2] // 2 + 1)

    def field() -> NDArray[np.float32]:
        return rng.uniform(0.5, 100, domain).astype(np.float32)

    def waves() -> NDArray[np.complex64]:
        return (rng.normal(size=half) + 1j * rng.normal(size=half)).astype(np.complex64)

    inside = tuple(slice(n) for n in box)
    poison = np.full(domain, np.nan, np.float32)
    image = random_image(box, rng)
    pixels = rng.integers(0, 65536, box, np.uint16)
    yield Case("load_extended", (poison, pixels), {0: extended(pixels, domain)})

    spectrum, otf = waves(), waves()
    wide, factor = spectrum.astype(complex), otf.astype(complex)
    yield Case("multiply_otf", (spectrum, otf, False), {0: wide * factor})
    yield Case("multiply_otf", (spectrum, otf, True), {0: wide * factor.conj()})

    z, y, x = (rng.random(n).astype(np.float32) for n in half)
    laplacian = z[:, None, None].astype(float) + y[:, None] + x
    filtered = wide * factor.conj() / ((2 * np.abs(factor)) ** 2 + 0.01 + 0.3 * laplacian**2)
    # with H = 2 otf, conj(H) / 2 = conj(otf)
    yield Case("regularized_filter", (spectrum, otf, z[:, None], y, x, 0.01, 0.3, 2.0), {0: filtered})

    blurred = poison.copy()  # the margin is written, never read
    blurred[inside] = rng.normal(10, 10, box)
    model = np.maximum(blurred[inside].astype(float) + BACKGROUND, FLOOR)
    ratio = np.zeros(domain)
    ratio[inside] = image / model
    yield Case("rl_ratio", (blurred, image, BACKGROUND, None, None, FLOOR), {0: ratio})
    divergence = (model - image + image * np.log(image / model)).sum(axis=2)
    rows = np.full(box[:2], np.nan)
    yield Case("poisson_divergence", (rows, blurred, image, BACKGROUND, None, None, FLOOR), {0: divergence})

    estimate, previous, weights = field(), field(), field()
    work = rng.normal(size=domain).astype(np.float32)
    new = estimate.astype(float) * np.maximum(work, 0)
    yield Case("rl_update", (estimate, work, None), {0: new})
    new = new * weights
    yield Case("rl_update", (estimate, work, weights), {0: new})
    step = 0.6 * (new - previous) + 0.7 * (new - estimate)
    falling = new * np.exp(np.maximum(np.minimum(step, 0), -16 * new) / np.maximum(new, 1e-30))
    ahead = np.where(step < 0, falling, new + step)
    yield Case("rl_update_momentum", (estimate, previous, work, weights, 0.6, 0.7), {0: ahead, 1: new})

    scaled = (estimate[inside].astype(float) - 3) * 500
    yield Case("store_cropped", (np.full(box, np.nan, np.float32), estimate, 500.0, 3.0), {0: scaled})
    rounded = np.clip(np.rint(scaled), 0, 65535)
    yield Case("store_cropped", (np.full(box, 99, np.uint16), estimate, 500.0, 3.0), {0: rounded})


def operation_errors(backend: Backend, case: Case, domain: tuple[int, ...]) -> list[float]:
    with backend.active():
        fft = backend.plan((domain[0], domain[1], domain[2]))

        def placed(argument: Any) -> Any:
            """On the device; domain arrays in padded rows as in use, the padding poisoned."""
            if not isinstance(argument, np.ndarray):
                return argument
            if argument.shape != domain or argument.dtype != np.float32:
                return backend.upload(argument.copy())
            spectrum, real = fft.empty()
            spectrum[...] = complex(np.nan, np.nan)
            real[...] = backend.upload(argument)
            return real

        arguments = [placed(argument) for argument in case.arguments]
        getattr(backend.ops, case.operation)(*arguments)
        return [relative_error(backend.download(arguments[i]), wanted) for i, wanted in case.expected.items()]


def method_errors(
    backend: Backend, image: NDArray[np.float32], psf: NDArray[np.float32], edges: Edges
) -> Iterator[tuple[str, float, Shape]]:
    """Name, error and domain for every method on one image."""
    with backend.active():
        problem = make_problem(backend, image, psf, edges, BACKGROUND)
        domain = problem.model.domain

        def error(method: Any, expected: NDArray[np.float64]) -> float:
            problem.model.spectrum[...] = complex(np.nan, np.nan)
            *_, estimate = method.iterate(problem)
            return relative_error(backend.download(problem.model.crop(estimate)), expected)

        for acceleration in ("none", "shb"):
            method = RichardsonLucy(iterations=3, acceleration=acceleration)
            expected = richardson_lucy(
                image, psf, domain, edges, background=BACKGROUND, iterations=3, acceleration=acceleration
            )
            yield f"rl {acceleration}", error(method, expected), domain
        for name, direct, noise_to_signal, gamma in (
            ("wiener", Wiener(noise_to_signal=0.01), 0.01, 0.0),
            ("cls", ConstrainedLeastSquares(gamma=0.01), 0.0, 0.01),
        ):
            expected = linear_filter(
                image, psf, domain, background=BACKGROUND, noise_to_signal=noise_to_signal, gamma=gamma
            )
            yield name, error(direct, expected), domain
