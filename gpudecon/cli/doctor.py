"""gpudecon doctor: what is installed, what works, and what is missing."""

from __future__ import annotations

import argparse
import json
import platform
from typing import Any

import numpy as np

from gpudecon._version import __version__
from gpudecon.backend import Backend, get_backend
from gpudecon.errors import GpudeconError

# float32 transforms of ten thousand to a million numbers agree to a few 1e-7 of the largest value
AGREEMENT = 1e-5


def add_parser(verbs: Any) -> None:
    """Describe the verb and its options."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "doctor", help="show what is installed and check that it works", description=__doc__
    )
    parser.set_defaults(act=act)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def act(args: argparse.Namespace) -> int:
    """Carry out the verb; exit status 1 if a device that is there does not compute rightly."""
    found = examine()
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)
    return 0 if all(d["works"] for d in found["devices"]) else 1


def examine() -> dict[str, Any]:
    """Versions, devices with their checks, and what is missing."""
    from gpudecon.backend.cupy import missing_for_cuda

    versions: dict[str, str | None] = {"gpudecon": __version__, "python": platform.python_version()}
    for name in ("numpy", "scipy", "ducc0", "zarr", "tifffile", "yaozarrs", "imagecodecs"):
        versions[name] = _version(name)
    cupy = [name for name in ("cupy-cuda12x", "cupy-cuda13x", "cupy") if _version(name) is not None]
    versions["cupy"] = ", ".join(f"{name} {_version(name)}" for name in cupy) or None
    devices = [_device(get_backend("cpu"))]
    missing = {}
    reason = missing_for_cuda()
    if reason is None:
        try:
            devices.append(_device(get_backend("cuda")))
        except GpudeconError as error:
            reason = str(error)
    if reason is not None:
        missing["GPU"] = reason
    if versions["ducc0"] is None:
        missing["faster FFT on the CPU"] = "ducc0 is not installed: pip install 'gpudecon[cpu]'"
    return {"versions": versions, "devices": devices, "missing": missing}


def _version(name: str) -> str | None:
    import importlib.metadata  # it brings in the whole of email, which no other verb needs

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device(backend: Backend) -> dict[str, Any]:
    """A transform there and back, and a restoration compared with SciPy's transforms in double precision."""
    free, total = backend.memory()
    round_trip = _round_trip_error(backend)
    agreement = _restoration_error(backend)
    return {
        "name": backend.name,
        **backend.describe(),
        "memory_free_gib": round(free / 2**30, 2),
        "memory_total_gib": round(total / 2**30, 2),
        "fft_round_trip_error": round_trip,
        "restoration_error": agreement,
        "works": round_trip < AGREEMENT and agreement < 10 * AGREEMENT,
    }


def _round_trip_error(backend: Backend) -> float:
    shape = (11, 36, 45)
    image = np.random.default_rng(1).random(shape, np.float32)
    with backend.active():
        fft = backend.plan(shape)
        spectrum, real = fft.empty()
        real[...] = backend.upload(image)
        fft.forward(real, spectrum)
        fft.inverse(spectrum, real)
        back = backend.download(real) / image.size
    return float(np.abs(back - image).max())


def _restoration_error(backend: Backend) -> float:
    """Largest difference of 5 periodic Richardson-Lucy iterations from the same in float64, relative to the maximum."""
    from gpudecon.deconvolve import deconvolve

    rng = np.random.default_rng(2)
    image = rng.random((9, 20, 27), np.float32) + np.float32(0.1)
    psf = rng.random((3, 5, 4), np.float32)
    psf /= psf.sum()
    placed = np.zeros(image.shape)
    placed[np.ix_(*((np.arange(p) - p // 2) % n for p, n in zip(psf.shape, image.shape, strict=True)))] = psf
    otf = np.fft.rfftn(placed)
    estimate = np.full(image.shape, image.mean(dtype=np.float64))
    for _ in range(5):
        blurred = np.fft.irfftn(np.fft.rfftn(estimate) * otf, s=image.shape)
        estimate = estimate * np.fft.irfftn(np.fft.rfftn(image / blurred) * otf.conj(), s=image.shape)
    restored = deconvolve(image, psf, iterations=5, edges="periodic", device=backend.name)
    return float(np.abs(restored - estimate).max() / estimate.max())


def _print(found: dict[str, Any]) -> None:
    print("Versions")
    for name, version in found["versions"].items():
        print(f"  {name:<12} {version or 'not installed'}")
    for device in found["devices"]:
        print(f"Device {device['name']}: {'works' if device['works'] else 'DOES NOT COMPUTE RIGHTLY'}")
        for key, value in device.items():
            if key not in ("name", "works"):
                print(f"  {key:<22} {value:.2g}" if isinstance(value, float) else f"  {key:<22} {value}")
    for what, reason in found["missing"].items():
        print(f"Missing: {what}: {reason}")
