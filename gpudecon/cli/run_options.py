"""What is checked, what may be there already, and where the work is done: options of run, plan and submit."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from gpudecon.backend import get_backend
from gpudecon.cli.cluster_options import add_cluster_options
from gpudecon.cli.job_options import check_format, job_of
from gpudecon.cli.report import check_page, page_of
from gpudecon.errors import InputError

if TYPE_CHECKING:
    from gpudecon.engine.job import Job
    from gpudecon.engine.plan import Plan


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """All of run, which plan takes too."""
    add_common_options(parser)
    parser.add_argument(
        "--check-seams", action="store_true", help="restore some places between tiles with twice the halo and compare"
    )
    parser.add_argument(
        "--report", action="store_true", help="write NAME.report.html, a page with pictures, beside the output"
    )
    add_cluster_options(parser)


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Those that submit has as well."""
    parser.add_argument("--verify", action="store_true", help="read all that was written again and compare checksums")
    parser.add_argument(
        "--check-psf",
        action="store_true",
        help="warn where a narrower PSF explains the image better; takes up to 300 iterations on a small part",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--overwrite", action="store_true", help="replace an existing output or an interrupted run")
    again.add_argument("--resume", action="store_true", help="go on with an interrupted run, if there is one")


def is_elsewhere(args: argparse.Namespace) -> bool:
    """Whether run's workers are on other machines."""
    return args.scheduler not in (None, "local")


def check_places(args: argparse.Namespace) -> None:
    """InputError where something is that neither is to be replaced nor gone on with: the output or its page."""
    replaces = args.overwrite or args.resume
    check_format(args, replaces=replaces)
    if args.report:
        check_page(page_of(args.output), replaces=replaces)


def checked_job(args: argparse.Namespace, *, elsewhere: bool) -> Job:
    """The job, refused where its tile cannot be chosen here, or PSFs are to be checked that it has not.

    Where the work is done ``elsewhere``, this machine plans with the device that it has: the workers are told which one
    was asked for.
    """
    from gpudecon.engine.psf_check import check_has_psfs

    is_for_gpus = elsewhere and args.device != "cpu"
    if is_for_gpus and args.memory is None and args.tile is None and get_backend("auto").name == "cpu":
        raise InputError(
            "This machine has no GPU from whose memory the tile could be chosen; give --memory, such as two thirds of "
            "what the GPUs of the nodes have, or --tile, or --device cpu."
        )
    job = job_of(args)
    if args.check_psf:
        check_has_psfs(job)
    return replace(job, device="auto") if is_for_gpus else job


def with_psfs_checked(args: argparse.Namespace, job: Job, plan: Plan) -> Job:
    """The job with its PSFs checked, where that was asked for and the plan has not been carried out already.

    It takes a while, so that it comes after all that may be refused.
    """
    from gpudecon.engine.psf_check import check_psfs
    from gpudecon.engine.run import made

    return check_psfs(job) if args.check_psf and not (args.resume and made(plan) is not None) else job
