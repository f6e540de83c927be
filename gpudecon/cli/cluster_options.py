"""Where the tasks of a run are carried out, on the command line: Dask's workers, and what SLURM is asked for."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from gpudecon.errors import InputError

if TYPE_CHECKING:
    from gpudecon.engine.dask_cluster import Certificates
    from gpudecon.engine.dask_executor import DaskExecutor
    from gpudecon.engine.journal import Record
    from gpudecon.engine.slurm import Resources
    from gpudecon.engine.workspace import Workspace

SLURM = ("partition", "gres", "time", "mem", "cpus", "sbatch", "grace")
TLS = ("tls_ca", "tls_cert", "tls_key")


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Workers of Dask, and jobs of SLURM for them."""
    dask = parser.add_argument_group("many GPUs and machines", "(needs gpudecon[cluster]; see docs/hpc.md)")
    dask.add_argument(
        "--scheduler",
        metavar="local|slurm|ADDRESS",
        help="local: one worker for each GPU of this machine; slurm: workers in jobs of SLURM; or a Dask scheduler's "
        "address, such as tcp://node:8786 (default: this process does all)",
    )
    dask.add_argument(
        "--workers", type=int, metavar="N", help="local: default one per GPU, or 1; slurm: number of jobs"
    )
    dask.add_argument("--interface", metavar="NAME", help="slurm: network interface to listen on, such as ib0")
    for name, what in zip(TLS, ("authority's certificate", "certificate", "key"), strict=True):
        dask.add_argument(f"--{name.replace('_', '-')}", metavar="FILE", help=f"TLS of Dask: {what}, PEM")
    add_slurm_options(parser)


def add_slurm_options(parser: argparse.ArgumentParser) -> None:
    """What each job asks for."""
    slurm = parser.add_argument_group("SLURM", "(what each job asks for; the cluster's defaults otherwise)")
    slurm.add_argument("--partition", metavar="NAME")
    slurm.add_argument("--gres", metavar="SPEC", help="default gpu:1, and nothing with --device cpu")
    slurm.add_argument("--time", metavar="D-H:M:S")
    slurm.add_argument("--mem", metavar="SIZE", help="memory of the host, such as 64G")
    slurm.add_argument("--cpus", type=int, metavar="N")
    slurm.add_argument("--sbatch", metavar="OPTIONS", help="more options, such as '--account=lab --constraint=a100'")
    slurm.add_argument(
        "--grace", type=int, metavar="SECONDS", help="no tile is begun so long before the end of --time (default 120)"
    )


def resources_of(args: argparse.Namespace) -> Resources:
    """What the options ask SLURM for."""
    from gpudecon.engine.slurm import Resources

    try:
        extra = tuple(shlex.split(args.sbatch or ""))
    except ValueError as error:
        raise InputError(f"--sbatch is {args.sbatch!r}, which the shell would not read ({error}).") from error
    gres = args.gres or (None if args.device == "cpu" else "gpu:1")
    grace = {} if args.grace is None else {"grace": args.grace}
    return Resources(args.partition, gres, args.time, args.mem, args.cpus, extra, **grace)


def executor_of(args: argparse.Namespace, stop: Callable[[], bool]) -> DaskExecutor | None:
    """Who carries out the tasks; None: this process."""
    _check(args)
    if args.scheduler is None:
        return None
    from gpudecon.engine import dask_cluster
    from gpudecon.engine.dask_executor import DaskExecutor

    certificates = _certificates(args)
    resources = resources_of(args)
    if args.scheduler not in ("local", "slurm"):
        dask_cluster.check_address(args.scheduler)
    if args.scheduler == "local":
        local = dask_cluster.LocalWorkers.of(args.device, workers=args.workers, threads=args.threads)
        return DaskExecutor(
            lambda _: dask_cluster.local_cluster(local),
            local.device,
            local.threads,
            processes=1 if local.gpus else local.count,
            report=_report,
            stop=stop,
        )

    def cluster(workspace: Workspace) -> AbstractContextManager[Any]:
        if args.scheduler == "slurm":
            return dask_cluster.slurm_cluster(
                resources,
                jobs=args.workers,
                interface=args.interface,
                logs=workspace.folder / "slurm",
                certificates=certificates,
            )
        return dask_cluster.existing_cluster(args.scheduler, certificates)

    return DaskExecutor(cluster, args.device, args.threads, report=_report, stop=stop)


def _report(name: str, record: Record) -> None:
    print(f"gpudecon: {name}: {record.seconds:.1f} s", file=sys.stderr, flush=True)


def _check(args: argparse.Namespace) -> None:
    """Options that say nothing about where the work is done are a misunderstanding."""
    of_scheduler = {"local": {"workers"}, "slurm": {"workers", "interface", *TLS, *SLURM}, None: set[str]()}
    allowed = of_scheduler.get(args.scheduler, set(TLS))
    given = {name for name in ("workers", "interface", *TLS, *SLURM) if getattr(args, name) is not None}
    if wrong := sorted(given - allowed):
        flags = ", ".join("--" + name.replace("_", "-") for name in wrong)
        where = f"with --scheduler {args.scheduler}" if args.scheduler else "without --scheduler"
        raise InputError(
            f"{flags} {'has' if len(wrong) == 1 else 'have'} no meaning {where}; leave out or choose another."
        )
    if args.scheduler == "slurm" and (missing := [n for n in ("workers", "interface") if getattr(args, n) is None]):
        raise InputError(f"--scheduler slurm needs {' and '.join('--' + name for name in missing)}; see docs/hpc.md.")
    if args.workers is not None and args.workers < 1:
        raise InputError(f"--workers is {args.workers}; give a number from 1 on.")


def _certificates(args: argparse.Namespace) -> Certificates | None:
    from gpudecon.engine.dask_cluster import Certificates

    given = [getattr(args, name) for name in TLS]
    if not any(given):
        return None
    if not all(given):
        raise InputError("TLS of Dask needs all of --tls-ca, --tls-cert and --tls-key.")
    return Certificates(*given)
