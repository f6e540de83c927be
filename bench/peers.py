"""Other programs' Richardson-Lucy: time per iteration, and whether they compute the same."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from cases import random_image, random_psf
from reference import relative_error, richardson_lucy
from timing import Clock, Timing, interleaved

Restore = Callable[[Any, Any, int], Any]  # image, PSF, iterations


def _scikit_image(image: Any, psf: Any, iterations: int) -> Any:
    from skimage.restoration import richardson_lucy as restore

    return restore(image, psf, num_iter=iterations, clip=False, filter_epsilon=None)


def _redlionfish(image: Any, psf: Any, iterations: int) -> Any:
    from RedLionfishDeconv import doRLDeconvolutionFromNpArrays as restore

    return restore(image, psf, niter=iterations, method="cpu")


def _cucim(image: Any, psf: Any, iterations: int) -> Any:
    from cucim.skimage.restoration import richardson_lucy as restore

    return restore(image, psf, num_iter=iterations, clip=False, filter_epsilon=None)


@dataclass(frozen=True)
class Peer:
    """A program with a Richardson-Lucy of its own; ``note`` says what it does at edges, and its faults."""

    name: str
    module: str
    restore: Restore
    note: str
    mirrors_x: bool = True
    starts_from_image: bool = False  # instead of a constant

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None


SCIKIT_IMAGE = Peer("scikit-image", "skimage", _scikit_image, "zero outside the image")
REDLIONFISH = Peer(
    "RedLionfish cpu",
    "RedLionfishDeconv",
    _redlionfish,
    "periodic, one thread; its mirrored PSF is displaced by one voxel",
    starts_from_image=True,
)
CUCIM = Peer(
    "cuCIM",
    "cucim",
    _cucim,
    "zero outside the image; PSF symmetric in x, the axis that it does not mirror",
    mirrors_x=False,
)


def suitable_psf(peer: Peer, psf: Any) -> Any:
    """The PSF, made symmetric in x for a peer that does not mirror it there."""
    return psf if peer.mirrors_x else (psf + psf[..., ::-1]) / 2


def seconds_per_iteration(
    peer: Peer, image: Any, psf: Any, clock: Clock, *, counts: tuple[int, int], rounds: int
) -> Timing:
    """From runs of few and of many iterations, so that what is done once drops out."""
    few, many = counts
    runs = {str(n): lambda n=n: peer.restore(image, psf, n) for n in counts}
    taken = interleaved(runs, clock, rounds=rounds, warm_up=0)
    short, long = taken[str(few)], taken[str(many)]
    more = many - few
    return Timing((long.median - short.median) / more, (long.least - short.least) / more, rounds)


def disagreement(peer: Peer, upload: Callable[[Any], Any], download: Callable[[Any], Any]) -> float:
    """Relative difference to float64 after two iterations, so far inside that edges do not matter."""
    rng = np.random.default_rng(1)
    shape, radius = (48, 64, 64), 3
    image = random_image(shape, rng)
    psf = suitable_psf(peer, random_psf((2 * radius + 1,) * 3, rng))
    start = image.astype(np.float64) if peer.starts_from_image else None
    expected = richardson_lucy(image, psf, shape, "periodic", background=0.0, iterations=2, start=start)
    inside = (slice(4 * radius, -4 * radius),) * 3
    got = download(peer.restore(upload(image), upload(psf), 2))
    return relative_error(got[inside], expected[inside])
