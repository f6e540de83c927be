"""Benchmark on the CPU: time per iteration beside the bare FFTs and beside peers, and peak memory.

python bench/cpu.py -o bench/results/cpu.jsonl
python bench/cpu.py --quick --only iteration,memory -o /tmp/cpu.jsonl
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from bare_fft import four_ffts, installed
from cases import Shape, make_problem, random_image, random_psf, stepper
from peers import REDLIONFISH, SCIKIT_IMAGE, disagreement, seconds_per_iteration
from rows import HERE, Rows, environment, print_table, voxels
from timing import WallClock, interleaved

from gpudecon.backend.numpy import NumpyBackend
from gpudecon.backend.slabs import available_cores
from gpudecon.forward import Edges

EDGES: tuple[Edges, ...] = ("periodic", "extend")
METHODS = {"rl": "none", "rl shb": "shb"}


@dataclasses.dataclass(frozen=True)
class Size:
    """What is measured, and how often."""

    shapes: list[Shape]
    psf: Shape
    rounds: int
    peer_iterations: tuple[int, int]
    peer_rounds: int


FULL = Size([(64, 256, 256), (96, 512, 512)], (61, 51, 51), 7, (1, 3), 3)
QUICK = Size([(12, 20, 24)], (5, 7, 7), 5, (1, 41), 5)


def iteration(rows: Rows, size: Size, threads: int) -> None:
    """One iteration in the steady state, and the library's four transforms of the same domain, in turn."""
    rng = np.random.default_rng()
    psf = random_psf(size.psf, rng)
    for shape in size.shapes:
        image = random_image(shape, rng)
        for library in _libraries():
            for edges in EDGES:
                problem = make_problem(NumpyBackend(threads, library), image, psf, edges)
                domain = problem.model.domain
                calls = {name: stepper(problem, acceleration) for name, acceleration in METHODS.items()}
                calls["four bare FFTs"] = four_ffts(library, domain, threads)
                taken = interleaved(calls, WallClock(), rounds=size.rounds)
                bare = taken["four bare FFTs"].median
                for name, timing in taken.items():
                    rows.add(
                        "iteration",
                        name,
                        shape=shape,
                        domain=domain,
                        edges=edges,
                        fft=library,
                        threads=threads,
                        **timing.fields,
                        ratio_to_bare_ffts=timing.median / bare if name in METHODS else None,
                    )


def fft(rows: Rows, size: Size, threads: int) -> None:
    """The four transforms by every library on the same shapes: why gpudecon takes the one that it takes."""
    for shape in size.shapes:
        least = tuple(n + p - 1 for n, p in zip(shape, size.psf, strict=True))
        nz, ny, nx = NumpyBackend(threads).padded_shape(least)
        for domain in (shape, (nz, ny, nx)):
            calls, notes = {}, {}
            for library in installed():
                start = time.perf_counter()
                calls[library] = four_ffts(library, domain, threads)
                notes[library] = f"{time.perf_counter() - start:.2g} s to plan"
            for library, timing in interleaved(calls, WallClock(), rounds=size.rounds).items():
                what = {"shape": domain, "domain": domain, "fft": library, "threads": threads}
                rows.add("fft", "four bare FFTs", **what, **timing.fields, note=notes[library])


def memory(rows: Rows, size: Size, threads: int) -> None:
    """Peak of a whole `deconvolve` call in a fresh process beyond the interpreter with everything imported."""
    note = "3 iterations, image, PSF and result included; baseline: resident after imports, before the image is made"
    for shape in size.shapes:
        for library in _libraries():
            for edges in EDGES:
                least = tuple(n + p - 1 for n, p in zip(shape, size.psf, strict=True))
                domain = shape if edges == "periodic" else NumpyBackend(threads, library).padded_shape(least)
                for name, acceleration in METHODS.items():
                    case = {"shape": shape, "psf_shape": size.psf, "edges": edges, "fft": library}
                    text = json.dumps({**case, "acceleration": acceleration})
                    command = [sys.executable, str(HERE / "peak_memory.py"), text]
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
                    peak = json.loads(done.stdout)["bytes"]
                    rows.add(
                        "memory",
                        name,
                        shape=shape,
                        domain=domain,
                        edges=edges,
                        fft=library,
                        threads=threads,
                        peak_bytes=peak,
                        bytes_per_padded_voxel=peak / voxels(domain),
                        note=note,
                    )


def peers(rows: Rows, size: Size, threads: int) -> None:
    """Other programs per iteration; each has one kind of edges, so once per image."""
    rng = np.random.default_rng()
    psf = random_psf(size.psf, rng)
    for peer in (SCIKIT_IMAGE, REDLIONFISH):
        if not peer.installed:
            rows.skip("peers", peer.name, "not installed")
            continue
        difference = disagreement(peer, np.asarray, np.asarray)
        note = f"{peer.note}; differs from float64 inside by {difference:.1e} after 2 iterations"
        for shape in size.shapes:
            timing = seconds_per_iteration(
                peer,
                random_image(shape, rng),
                psf,
                WallClock(),
                counts=size.peer_iterations,
                rounds=size.peer_rounds,
            )
            rows.add("peers", peer.name, shape=shape, threads=threads, **timing.fields, note=note)


SECTIONS = {"iteration": iteration, "fft": fft, "memory": memory, "peers": peers}


def _libraries() -> list[str]:
    """Those that gpudecon can use."""
    return [library for library in installed() if library in ("ducc0", "scipy")]


def _shape(text: str) -> Shape:
    nz, ny, nx = map(int, text.split("x"))
    return nz, ny, nx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", type=_shape, help="shapes of the images, such as 64x256x256")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: the numbers mean nothing")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("-o", "--out", type=Path, default=HERE / "results" / "cpu.jsonl")
    arguments = parser.parse_args()
    preset = QUICK if arguments.quick else FULL
    size = dataclasses.replace(preset, shapes=arguments.shapes or preset.shapes)

    rows = Rows(arguments.out)
    rows.add("env", "environment", **environment(), psf_shape=size.psf)
    for section in arguments.only.split(","):
        SECTIONS[section](rows, size, available_cores())
    print_table(rows.all[1:])


if __name__ == "__main__":
    main()
