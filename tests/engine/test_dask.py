"""Runs whose tasks are carried out by real Dask workers: nothing lost, nothing listening, errors that name the tile."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

import dask.array as da
import distributed
import numpy as np
import psutil
import pytest

import gpudecon as gd
from gpudecon.backend.cupy import uuid_name
from gpudecon.backend.slabs import available_cores
from gpudecon.engine import dask_cluster, dask_executor
from gpudecon.engine.dask_cluster import LocalWorkers
from gpudecon.engine.dask_executor import DaskExecutor
from gpudecon.engine.run import run
from gpudecon.errors import InputError, RunError, StoppedError


@pytest.fixture(scope="module")
def client():
    """Of a cluster of two workers that share the CPU and are told of GPUs that there are not."""
    with dask_cluster.local_cluster(LocalWorkers(2, 3, ("GPU-0123", "GPU-4567"))) as client:
        client.wait_for_workers(2)
        yield client


@pytest.fixture
def dask(client):
    """A function that makes an executor on these workers."""

    @contextmanager
    def cluster(_):
        yield client

    def make(**options):
        return DaskExecutor(cluster, threads=1, **options)

    return make


@pytest.fixture
def expected(planned):
    """Pixels of the same run in this process."""
    job, plan = planned("expected.ome.zarr")
    run(job, plan)
    return np.asarray(gd.read(plan.output).data)


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_worker_is_killed(dask, client, planned, expected, tmp_path):
    job, plan = planned()
    reported = []

    def report(name, record):
        reported.append(record.task)
        if len(reported) == 3:
            busy = next(worker for worker, tasks in client.processing().items() if tasks)
            os.kill(client.run(os.getpid, workers=[busy])[busy], signal.SIGKILL)

    done = run(job, plan, execute=dask(report=report))
    np.testing.assert_array_equal(np.asarray(gd.read(plan.output).data), expected)
    assert sorted(reported) == list(range(len(plan)))
    assert listing(tmp_path) == ["expected.ome.zarr", "in.ome.zarr", "out.ome.zarr"]
    assert done.record["plan"]["hash"] == plan.hash
    client.wait_for_workers(2)


def test_each_worker_sees_its_own_gpu(client):
    """Also the one that took the place of the one that was killed."""
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    seen = client.run(lambda: [os.environ[name] for name in names])
    assert sorted(seen.values()) == [["GPU-0123", "3"], ["GPU-4567", "3"]]


def test_gpus_are_named_as_the_driver_takes_them():
    raw = bytes.fromhex("8932f937d72c4106c12f20bd9faed9f6")
    assert uuid_name(raw) == "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
    assert uuid_name(raw[:5]) == "GPU-8932f937-d700"  # what CuPy leaves of 8932f937-d700-...


def test_workers_without_a_gpu_share_the_cores():
    assert LocalWorkers.of("cpu", workers=2, threads=5) == LocalWorkers(2, 5, ())
    assert LocalWorkers.of("cpu", workers=3).threads == max(1, available_cores() // 3)
    assert LocalWorkers.of("cpu") == LocalWorkers(1, available_cores(), ())
    assert (LocalWorkers.of("cpu").device, LocalWorkers(1, 1, ("GPU-0123",)).device) == ("cpu", "cuda")


def test_stopped_and_resumed(dask, planned, expected):
    job, plan = planned()
    reported = []

    def report(name, record):
        reported.append(record.task)

    with pytest.raises(StoppedError, match=rf"\d+ of {len(plan)} tiles are done and kept; go on"):
        run(job, plan, execute=dask(report=report, stop=lambda: len(reported) >= 2))
    before = set(reported)
    assert 2 <= len(before) < len(plan)
    reported.clear()
    run(job, plan, resume=True, execute=dask(report=report))
    assert sorted(reported) == sorted(set(range(len(plan))) - before)
    np.testing.assert_array_equal(np.asarray(gd.read(plan.output).data), expected)


def test_a_failing_tile_is_named(dask, planned, series, expected):
    """After the first tile, and all that is decided from the whole image, a chunk cannot be decoded; then it can."""
    job, plan = planned()
    asked = iter([False, True, True])
    with pytest.raises(StoppedError, match=f"1 of {len(plan)} tiles"):
        run(job, plan, stop=lambda: next(asked))
    path = series[0] / "0" / "c" / "1" / "0" / "0" / "0" / "0"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        RunError, match=r"in\.ome\.zarr, channel 0, time point 1, tile \d of \d: .*damaged.* go on with"
    ):
        run(job, plan, resume=True, execute=dask())
    path.write_bytes(whole)
    run(job, plan, resume=True, execute=dask())
    np.testing.assert_array_equal(np.asarray(gd.read(plan.output).data), expected)


def test_workers_of_another_version_are_refused(dask, planned, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_executor, "__version__", "0.0.1")
    job, plan = planned()
    with pytest.raises(
        InputError, match=rf"worker tls://127\.0\.0\.1:\d+ has gpudecon {gd.__version__}, this is 0\.0\.1"
    ):
        run(job, plan, execute=dask())
    assert listing(tmp_path) == ["in.ome.zarr"]


def test_nothing_listens_but_on_loopback_and_with_a_certificate(client):
    """Neither the scheduler, in this process, nor its children."""
    assert client.scheduler.address.startswith("tls://127.0.0.1:")
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    ports = {c.laddr for p in processes for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert len(ports) >= 3
    assert {address.ip for address in ports} == {"127.0.0.1"}
    with pytest.raises(OSError, match=r"(?i)ssl|certificate|closed"):
        distributed.Client(
            client.scheduler.address, security=distributed.Security.temporary(), timeout=5, set_as_default=False
        )


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tcp://127.0.0.1:1", "No Dask scheduler answers at tcp"),
        ("tls://127.0.0.1:1", "No Dask scheduler answers at tls"),
        ("node", "'node' is no address"),
    ],
)
def test_addresses_without_a_scheduler(address, said, monkeypatch):
    monkeypatch.setattr(dask_cluster, "PATIENCE", 1)
    cluster = dask_cluster.existing_cluster(address)
    with pytest.raises(InputError, match=said):
        cluster.__enter__()
    assert da.ones(3).sum().compute() == 3, "arrays of others are still computed where they were"


def test_arrays_of_others_are_computed_where_they_were(client):
    """Not on a cluster that a run uses."""
    with pytest.raises(ValueError, match="client"):
        distributed.default_client()
    assert da.ones(3).sum().compute() == 3
