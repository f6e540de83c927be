"""How far a cut through an image is felt: the halo that tiles need, for every method and kind of PSF.

python bench/seams.py -o bench/results/seams.jsonl     # about 10 minutes on 2 cores
python bench/seams.py --quick -o /tmp/seams.jsonl
python bench/seams.py --table                          # the table of docs/large.md, from the committed rows

An image is restored whole, and what lies to the right and to the left of a cut on its own, with the constants of the
whole.  ``needed`` is the distance from the cut from which on the two agree to 1e-3 of the local value (at each voxel
the larger of its value and 1 % of the 99.9th percentile), ``looser`` and ``tighter`` for 1e-2 and 1e-4; the larger of
both sides.  Looked at are ``distances`` voxels: each part, or the nearer half of it for methods that continue the image
beyond its faces or couple opposite ones, which differ near the far face for that reason.  A row without one of the
three did not get there.  ``radius`` is that of 95 % of the PSF's light along x; what `gpudecon.halo` returns must be at
least ``needed`` (tests/test_bench.py).
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from quality_cases import CAMERA, HAZE, OPTICS, VOXEL, Shape, Volume
from rows import HERE, Rows, environment

import gpudecon as gd
from gpudecon.engine.seams import TOLERANCE, brightness, relative_difference
from gpudecon.methods import make_method
from gpudecon.methods.reach import Spread
from gpudecon.simulate import expose, phantom

LEVELS = {"looser": 1e-2, "needed": TOLERANCE, "tighter": 1e-4}
SKEW = "asymmetric"
VARIANTS: dict[str, Mapping[str, Any]] = {
    "rl": {},
    "rl shb": {"acceleration": "shb"},
    "rl biggs": {"acceleration": "biggs"},
    "rl wb": {"back_projector": "wb"},
    "rl omw": {"back_projector": "omw"},
    "rl tv": {"tv": 0.01},
    "rl 100": {"iterations": 100},
    "wiener": {},
    "cls": {},
    "inverse": {},
    "landweber": {},
    "gold": {},
    "fista_tv": {},
    "tv": {},
    "median": {},
}


@dataclass(frozen=True)
class Size:
    """The frame for each optic, the longest frame, the PSF's window, and photons at the brightest voxel."""

    frames: Mapping[str, Shape]
    longest: int
    window: Shape
    photons: int = 200


FULL = Size(
    frames={
        "confocal": (20, 48, 240),
        "light-sheet": (20, 48, 240),
        SKEW: (20, 48, 240),
        "widefield": (24, 48, 400),
    },
    longest=480,
    window=(25, 33, 33),
)
QUICK = Size(frames={"confocal": (6, 20, 50), SKEW: (6, 20, 50)}, longest=60, window=(5, 7, 7))
DENSE, SPARSE = "nuclei", "filaments"
FAR = ("fista_tv",)  # which need frames of the longest size
FACES_APART = ("rl", "rl shb", "rl biggs", "rl 100", "landweber", "gold", "tv", "median")
ON_SPARSE = ("rl", "rl shb", "wiener", "cls", "landweber", "gold")  # dense specimens ask for more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "seams.jsonl")
    parser.add_argument("--quick", action="store_true", help="tiny images, for a test of this program")
    parser.add_argument("--table", action="store_true", help="print the table of the rows in the output")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--optics", nargs="+", default=list(FULL.frames), choices=FULL.frames)
    parser.add_argument("--phantoms", nargs="+", default=[DENSE, SPARSE], choices=[DENSE, SPARSE])
    given = parser.parse_args()
    if given.table:
        print_needed([json.loads(line) for line in given.output.read_text().splitlines()])
        return
    size = QUICK if given.quick else FULL
    rows = Rows(given.output)
    rows.add("env", "environment", **environment())
    for kind in given.phantoms:
        for optic in [o for o in size.frames if o in given.optics]:
            usual = size.frames[optic]
            psf = psf_of(optic, size.window)
            for variant in given.variants:
                if kind == SPARSE and variant not in ON_SPARSE:
                    continue
                frame = (*usual[:2], size.longest if variant in FAR else usual[2])
                image = image_of(kind, frame, psf, size.photons)
                figures = measured(image, psf, variant)
                rows.add("seams", variant, optic=optic, phantom=kind, shape=frame, photons=size.photons, **figures)
                print(f"{optic:12} {kind:10} {variant:16} {figures}", flush=True)


@functools.lru_cache
def psf_of(optic: str, window: Shape) -> gd.PSF:
    """Theoretical; the asymmetric one is the confocal PSF with a fading tail to one side, as of coma."""
    if optic != SKEW:
        return gd.theoretical_psf(OPTICS[optic], window, VOXEL)
    z, y, x = (n // 2 | 1 for n in window)
    core = gd.theoretical_psf(OPTICS["confocal"], (z, y, x), VOXEL).array
    psf = np.zeros((z + 2, y + 4, x + 8))
    for dz, dy, dx, weight in ((0, 0, 0, 1.0), (0, 1, 3, 0.6), (1, 2, 5, 0.4), (1, 3, 8, 0.2)):
        psf[dz : dz + z, dy : dy + y, dx : dx + x] += weight * core
    return gd.PSF(psf, VOXEL)


@functools.lru_cache
def image_of(kind: str, frame: Shape, psf: gd.PSF, photons: int) -> Volume:
    """A frame out of a specimen that is larger by the PSF's window."""
    size = tuple(n + 2 * (w // 2) for n, w in zip(frame, psf.shape, strict=True))
    truth = phantom(kind, size, VOXEL, seed=1)
    grey, _ = expose(truth, psf, peak_photons=photons, haze_photons=HAZE, camera=CAMERA, seed=2)
    return grey[tuple(slice(w // 2, w // 2 + n) for n, w in zip(frame, psf.shape, strict=True))]


def measured(image: Volume, psf: gd.PSF, variant: str) -> dict[str, Any]:
    """The figures of a row."""
    name = variant.split()[0]
    options = dict(VARIANTS[variant])
    method = make_method(name, options)
    used = psf if method.needs_psf else None
    settings = {"background": CAMERA.offset + CAMERA.gain * HAZE, "camera": CAMERA, "voxel_um": VOXEL, "device": "cpu"}
    constants = gd.Deconvolver(image.shape, used, name, **settings, **options).decide(image)
    restore = functools.partial(gd.deconvolve, psf=used, method=name, constants=constants, **settings, **options)
    whole = restore(image)
    bright, cut = brightness(whole), image.shape[2] // 2
    distances = cut if variant in FACES_APART else cut // 2
    worst = np.zeros(distances)
    for part, is_right in ((slice(cut, None), True), (slice(0, cut), False)):
        tile = restore(np.ascontiguousarray(image[..., part]))
        profile = relative_difference(tile, whole[..., part], bright).max(axis=(0, 1))
        worst = np.maximum(worst, (profile if is_right else profile[::-1])[:distances])
    needed = {key: int(np.max(np.flatnonzero(worst > level), initial=-1)) + 1 for key, level in LEVELS.items()}
    return {
        **{key: distance for key, distance in needed.items() if distance < distances},
        "distances": distances,
        "least_difference": float(worst[-max(distances // 8, 1) :].max()),
        "radius": Spread(psf.array, 2, VOXEL).radius,
    }


def print_needed(rows: list[dict[str, Any]]) -> None:
    """Markdown: for each variant and optic ``needed``, of dense specimens, and the halo along x."""
    print("| | " + " | ".join(FULL.frames) + " |\n" + "|---" * (1 + len(FULL.frames)) + "|")
    for variant, options in VARIANTS.items():
        method = make_method(variant.split()[0], dict(options))
        cells = [f"`{variant}`"]
        for optic in FULL.frames:
            found = [r for r in rows if (r["name"], r.get("optic"), r.get("phantom")) == (variant, optic, DENSE)]
            reach = gd.halo(psf_of(optic, FULL.window), method, voxel_um=VOXEL)[2]
            needed = found[-1].get("needed", f"> {found[-1]['distances']}") if found else "not measured"
            cells.append(f"{needed} ({reach})")
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
