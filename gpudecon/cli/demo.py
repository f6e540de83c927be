"""gpudecon demo: a simulated specimen with known truth, imaged, restored and measured."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from gpudecon.errors import InputError
from gpudecon.image import Channel, Image

SHAPE = (48, 192, 192)
MARGIN = (16, 32, 32)  # simulated beyond the frame on both sides: specimens do not end where the camera does
VOXEL_UM = (0.2, 0.08, 0.08)
ITERATIONS = 40


def add_parser(verbs: Any) -> None:
    """Describe the verb and its options."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "demo",
        help="simulate a specimen, restore it, print the gain",
        description="Simulate filaments, beads and shells in a widefield microscope with photon and read noise, "
        "restore them, print error and resolution before and after, and write raw, restored and truth as OME-Zarr "
        "with a page of HTML and a picture.",
    )
    parser.set_defaults(act=act)
    parser.add_argument("-o", "--output", default="gpudecon-demo", metavar="DIR", help="default gpudecon-demo")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another number, another specimen")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier demo")


def act(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    from gpudecon.backend import get_backend
    from gpudecon.camera import Camera
    from gpudecon.cli.progress import Progress
    from gpudecon.cli.report import check_page, write_report
    from gpudecon.engine.job import Job
    from gpudecon.engine.plan import plan_job
    from gpudecon.engine.run import run
    from gpudecon.io import check_output, read, write
    from gpudecon.methods.richardson_lucy import RichardsonLucy
    from gpudecon.optics import Optics
    from gpudecon.psf.theory import psf_window, theoretical_psf
    from gpudecon.quality.figure import save_projections
    from gpudecon.simulate import expose, specimen

    if args.seed < 0:
        raise InputError(f"--seed is {args.seed}; give a number from 0 on.")
    get_backend(args.device)  # one that is not there must show before the work
    folder = Path(args.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    files = {name: folder / f"{name}.ome.zarr" for name in ("raw", "restored", "truth")}
    for path in files.values():
        check_output(path, overwrite=args.overwrite)

    picture, page = folder / "projections.png", folder / "report.html"
    if picture.exists() and not args.overwrite:
        raise InputError(f"The output {picture} exists; choose another folder or ask to overwrite it.")
    check_page(page, replaces=args.overwrite)

    start = time.perf_counter()
    optics = Optics(na=1.3, emission_nm=520, immersion_index=1.515)
    psf = theoretical_psf(optics, psf_window(optics, SHAPE, VOXEL_UM), VOXEL_UM)
    whole = specimen(_three(np.add(SHAPE, np.multiply(MARGIN, 2))), VOXEL_UM, seed=args.seed)
    camera = Camera(offset=100, gain=2.0, read_noise=1.5)
    grey, per_unit = expose(whole, psf, peak_photons=400, haze_photons=10, camera=camera, seed=args.seed + 1)
    frame = tuple(slice(m, m + n) for m, n in zip(MARGIN, SHAPE, strict=True))
    channel = (Channel("simulated", emission_nm=520, color="00FF00"),)
    raw = Image(grey[frame][None], "czyx", VOXEL_UM, channel, "raw")
    truth = Image((whole[frame] * np.float32(per_unit))[None], "czyx", VOXEL_UM, channel, "truth")
    write(files["raw"], raw, overwrite=args.overwrite)
    write(files["truth"], truth, overwrite=args.overwrite)

    method = RichardsonLucy(iterations=ITERATIONS, acceleration="shb")
    job = Job(read(files["raw"]), str(files["raw"]), (psf,), method, background="auto", device=args.device)
    with Progress() as progress:
        record = run(job, plan_job(job, files["restored"]), overwrite=args.overwrite, progress=progress).record

    images = {name: read(path) for name, path in files.items()}
    stacks = {name: image.volume() for name, image in images.items()}
    save_projections(picture, stacks, VOXEL_UM)
    table = _table(stacks)
    write_report(page, images["restored"], images["raw"], {"truth": images["truth"]}, table)
    print(table)
    print(
        "resolution: 1 / the frequency up to which an image correlates with the truth by 0.5 or more\n"
        f"{method.name} ({method.acceleration}), {ITERATIONS} iterations on {record['device']['device']}, "
        f"{time.perf_counter() - start:.1f} s in all; report, picture and OME-Zarr in {folder}",
        file=sys.stderr,
    )
    return 0


def _table(stacks: dict[str, Any]) -> str:
    """Error and resolution of raw and restored image against the truth."""
    from gpudecon.quality.fourier_correlation import resolution_um
    from gpudecon.quality.metrics import nrmse

    lines = [f"{'':<10} {'NRMSE':>8} {'resolution xy':>15} {'resolution z':>14}"]
    for name in ("raw", "restored"):
        error = nrmse(stacks[name], stacks["truth"])
        xy, z = (
            _shown(resolution_um(stacks[name], stacks["truth"], VOXEL_UM, direction), 2 * voxel)
            for direction, voxel in (("xy", VOXEL_UM[2]), ("z", VOXEL_UM[0]))
        )
        lines.append(f"{name:<10} {error:>8.3f} {xy:>15} {z:>14}")
    return "\n".join(lines)


def _shown(resolution: float, sampling_limit: float) -> str:
    """The resolution, or that it is finer than voxels of this size can show."""
    return f"<= {sampling_limit:.3f} um" if resolution < 1.05 * sampling_limit else f"{resolution:.3f} um"


def _three(values: Any) -> tuple[int, int, int]:
    z, y, x = (int(v) for v in values)
    return z, y, x
