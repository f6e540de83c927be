"""Dask clusters to run tasks on: workers on this machine, those of an existing scheduler, or jobs of SLURM.

Whoever reaches a scheduler can make its workers execute anything.  So the one on this machine listens on loopback only
and lets nobody in without the certificate that was made for the run; the others do as they are told: TLS with given
certificates, on a named network interface.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gpudecon.backend import visible_gpus
from gpudecon.backend.slabs import available_cores
from gpudecon.engine.slurm import Resources, log_path, quoted
from gpudecon.errors import InputError

if TYPE_CHECKING:
    from distributed import Client, Security

PATIENCE = 60  # seconds until a scheduler answers, or a worker of this machine is there
LOOPBACK = "127.0.0.1"
# The tile bounds a worker's memory; Dask's own limit, a share of the machine for each, would stop it long before.
NO_MEMORY_LIMIT = 0
TILES_AT_ONCE = 2  # of a worker: one is computed, another one read or written


@dataclass(frozen=True)
class Certificates:
    """Files in PEM format for TLS: the authority's certificate, and one with its key for every process."""

    authority: str
    certificate: str
    key: str

    def __post_init__(self) -> None:
        for path in (self.authority, self.certificate, self.key):
            if not Path(path).is_file():
                raise InputError(f"There is no file {path}; give certificate and key of TLS in PEM format.")

    def security(self) -> Security:
        """As Dask wants it."""
        from distributed import Security

        roles = ("client", "scheduler", "worker")
        files = {f"tls_{role}_cert": self.certificate for role in roles}
        keys = {f"tls_{role}_key": self.key for role in roles}
        return Security(require_encryption=True, tls_ca_file=self.authority, **files, **keys)


@dataclass(frozen=True)
class LocalWorkers:
    """Workers on this machine: one for each of ``gpus``, named as in CUDA_VISIBLE_DEVICES, or ``count`` on the CPU."""

    count: int
    threads: int
    gpus: tuple[str, ...]

    @classmethod
    def of(cls, device: str, *, workers: int | None = None, threads: int | None = None) -> Self:
        """``workers`` (None: one for each GPU that ``device`` may mean, or one on the CPU) with ``threads`` each."""
        gpus = visible_gpus(device)
        if gpus and workers is not None and workers > len(gpus):
            raise InputError(f"{workers} workers were asked for, but each has a GPU and {len(gpus)} are visible.")
        count = workers or len(gpus) or 1
        return cls(count, threads or max(1, available_cores() // count), gpus[:count])

    @property
    def device(self) -> str:
        """What it is called in a worker, which sees one GPU at most."""
        return "cuda" if self.gpus else "cpu"


@contextmanager
def local_cluster(workers: LocalWorkers) -> Iterator[Client]:
    """A process for each worker, which sees its own GPU and no other one."""
    _check_installed()
    from distributed import Client, Nanny, Scheduler, Security, SpecCluster

    common = {
        "host": LOOPBACK,
        "protocol": "tls://",
        "security": Security.temporary(),
        "dashboard_address": f"{LOOPBACK}:0",
        "dashboard": False,
    }
    options = {
        **common,
        "nthreads": TILES_AT_ONCE,
        "memory_limit": NO_MEMORY_LIMIT,
        "silence_logs": logging.CRITICAL,  # errors of tasks come back with their results
    }
    specs = {}
    for number in range(workers.count):
        # for libraries that obey it, such as BLAS; Dask would set it to 1. gpudecon's own pool takes `threads`.
        environment = {"OMP_NUM_THREADS": str(workers.threads)}
        if workers.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = workers.gpus[number]
        specs[f"worker-{number}"] = {"cls": Nanny, "options": {**options, "env": environment}}
    scheduler = {"cls": Scheduler, "options": common}
    with (
        SpecCluster(specs, scheduler, security=common["security"], silence_logs=logging.WARNING) as cluster,
        Client(cluster, timeout=PATIENCE, set_as_default=False) as client,
    ):
        yield client


def check_address(address: str) -> None:
    """Refuse what names no scheduler."""
    if not re.fullmatch(r"(tcp|tls)://\S+:\d+", address):
        raise InputError(f"{address!r} is no address of a Dask scheduler; give one such as tcp://node:8786.")


@contextmanager
def existing_cluster(address: str, certificates: Certificates | None = None) -> Iterator[Client]:
    """The workers of the scheduler at ``address``, such as tcp://node:8786, or tls:// with certificates."""
    _check_installed()
    from distributed import Client

    check_address(address)
    try:
        security = certificates and certificates.security()
        client = Client(address, timeout=PATIENCE, security=security, set_as_default=False)
    except (OSError, TypeError, ValueError) as error:  # TypeError: tls:// without certificates
        raise InputError(f"No Dask scheduler answers at {address}: {error}") from error
    with client:
        yield client


@contextmanager
def slurm_cluster(
    resources: Resources,
    *,
    jobs: int,
    interface: str,
    logs: Path,
    certificates: Certificates | None = None,
) -> Iterator[Client]:
    """``jobs`` jobs of SLURM with a worker each; the scheduler is in this process and listens on ``interface``."""
    _check_installed()
    from dask_jobqueue import SLURMCluster
    from distributed import Client

    logs.mkdir(exist_ok=True)
    options = [*resources.options(with_gres=True), "--ntasks=1", "--job-name=gpudecon-worker"]
    common = {"interface": interface, "security": certificates and certificates.security()}
    with (
        SLURMCluster(
            **common,
            protocol="tls://" if certificates else "tcp://",
            cores=TILES_AT_ONCE,
            processes=1,
            memory=str(NO_MEMORY_LIMIT),
            job_mem="",
            job_directives_skip=["#SBATCH"],  # all that it would ask for: `Resources` say what is needed
            job_extra_directives=[*map(quoted, options), quoted(f"--output={log_path(logs / 'worker')}-%j.log")],
            job_script_prologue=[f"export OMP_NUM_THREADS={resources.cpus or 1}"],
            scheduler_options={"dashboard_address": f"{LOOPBACK}:0", "dashboard": False},
        ) as cluster,
        Client(cluster, timeout=PATIENCE, set_as_default=False) as client,
    ):
        cluster.scale(jobs=jobs)  # not adapt, which would replace jobs that fail as fast as they do
        yield client


def _check_installed() -> None:
    if importlib.util.find_spec("distributed") is None or importlib.util.find_spec("dask_jobqueue") is None:
        raise InputError("Dask is not installed: pip install 'gpudecon[cluster]'.")
