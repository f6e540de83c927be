"""gpudecon run: restore an image file."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpudecon.cli.cluster_options import executor_of
from gpudecon.cli.job_options import add_job_options, plan_of
from gpudecon.cli.report import page_of, write_report
from gpudecon.cli.run_options import add_run_options, check_places, checked_job, is_elsewhere, with_psfs_checked
from gpudecon.methods import METHODS

if TYPE_CHECKING:
    from gpudecon.engine.seams import Seam


def add_parser(verbs: Any) -> None:
    """Describe the verb and its options."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "run",
        help="restore an image file",
        description="Restore every channel and time point of a TIFF, OME-TIFF, ImageJ TIFF or OME-Zarr image with a "
        "measured PSF (--psf) or one computed from the optics (--na, --emission-nm, --immersion-index), or by a method "
        f"that needs none ({', '.join(name for name, method in METHODS.items() if not method.needs_psf)}).",
    )
    parser.set_defaults(act=act)
    add_job_options(parser)
    add_run_options(parser)


def act(args: argparse.Namespace) -> int:
    """Carry out the verb."""
    from gpudecon.cli.progress import Progress
    from gpudecon.cli.stopping import stopping, to_resume
    from gpudecon.engine.run import run
    from gpudecon.io import read

    start = time.perf_counter()
    check_places(args)
    job = checked_job(args, elsewhere=is_elsewhere(args))
    with Progress() as progress, stopping() as stop:
        execute = executor_of(args, stop)
        plan = plan_of(job, args, processes=1 if execute is None else execute.processes)
        done = run(
            with_psfs_checked(args, job, plan),
            plan,
            resume=args.resume,
            overwrite=args.overwrite,
            verify=args.verify,
            seams=args.check_seams,
            execute=execute,
            progress=progress,
            stop=stop,
            command=to_resume(),
        )
    if done.was_complete:
        print(f"gpudecon: {args.output} was complete; nothing was left to be done, or checked again", file=sys.stderr)
    else:
        print(
            f"gpudecon: {args.output} written: {plan.method}, {done.record['device']['device']}, "
            f"{time.perf_counter() - start:.1f} s",
            file=sys.stderr,
        )
    if done.busy is not None and len(plan) > 1:
        print(f"gpudecon: {done.busy}", file=sys.stderr)
    if args.check_seams and not done.was_complete:
        print(f"gpudecon: {_seams(done.seams)}", file=sys.stderr)
    if args.report:
        write_report(page_of(args.output), read(args.output), job.image)
        print(f"gpudecon: {page_of(args.output)} written", file=sys.stderr)
    return 0


def _seams(found: Sequence[Seam]) -> str:
    if not found:
        return "no seams: each stack is one tile"
    largest = max(seam.difference for seam in found)
    return (
        f"seams: twice the halo changes the result by {largest:.1e} of the local value at most, at {len(found)} places"
    )
