"""Arguments for every operation: on odd, unequal sizes that are no multiples of a block, with an image inside."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from gpudecon.backend.ops import NumpyOps

if TYPE_CHECKING:
    from collections.abc import Callable

Arguments = dict[str, Any]
Shape = tuple[int, int, int]

# domain, and the box of the image inside it: a thin margin, none, one of many mirror images, one of several blocks
SHAPES = [
    ((5, 7, 11), (3, 4, 9)),
    ((1, 33, 130), (1, 33, 130)),
    ((16, 3, 5), (2, 3, 1)),
    ((7, 9, 70), (6, 5, 37)),
]
PIXELS = ["uint8", "uint16", "int16", "float32"]
PITCHED = {"work", "estimate", "previous", "weights", "step", "factors", "source", "target", "other"}


def pixels(rng: np.random.Generator, shape: Shape, dtype: str) -> np.ndarray:
    """Values over the whole range of the type, zeros among them."""
    if dtype == "float32":
        values = rng.gamma(2.0, 100.0, shape).astype(np.float32)
    else:
        limits = np.iinfo(dtype)
        values = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    values[rng.random(shape) < 0.1] = 0
    return values


def positive(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return rng.uniform(0.5, 100.0, shape).astype(np.float32)


def signed(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return rng.normal(0.0, 1.0, shape).astype(np.float32)


def unwritten(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """An output before the call; NaN survives where it is not written."""
    return np.full(shape, np.nan if dtype.startswith("float") else 99, dtype)


def waves(rng: np.random.Generator, domain: Shape) -> np.ndarray:
    nz, ny, nx = domain
    return signed(rng, (nz, ny, 2 * (nx // 2 + 1))).view(np.complex64)


def load_extended(rng: np.random.Generator, domain: Shape, box: Shape, dtype: str = "uint16") -> Arguments:
    return {"work": unwritten(domain), "image": pixels(rng, box, dtype)}


def multiply_otf(rng: np.random.Generator, domain: Shape, box: Shape, conjugate: bool = True) -> Arguments:
    return {"spectrum": waves(rng, domain), "otf": waves(rng, domain), "conjugate": conjugate}


def scene(rng: np.random.Generator, box: Shape, background: float, floor: float, full: bool) -> Arguments:
    """What is known beside the image; if ``full`` with a background that varies and voxels that are no measurement."""
    mask = rng.integers(0, 3, box, np.uint8)
    mask[0, 0, 0] = 1
    return {
        "background": background,
        "background_image": positive(rng, box) if full else None,
        "mask": mask if full else None,
        "floor": floor,
    }


def rl_ratio(
    rng: np.random.Generator, domain: Shape, box: Shape, dtype: str = "uint16", full: bool = True
) -> Arguments:
    return {"work": signed(rng, domain), "image": pixels(rng, box, dtype), **scene(rng, box, 0.7, 0.1, full)}


def rl_excess(
    rng: np.random.Generator, domain: Shape, box: Shape, dtype: str = "uint16", full: bool = True
) -> Arguments:
    return rl_ratio(rng, domain, box, dtype, full)


def rl_unmatched_factor(rng: np.random.Generator, domain: Shape, box: Shape, weighted: bool = True) -> Arguments:
    weights = positive(rng, domain) / np.float32(50)
    weights[rng.random(domain) < 0.2] = 0
    return {"work": signed(rng, domain), "weights": weights if weighted else None}


def rl_step(rng: np.random.Generator, domain: Shape, box: Shape, weighted: bool = True) -> Arguments:
    return {
        "work": signed(rng, domain),
        "step": unwritten(domain),
        "estimate": positive(rng, domain),
        "weights": positive(rng, domain) if weighted else None,
    }


def rl_predict(rng: np.random.Generator, domain: Shape, box: Shape, momentum: float = 0.6) -> Arguments:
    return {
        "estimate": unwritten(domain),
        "previous": positive(rng, domain),
        "work": positive(rng, domain),
        "momentum": momentum,
    }


def rl_update(rng: np.random.Generator, domain: Shape, box: Shape, weighted: bool = True) -> Arguments:
    weights = positive(rng, domain) if weighted else None
    return {"estimate": positive(rng, domain), "work": signed(rng, domain), "weights": weights}


def rl_update_momentum(
    rng: np.random.Generator,
    domain: Shape,
    box: Shape,
    weighted: bool = True,
    momentum: float = 0.6,
    excess: float = 0.8,
) -> Arguments:
    arguments = rl_update(rng, domain, box, weighted)
    fields = {"estimate": arguments.pop("estimate"), "previous": positive(rng, domain), **arguments}
    return {**fields, "momentum": momentum, "excess": excess}


def tv_factor(rng: np.random.Generator, domain: Shape, box: Shape, weighted: bool = True) -> Arguments:
    return {
        "factors": unwritten(domain),
        "estimate": positive(rng, domain),
        "weights": positive(rng, domain) if weighted else None,
        "strength": 0.4,
        "smooth": 0.5,
        "scale_z": 0.4,
        "scale_y": 0.7,
        "scale_x": 0.9,
    }


def good_factor(rng: np.random.Generator, domain: Shape, box: Shape, weighted: bool = True) -> Arguments:
    return {**tv_factor(rng, domain, box, weighted), "strength": 0.16}


def tikhonov_factor(rng: np.random.Generator, domain: Shape, box: Shape, weighted: bool = True) -> Arguments:
    arguments = tv_factor(rng, domain, box, weighted)
    arguments.pop("smooth")
    return {**arguments, "strength": 0.005}


def regularized_filter(
    rng: np.random.Generator, domain: Shape, box: Shape, noise_to_signal: float = 0.01, gamma: float = 0.3
) -> Arguments:
    spectrum, otf = waves(rng, domain), waves(rng, domain)
    nz, ny, nx = spectrum.shape
    otf[rng.random(otf.shape) < 0.3] = 0
    laplacian_z, laplacian_y, laplacian_x = rng.random((nz, 1)), rng.random(ny), rng.random(nx)
    return {
        "spectrum": spectrum,
        "otf": otf,
        "laplacian_z": laplacian_z.astype(np.float32),
        "laplacian_y": laplacian_y.astype(np.float32),
        "laplacian_x": laplacian_x.astype(np.float32),
        "noise_to_signal": noise_to_signal,
        "gamma": gamma,
        "scale": 1234.5,
    }


def poisson_divergence(
    rng: np.random.Generator, domain: Shape, box: Shape, dtype: str = "uint16", full: bool = True
) -> Arguments:
    image = np.abs(pixels(rng, box, dtype))
    image[image < 0] = 0  # abs(-32768) of an int16
    rows = unwritten(box[:2], "float64")
    return {"rows": rows, "work": positive(rng, domain), "image": image, **scene(rng, box, -1.5, 0.25, full)}


def store_cropped(
    rng: np.random.Generator, domain: Shape, box: Shape, dtype: str = "uint16", scale: float = 300.5
) -> Arguments:
    return {"out": unwritten(box, dtype), "source": signed(rng, domain) * 100, "scale": scale, "offset": -20.25}


def radial_expand(
    rng: np.random.Generator, domain: Shape, box: Shape, centre: tuple[float, float] = (1.25, 0.0)
) -> Arguments:
    nz, ny, nx = domain
    centre_y, centre_x = centre
    pitch_y, pitch_x = 1.7, 2.3
    farthest = np.hypot(max(centre_y, ny - 1 - centre_y) * pitch_y, max(centre_x, nx - 1 - centre_x) * pitch_x)
    table = rng.normal(0.0, 1.0, (nz, int(farthest) + 3)).astype(np.float32)
    return {
        "out": unwritten(domain),
        "table": table,
        "centre_y": centre_y,
        "centre_x": centre_x,
        "pitch_y": pitch_y,
        "pitch_x": pitch_x,
    }


def residual(
    rng: np.random.Generator, domain: Shape, box: Shape, dtype: str = "uint16", full: bool = True
) -> Arguments:
    known = scene(rng, box, 0.7, 0.0, full)
    known.pop("floor")
    return {"work": signed(rng, domain), "image": pixels(rng, box, dtype), **known}


def projected_step(rng: np.random.Generator, domain: Shape, box: Shape, lowest: float = 0.0) -> Arguments:
    return {"estimate": positive(rng, domain), "work": 100 * signed(rng, domain), "step": 1.3, "lowest": lowest}


def bounded_sum(rng: np.random.Generator, domain: Shape, box: Shape, lowest: float = 0.0) -> Arguments:
    return {
        "target": signed(rng, domain),
        "other": signed(rng, domain),
        "estimate": np.maximum(signed(rng, domain), 0),
        "target_factor": 0.7,
        "other_factor": -1.2,
        "lowest": lowest,
    }


def inner_product(rng: np.random.Generator, domain: Shape, box: Shape) -> Arguments:
    return {"rows": unwritten(domain[:2], "float64"), "work": signed(rng, domain), "other": signed(rng, domain)}


def tv_dual(rng: np.random.Generator, domain: Shape, box: Shape) -> Arguments:
    return {
        "dual": vectors(rng, domain),
        "lead": vectors(rng, domain),
        "estimate": signed(rng, domain),
        "step_z": 0.1,
        "step_y": 0.5,
        "step_x": 0.7,
        "momentum": 0.6,
    }


def tv_primal(rng: np.random.Generator, domain: Shape, box: Shape, lowest: float = 0.0) -> Arguments:
    return {
        "estimate": unwritten(domain),
        "source": signed(rng, domain),
        "dual": vectors(rng, domain),
        "weight_z": 0.3,
        "weight_y": 1.1,
        "weight_x": 1.5,
        "lowest": lowest,
    }


def tv_gap(rng: np.random.Generator, domain: Shape, box: Shape) -> Arguments:
    return {
        "rows": unwritten(domain[:2], "float64"),
        "estimate": signed(rng, domain),
        "dual": vectors(rng, domain),
        "scale_z": 0.3,
        "scale_y": 1.1,
        "scale_x": 1.5,
    }


def vectors(rng: np.random.Generator, domain: Shape) -> np.ndarray:
    """One vector per voxel, mostly shorter than 1."""
    return rng.uniform(-0.6, 0.6, (3, *domain)).astype(np.float32)


EXAMPLES: dict[str, Callable[..., Arguments]] = {
    example.__name__: example
    for example in (
        load_extended,
        multiply_otf,
        rl_ratio,
        rl_excess,
        rl_unmatched_factor,
        rl_step,
        rl_predict,
        rl_update,
        rl_update_momentum,
        tv_factor,
        good_factor,
        tikhonov_factor,
        regularized_filter,
        poisson_divergence,
        store_cropped,
        radial_expand,
        residual,
        projected_step,
        bounded_sum,
        inner_product,
        tv_dual,
        tv_primal,
        tv_gap,
    )
}


def after_twin(ops: NumpyOps, method: str, arguments: Arguments) -> Arguments:
    """The arguments as `NumpyOps` leaves them; those given stay as they are."""
    copies = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in arguments.items()}
    assert list(copies) == list(inspect.signature(getattr(NumpyOps, method)).parameters)[1:]
    getattr(ops, method)(*copies.values())
    return copies
