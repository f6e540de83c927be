"""Benchmark on a GPU, in at most 8 minutes: ceilings, correctness, FFT, Richardson-Lucy and peers.

python bench/gpu.py -o bench/results
python bench/gpu.py --backend numpy --toy -o /tmp/bench     # the same lines on the CPU, tiny: the numbers mean nothing
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import correctness
import numpy as np
from cases import Shape, make_problem, random_image, random_psf, stepper
from device import Call, CpuDevice, CudaDevice, Device
from fft_cost import smooth_lengths
from peers import CUCIM, SCIKIT_IMAGE, Peer, disagreement, seconds_per_iteration, suitable_psf
from rows import HERE, Rows, environment, print_table, voxels
from timing import Cap, Clock, Timing, WallClock, interleaved

from gpudecon.backend import Backend
from gpudecon.backend.cupy import missing_for_cuda
from gpudecon.errors import GpudeconError
from gpudecon.forward import Edges

EDGES: tuple[Edges, ...] = ("periodic", "extend")
METHODS = {"rl": "none", "rl shb": "shb"}

# Least traffic in bytes per voxel of the domain with one pass per axis and transform, and one per operation.
TRANSFORM = 24  # three passes that read and write 4
ITERATION = {"rl": 4 * TRANSFORM + 2 * 12 + 12 + 12, "rl shb": 4 * TRANSFORM + 2 * 12 + 12 + 20}
WEIGHTS = 4  # read by the update, with edges "extend"
NAIVE = 192  # the transforms, and a pass for each operation that an array library carries out


@dataclass(frozen=True)
class Size:
    """What is measured."""

    copy_bytes: int = 1 << 30
    transfer_bytes: int = 1 << 28
    correct: list[tuple[Shape, Shape]] = field(
        default_factory=lambda: [((33, 50, 63), (9, 11, 13)), ((64, 96, 80), (14, 7, 10))]
    )
    fft: list[Shape] = field(
        default_factory=lambda: [
            (64, 256, 256),
            (61, 509, 509),
            (100, 500, 500),
            (128, 512, 512),
            (160, 576, 576),
            (128, 1024, 1024),
            (192, 1080, 1080),
            (256, 2048, 2048),
        ]
    )
    axis_elements: int = 1 << 25  # 256 MiB: beyond the cache, as whole volumes are
    longest: int = 2400
    rl: list[Shape] = field(
        default_factory=lambda: [(64, 256, 256), (128, 512, 512), (128, 1024, 1024), (256, 2048, 2048)]
    )
    psf: Shape = (61, 51, 51)
    rounds: int = 20
    peer_iterations: tuple[int, int] = (1, 4)


TOY = Size(
    copy_bytes=1 << 20,
    transfer_bytes=1 << 16,
    correct=[((9, 14, 17), (5, 7, 6))],
    fft=[(8, 12, 20), (7, 11, 13)],
    axis_elements=1 << 12,
    longest=30,
    rl=[(12, 20, 24), (13, 21, 25)],
    psf=(5, 7, 7),
    rounds=5,
    peer_iterations=(1, 41),
)


@dataclass(frozen=True)
class Bench:
    """One run: where, what, and what came out."""

    device: Device
    size: Size
    rows: Rows
    out: Path
    seed: int

    @functools.cached_property
    def copy_speed(self) -> float:
        """Bytes per second of a copy on the device, read and write counted: the ceiling of everything else."""
        n = self.size.copy_bytes // 4
        backend = self.device.backend()
        with backend.active():
            source = tile(backend.xp, (n,), self.seed)
            copy = functools.partial(backend.xp.copyto, backend.xp.empty_like(source), source)
            timing = interleaved({"": copy}, self.device, rounds=self.size.rounds)[""]
        return 8 * n / timing.median


def tile(xp: Any, shape: tuple[int, ...], seed: int) -> Any:
    """Random positive numbers on the device; a million of them repeated, so that the host has little to do."""
    count = voxels(shape)
    block = xp.asarray(random_image((min(count, 1 << 20),), np.random.default_rng(seed)))
    return xp.tile(block, -(-count // block.size))[:count].reshape(shape)


def ceilings(bench: Bench, cap: Cap) -> None:
    """Memory traffic on the device, transfers, and what a call costs that has nothing to do."""
    device, size, backend = bench.device, bench.size, bench.device.backend()
    bench.rows.add("ceilings", "copy, read + write", bytes=2 * size.copy_bytes, gb_per_s=bench.copy_speed / 1e9)
    with backend.active():
        xp = backend.xp
        a, b = (tile(xp, (size.copy_bytes // 4,), bench.seed + i) for i in (0, 1))
        add = functools.partial(xp.add, a, b, out=xp.empty_like(a))
        calls: dict[str, Call] = {"sum of two arrays": add, **device.transfers(size.transfer_bytes)}
        for name, timing in interleaved(calls, device, rounds=size.rounds).items():
            moved = 3 * size.copy_bytes if name == "sum of two arrays" else size.transfer_bytes
            bench.rows.add("ceilings", name, bytes=moved, **timing.fields, gb_per_s=moved / timing.median / 1e9)
        one = xp.ones(1, np.float32)

        def hundred() -> None:
            for _ in range(100):
                xp.multiply(one, one, out=one)

        timing = interleaved({"": hundred}, device, rounds=size.rounds)[""]
    each = Timing(timing.median / 100, timing.least / 100, timing.n)
    bench.rows.add("ceilings", "operation on one number", **each.fields)


def correct(bench: Bench, cap: Cap) -> None:
    """Every operation and method against float64."""
    correctness.check(bench.rows, bench.device.backend(), bench.size.correct, bench.seed)


def fft(bench: Bench, cap: Cap) -> None:
    """A transform forth and back as share of its floor; then the cost of every length along an axis."""
    for shape in bench.size.fft:
        if not cap.fits():
            bench.rows.skip("fft", "forth and back", "no time left", shape=shape)
            continue
        try:
            _fft_pair(bench, shape)
        except GpudeconError as error:
            bench.rows.skip("fft", "forth and back", str(error), shape=shape)
    lengths = [n for n in smooth_lengths() if n <= bench.size.longest]
    table = _axis_costs(bench, cap, lengths)
    # a length is worth using only if no longer one takes less time altogether
    worth = {n: c for n, c in table.items() if all(n * c <= m * d for m, d in table.items() if m > n)}
    path = bench.out / f"fft_cost_{bench.device.fft_library}.json"
    path.write_text(json.dumps({bench.device.fft_library: worth}) + "\n")
    note = f"{len(worth)} lengths worth using, of {len(table)} measured of {len(lengths)}; in {path.name}"
    bench.rows.add("fft", "cost of axis lengths", lengths=len(table), note=note)


def _fft_pair(bench: Bench, shape: Shape) -> None:
    backend = bench.device.backend()
    with backend.active():
        transforms = backend.plan(shape)
        spectrum, real = transforms.empty()
        source = transforms.empty()[1]
        source[...] = tile(backend.xp, shape, bench.seed)

        def pair() -> None:
            transforms.forward(source, spectrum)
            transforms.inverse(spectrum, real)

        timing = interleaved({"": pair}, bench.device, rounds=bench.size.rounds)[""]
    floor = 2 * TRANSFORM * voxels(shape) / bench.copy_speed
    what = {"shape": shape, "fft": bench.device.fft_library, "floor_seconds": floor}
    bench.rows.add("fft", "forth and back", **what, **timing.fields, fraction_of_floor=floor / timing.median)


def _axis_costs(bench: Bench, cap: Cap, lengths: list[int]) -> dict[int, float]:
    """Nanoseconds per element of one-dimensional transforms, the mean over the ways in which vectors can lie."""
    table = {}
    for n in lengths:
        if not cap.fits():
            break
        batch = max(1, bench.size.axis_elements // n)
        calls = {str(i): call for i, call in enumerate(bench.device.axis_transforms(n, batch))}
        taken = interleaved(calls, bench.device, rounds=5).values()
        table[n] = round(sum(t.least for t in taken) / len(taken) / (n * batch) * 1e9, 4)
    return table


def rl(bench: Bench, cap: Cap) -> None:
    """Richardson-Lucy per iteration beside the floor of its memory traffic, and the loop that one writes first."""
    psf = random_psf(bench.size.psf, np.random.default_rng(bench.seed))
    last_seconds, last_voxels = 0.0, 1
    for shape in bench.size.rl:
        cases: list[tuple[str, Edges]] = [("naive loop", "periodic"), *((m, e) for e in EDGES for m in METHODS)]
        for name, edges in cases:
            if not cap.fits(last_seconds * voxels(shape) / last_voxels):
                bench.rows.skip("rl", name, "no time left", shape=shape, edges=edges)
                continue
            start = time.monotonic()
            try:
                _rl_case(bench, name, shape, psf, edges)
            except GpudeconError as error:
                bench.rows.skip("rl", name, str(error), shape=shape, edges=edges)
            bench.device.release()
            last_seconds, last_voxels = time.monotonic() - start, voxels(shape)


def _rl_case(bench: Bench, name: str, shape: Shape, psf: Any, edges: Edges) -> None:
    device = bench.device
    with device.peak_memory() as peak:
        backend = device.backend()
        with backend.active():
            image = tile(backend.xp, shape, bench.seed)
            if name == "naive loop":
                step, domain, traffic = naive_loop(backend, image, psf), shape, NAIVE
            else:
                problem = make_problem(backend, image, psf, edges)
                step, domain = stepper(problem, METHODS[name]), problem.model.domain
                traffic = ITERATION[name] + (WEIGHTS if edges == "extend" else 0)
            timing = interleaved({"": step}, device, rounds=bench.size.rounds, warm_up=3)[""]
    n = voxels(domain)
    floor = traffic * n / bench.copy_speed
    bench.rows.add(
        "rl",
        name,
        shape=shape,
        domain=domain,
        edges=edges,
        **timing.fields,
        voxel_iterations_per_s=n / timing.median,
        bytes_model=traffic,
        floor_seconds=floor,
        gap=timing.median / floor,
        peak_bytes=peak.bytes,
        bytes_per_padded_voxel=peak.bytes / n,
    )


def naive_loop(backend: Backend, image: Any, psf: Any) -> Call:
    """Richardson-Lucy in the array library's own words: what gpudecon's kernels and plans are measured against."""
    xp, shape = backend.xp, image.shape
    placed = xp.zeros(shape, np.float32)
    placed[tuple(slice(n) for n in psf.shape)] = xp.asarray(psf)
    otf = xp.fft.rfftn(xp.roll(placed, tuple(-(n // 2) for n in psf.shape), axis=(0, 1, 2)))
    estimate = xp.full(shape, float(image.mean()), np.float32)

    def step() -> None:
        nonlocal estimate
        blurred = xp.fft.irfftn(xp.fft.rfftn(estimate) * otf, s=shape, axes=(0, 1, 2))
        ratio = image / xp.maximum(blurred, np.float32(1e-6))
        correction = xp.fft.irfftn(xp.fft.rfftn(ratio) * otf.conj(), s=shape, axes=(0, 1, 2))
        estimate = xp.maximum(estimate * correction, np.float32(0))

    return step


def peers(bench: Bench, cap: Cap) -> None:
    """Other programs on the smallest shape: cuCIM on the device, scikit-image on the host beside it."""
    backend = bench.device.backend()
    if backend.xp is np:
        bench.rows.skip("peers", CUCIM.name, "takes CuPy's arrays only")
    else:
        with backend.active():
            _peer(bench, cap, CUCIM, backend.upload, backend.download, bench.device)
    _peer(bench, cap, SCIKIT_IMAGE, np.asarray, np.asarray, WallClock())


def _peer(bench: Bench, cap: Cap, peer: Peer, upload: Any, download: Any, clock: Clock) -> None:
    if not peer.installed or not cap.fits():
        bench.rows.skip("peers", peer.name, "no time left" if peer.installed else "not installed")
        return
    rng = np.random.default_rng(bench.seed)
    shape = bench.size.rl[0]
    image, psf = upload(random_image(shape, rng)), upload(suitable_psf(peer, random_psf(bench.size.psf, rng)))
    try:
        difference = disagreement(peer, upload, download)
    except ImportError as error:  # of something that the peer needs and did not ask for
        bench.rows.skip("peers", peer.name, str(error))
        return
    timing = seconds_per_iteration(peer, image, psf, clock, counts=bench.size.peer_iterations, rounds=3)
    note = f"{peer.note}; differs from float64 inside by {difference:.1e} after 2 iterations"
    bench.rows.add("peers", peer.name, shape=shape, **timing.fields, note=note)


# In order of value, with the share of the budget that each may take.
SECTIONS: dict[str, tuple[Callable[[Bench, Cap], None], float]] = {
    "ceilings": (ceilings, 0.05),
    "correctness": (correct, 0.15),
    "fft": (fft, 0.25),
    "rl": (rl, 0.4),
    "peers": (peers, 0.15),
}


def print_report(rows: Rows) -> None:
    """All rows but those of correctness, which count and name their worst only."""
    checks = [row for row in rows.all if row["section"] == "correctness"]
    print_table([row for row in rows.all if row["section"] not in ("env", "correctness")])
    if checks:
        failed = correctness.failures(rows)
        worst = max(checks, key=lambda row: row.get("relative_error", np.inf) / row["tolerance"])
        print(
            f"correctness: {len(checks) - len(failed)} of {len(checks)} passed; nearest to its tolerance is "
            f"{worst['name']}: {worst.get('relative_error', np.inf):.1e} of {worst['tolerance']:.0e}"
        )
        if failed:
            print(f"FAILED: {', '.join(failed)}")


def make_device(name: str) -> Device:
    if name == "numpy":
        return CpuDevice()
    missing = missing_for_cuda()
    if missing:
        sys.exit(f"No GPU to measure: {missing}.")
    return CudaDevice()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["cupy", "numpy"], default="cupy")
    parser.add_argument("--budget", type=float, default=480, help="seconds for everything (default 480)")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the inputs (default: the time)")
    parser.add_argument("--toy", action="store_true", help="tiny sizes: the numbers mean nothing")
    parser.add_argument("-o", "--out", type=Path, default=HERE / "results", help="folder for the results")
    arguments = parser.parse_args()

    device = make_device(arguments.backend)
    rows = Rows(arguments.out / f"{device.name}.jsonl")
    bench = Bench(device, TOY if arguments.toy else Size(), rows, arguments.out, arguments.seed)
    described = device.backend().describe()
    rows.add("env", "environment", **environment(), **described, psf_shape=bench.size.psf, seed=bench.seed)
    for section in arguments.only.split(","):
        run, share = SECTIONS[section]
        run(bench, Cap(share * arguments.budget))
        device.release()
    print_report(rows)
    sys.exit(bool(correctness.failures(rows)))


if __name__ == "__main__":
    main()
