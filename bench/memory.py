"""The memory model against what restorations take, for all methods, edges, FFT libraries and types of pixels.

python bench/memory.py -o bench/results/memory.jsonl     # about 3 minutes, on a quiet machine
python bench/memory.py --quick -o /tmp/memory.jsonl

Section ``arrays``: the most that NumPy's arrays took beside the image, as tracemalloc counts it, and ``ratio``, the
prediction of `gpudecon.engine.memory` over it.  Section ``resident``: what the whole process grew by from before the
image was made, the FFT libraries' own memory included (bench/peak_memory.py), and the prediction with the image.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import itertools
import json
import math
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from rows import HERE, Rows, environment

import gpudecon as gd
from gpudecon.backend.numpy import NumpyBackend
from gpudecon.engine.memory import restoration_bytes
from gpudecon.forward import EDGES
from gpudecon.methods import Method, make_method

FEW = {"iterations": 2}
LIBRARIES = tuple(name for name in ("ducc0", "scipy") if importlib.util.find_spec(name))
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("rl", FEW),
    ("rl", {**FEW, "acceleration": "shb"}),
    ("rl", {**FEW, "acceleration": "biggs"}),
    ("rl", {**FEW, "tv": 0.01}),
    ("rl", {**FEW, "goods_roughness": 0.01, "acceleration": "shb"}),
    ("rl", {**FEW, "tikhonov": 0.01}),
    ("rl", {**FEW, "back_projector": "omw", "alpha": 0.3, "cutoff": 0.03}),
    ("rl", {**FEW, "back_projector": "wb"}),
    ("rl", {**FEW, "start": "lowpass"}),
    ("rl", {**FEW, "start": "wiener"}),
    ("wiener", {}),
    ("wiener", {"noise_to_signal": "spectrum"}),
    ("cls", {}),
    ("inverse", {}),
    ("landweber", FEW),
    ("gold", FEW),
    ("ictm", FEW),
    ("fista_tv", {**FEW, "inner_iterations": 2}),
    ("tv", {"weight": 0.001}),
    ("median", {}),
    ("homomorphic", {}),
]
Shape = tuple[int, int, int]


def measured(method: Method, image: Any, psf: Any, edges: str, backend: NumpyBackend) -> int:
    """Bytes beside the image at the peak."""
    sys.modules["gpudecon.deconvolve"].get_backend = lambda *_, **__: backend  # type: ignore[attr-defined]
    gd.deconvolve(image[:8, :8, :8], psf, method, edges=edges)  # what is imported and kept
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    gd.deconvolve(image, psf, method, edges=edges)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return peak


def arrays(rows: Rows, shape: Shape, psf_shape: Shape, variants: list[tuple[str, dict[str, Any]]]) -> None:
    counts = np.random.default_rng(3).poisson(50, shape).astype(np.float32)
    counts[tuple(n // 2 for n in shape)] = 3000
    grid = np.meshgrid(*((np.arange(n) - n // 2) * 5 / n for n in psf_shape), indexing="ij")
    gaussian = np.exp(-sum(g**2 for g in grid) / 2).astype(np.float32)
    gaussian /= gaussian.sum()
    for (name, options), library, dtype in itertools.product(variants, LIBRARIES, ("float32", "uint16")):
        method, backend = make_method(name, options), NumpyBackend(1, library)
        psf = gaussian if method.needs_psf else None
        for edges in EDGES if method.needs_psf else ("none",):
            used = "extend" if edges == "none" else edges
            peak = measured(method, counts.astype(dtype), psf, used, backend)
            predicted = restoration_bytes(method, shape, None if psf is None else psf_shape, used, backend, dtype)
            words = ", ".join(f"{k} {v}" for k, v in options.items() if k not in FEW)
            row = {"shape": shape, "edges": edges, "fft": library, "dtype": dtype}
            rows.add("arrays", name, options=words, bytes=peak, predicted=predicted, ratio=predicted / peak, **row)


def resident(rows: Rows, shape: Shape, psf_shape: Shape) -> None:
    threads = NumpyBackend().slabs.threads
    for library, edges, acceleration in itertools.product(LIBRARIES, ("extend", "periodic"), ("none", "shb")):
        case = {"shape": shape, "psf_shape": psf_shape, "edges": edges, "fft": library, "acceleration": acceleration}
        command = [sys.executable, str(HERE / "peak_memory.py"), json.dumps(case)]
        grown = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["bytes"]
        method = make_method("rl", {"acceleration": acceleration})
        predicted = restoration_bytes(method, shape, psf_shape, edges, NumpyBackend(threads, library))
        predicted += 4 * math.prod(shape)  # the image
        rows.add("resident", "rl", bytes=grown, predicted=predicted, ratio=predicted / grown, **case)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a small volume and one method")
    args = parser.parse_args()
    rows = Rows(args.output)
    rows.add("env", "machine", **environment())
    warnings.simplefilter("ignore", gd.GpudeconWarning)
    if args.quick:
        arrays(rows, (24, 64, 60), (5, 7, 9), VARIANTS[:1])
        return
    resident(rows, (64, 256, 256), (61, 51, 51))
    arrays(rows, (48, 192, 192), (11, 17, 19), VARIANTS)
    ratios = [row["ratio"] for row in rows.all if row["section"] == "arrays"]
    print(f"{len(ratios)} restorations: predicted over measured from {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
