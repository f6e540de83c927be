"""Time and error of theoretical PSFs, beside psfmodels in the same run: one JSON row per case, appended to a file.

    pip install 'gpudecon[oracles]'
    OPENBLAS_NUM_THREADS=1 python bench/psf.py --output bench/results/psf.jsonl     # add --device cuda for a GPU

One thread for OpenBLAS, because on a machine shared with others its threads wait for each other; unset it elsewhere.

Vectorial PSFs of NA 1.4, index 1.515, 520 nm on voxels of 100 x 65 x 65 nm, averaged over each pixel.  The reference is
the defining integral at 6 x 6 Gauss-Legendre points in each pixel, with more nodes in the pupil.  Errors are the
largest difference of PSFs divided by their peak.  Times are the best and the median of several calls, after one that
is not counted; programs take turns, so that a disturbance meets all of them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpudecon.backend import get_backend
from gpudecon.backend.slabs import available_cores
from gpudecon.optics import Optics
from gpudecon.psf.radial import DiffractedBeam
from gpudecon.psf.theory import theoretical_psf, theoretical_psfs

OPTICS = Optics(na=1.4, emission_nm=520, immersion_index=1.515)
DEEP = Optics(na=1.3, emission_nm=520, immersion_index=1.515, sample_index=1.33)
VOXEL = (0.1, 0.065, 0.065)
SHAPES = ((65, 129, 129), (129, 257, 257))
OVERSAMPLING = (1, 3, 9)  # psfmodels' sf
REFERENCE_PLANES = (0, 1, 4, 12, 32)  # distances from the focus, in planes


def environment(device: str) -> dict[str, Any]:
    git = ["git", "-C", str(Path(__file__).parents[1])]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False).stdout
    names = ("numpy", "scipy", "psfmodels")
    return {
        "row": "env",
        "commit": commit + ("+changes" if dirty else ""),
        "date": time.strftime("%Y-%m-%d"),
        "cores": available_cores(),
        "processor": processor(),
        "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "all"),
        "load_1min": round(os.getloadavg()[0], 2),
        "device": get_backend(device).describe(),
        "python": platform.python_version(),
        **{n: importlib.metadata.version(n) for n in names if importlib.util.find_spec(n)},
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def reference(shape: tuple[int, int, int]) -> tuple[list[int], np.ndarray]:
    """Planes and one quarter of their pixels, by the integrals themselves: (plane, y, x)."""
    planes = [p for p in REFERENCE_PLANES if p <= shape[0] // 2]
    nodes, weights = np.polynomial.legendre.leggauss(6)
    n = shape[1] // 2 + 1
    position = ((np.arange(n)[:, None] + nodes / 2) * VOXEL[1]).ravel()
    radii = np.hypot(position[:, None], position)
    rows = []
    beam = DiffractedBeam(get_backend("cpu"), OPTICS, 520, "vectorial", "uniform")
    z = np.array(planes) * VOXEL[0]
    quadrature = np.kron(np.eye(n), weights / 2)
    for chunk in np.array_split(np.arange(len(position)), max(1, len(position) // 8)):
        part = radii[chunk]
        # more nodes than the PSF itself takes for these radii
        profile = beam.profile(np.append(part.ravel(), 1.5 * radii.max()), 1.5 * float(z.max()), (0.0,))
        rows.append(profile(z, 0.0)[:, :-1].reshape(len(z), *part.shape))
    values = np.concatenate(rows, axis=1)
    return planes, quadrature @ values @ quadrature.T


def error(volume: np.ndarray, planes: list[int], exact: np.ndarray) -> float:
    centre = [n // 2 for n in volume.shape]
    quarter = volume[np.array(planes) + centre[0], centre[1] :, centre[2] :]
    return float(np.abs(quarter / volume.max() - exact / exact.max()).max())


def timed(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def single(shape: tuple[int, int, int], device: str, repeats: int) -> list[dict[str, Any]]:
    def own() -> np.ndarray:
        return theoretical_psf(OPTICS, shape, VOXEL, device=device).array

    calls: dict[str, Callable[[], Any]] = {"gpudecon": own}
    if importlib.util.find_spec("psfmodels"):
        import psfmodels

        z = (np.arange(shape[0]) - shape[0] // 2) * VOXEL[0]
        base = {"NA": 1.4, "ni": 1.515, "ni0": 1.515, "ns": 1.515, "ng": 1.515, "ng0": 1.515}
        for sf in OVERSAMPLING:
            calls[f"psfmodels sf={sf}"] = lambda sf=sf: psfmodels.vectorial_psf(
                z, nx=shape[1], dxy=VOXEL[1], pz=0, wvl=0.52, params={**base, "sf": sf}
            )
    else:
        print("psfmodels is not installed: no comparison")
    planes, exact = reference(shape)
    errors = {name: error(np.asarray(call(), np.float64), planes, exact) for name, call in calls.items()}
    return [
        {
            "row": "psf",
            "program": name,
            "shape": shape,
            "best_s": round(min(seconds), 4),
            "median_s": round(float(np.median(seconds)), 4),
            "calls": repeats,
            "error_of_peak": float(f"{errors[name]:.2e}"),
        }
        for name, seconds in timed(calls, repeats).items()
    ]


def depths(device: str, repeats: int) -> dict[str, Any]:
    shape, series = SHAPES[0], np.linspace(0, 20, 100)
    seconds = timed({"all": lambda: theoretical_psfs(DEEP, series, shape, VOXEL, device=device)}, repeats)["all"]
    return {
        "row": "depths",
        "program": "gpudecon",
        "psfs": len(series),
        "shape": shape,
        "best_s": round(min(seconds), 3),
        "median_s": round(float(np.median(seconds)), 3),
        "calls": repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, help="append the rows to this file")
    args = parser.parse_args()
    rows = [environment(args.device)]
    for shape in SHAPES:
        rows += single(shape, args.device, args.repeats)
    rows.append(depths(args.device, max(1, args.repeats // 3)))
    text = "".join(json.dumps(row) + "\n" for row in rows)
    print(text, end="")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        with args.output.open("a") as file:
            file.write(text)


if __name__ == "__main__":
    main()
