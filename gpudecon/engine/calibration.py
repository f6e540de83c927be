"""Calibration: how long a restoration takes on this machine, measured once on a small volume and kept."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import math
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpudecon._version import __version__
from gpudecon.backend import Backend
from gpudecon.deconvolve import Deconvolver
from gpudecon.engine.memory import padded_shape
from gpudecon.engine.plan import Plan
from gpudecon.engine.tiling import Shape
from gpudecon.forward import Edges
from gpudecon.methods import Method, make_method

SHAPE, PSF_SHAPE = (40, 150, 140), (9, 21, 19)  # about a million voxels when padded
ITERATIONS = 4  # of which the last three are timed


@dataclass(frozen=True)
class Calibration:
    """``seconds`` for each unit of work, and the day they were measured; ``kept``: by an earlier plan.

    The work of a tile is its iterations times `Backend.transform_cost` of its padded shape, or its voxels where nothing
    is transformed.
    """

    seconds: float
    measured: str
    kept: bool = False

    def predict(self, plan: Plan, backend: Backend) -> float:
        """Seconds to restore all tiles, with the most iterations that the plan allows; reading and writing overlap."""
        iterations = int(plan.options.get("iterations", 1))
        return self.seconds * len(plan) * iterations * _work(plan.needs.padded_shape, bool(plan.psfs), backend)


def calibrated(plan: Plan, backend: Backend, folder: Path | None = None) -> Calibration:
    """As kept in the user's cache for this method, device and version, or measured now, which takes a second or two.

    ``folder`` is for tests; a cache that cannot be written is done without.
    """
    from platformdirs import user_cache_path

    file = (user_cache_path("gpudecon") if folder is None else folder) / "calibration.json"
    method = make_method(plan.method, plan.options)
    key = json.dumps(
        [__version__, dataclasses.asdict(_short(method)), method.name, plan.settings["edges"], backend.describe()]
    )
    known: dict[str, dict[str, float | str]] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(file.read_text())
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return Calibration(float(known[key]["seconds"]), str(known[key]["measured"]), kept=True)
    made = Calibration(_measured(method, plan, backend), datetime.datetime.now(datetime.UTC).date().isoformat())
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".{os.getpid()}")  # another process may be reading
        draft.write_text(json.dumps({**known, key: {"seconds": made.seconds, "measured": made.measured}}, indent=1))
        draft.replace(file)
    return made


def _short(method: Method) -> Method:
    return dataclasses.replace(method, iterations=ITERATIONS) if hasattr(method, "iterations") else method


def _measured(method: Method, plan: Plan, backend: Backend) -> float:
    """Seconds per unit of work: of an iteration after the first, or of a direct filter's second image."""
    image = np.random.default_rng(0).poisson(20, SHAPE).astype(np.uint16)
    image[20, 70:80, 60:90] = 2000
    psf = None
    if method.needs_psf:
        grid = np.meshgrid(*((np.arange(n) - n // 2) * 5 / n for n in PSF_SHAPE), indexing="ij")
        psf = np.exp(-sum(g * g for g in grid) / 2).astype(np.float32)
    ends: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nobody's image
        psf = psf if psf is None else psf / psf.sum()
        edges: Edges = plan.settings["edges"] or "extend"
        restore = Deconvolver(SHAPE, psf, _short(method), edges=edges, device=backend.name, threads=plan.needs.threads)
        if hasattr(method, "iterations"):
            restore(image, lambda _, __, info: ends.append(info.seconds), divergence_every=0)
        else:
            for _ in range(2):
                restore(image)
                ends.append(time.perf_counter())
    seconds = (ends[-1] - ends[0]) / (len(ends) - 1)
    domain = SHAPE if not method.needs_psf else padded_shape(SHAPE, PSF_SHAPE, edges, backend)
    return seconds / _work(domain, method.needs_psf, backend)


def _work(shape: Shape, is_transformed: bool, backend: Backend) -> float:
    return backend.transform_cost(shape) if is_transformed else float(math.prod(shape))
