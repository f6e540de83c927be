"""gpudecon submit, work and finish as processes; on a real SLURM, where one can be started, with two fake GPUs."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from gpudecon.backend.cupy import missing_for_cuda
from gpudecon.cli.cluster_options import add_cluster_options, executor_of
from gpudecon.engine.journal import Journal
from gpudecon.engine.workspace import Workspace
from gpudecon.errors import InputError

SHARED = Path(__file__).parents[3] / "shared" / "tools" / "slurm_one_node.sh"
SECONDS = 60  # for whatever is waited for; a job takes a few


def test_dry_run_prints_scripts_and_changes_nothing(cli, many_tiles):
    before = cli.listing()
    options = "--elements 5 --partition gpu --time 1:00:00 --sbatch '--account=lab --nice=5'"
    done = cli(f"submit {many_tiles} --dry-run {options}")
    assert cli.listing() == before
    array, finish = re.split(r"(?m)^(?=#!/bin/bash$)", done.stdout)[1:]
    assert "#SBATCH --array=0-4\n" in array
    for script in (array, finish):
        assert "#SBATCH --partition=gpu\n#SBATCH --time=1:00:00\n#SBATCH --account=lab\n" in script
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert '--share "$SLURM_ARRAY_TASK_ID/5" --device cpu --threads 1 &\n' in array


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--elements 0", ("--elements is 0", "1 to 1000")),
        ("--sbatch gpu", ("'gpu' is no option of sbatch",)),
        ("--command 'module load python && gpudecon'", ("--command is", "one program", 'exec gpudecon "$@"')),
        ("--command 'source lab.sh;gpudecon'", ("one program",)),
        ("--command 'yes | gpudecon'", ("one program",)),
        ("--command ''", ("one program",)),
        ("--command 'A=1 gpudecon'", ("env A=1 gpudecon",)),
        ("""--command "env 'gpudecon" """, ("the shell would not read",)),
        ("--prepare --concurrent 3", ("--concurrent has no meaning with --prepare",)),
        ("--prepare --partition gpu", ("--partition has no meaning with --prepare",)),
    ],
)
def test_submissions_that_make_no_sense(refused_here, many_tiles, options, words):
    refused_here(f"submit {many_tiles} {options}", *words)


def test_a_command_may_have_any_quoted_words(here, many_tiles):
    command = """apptainer run --bind '/data & more' "a;b.sif" """
    assert f"\n{command} work " in here(f"submit {many_tiles} --dry-run --command {shlex.quote(command)}").stdout


@pytest.mark.skipif(missing_for_cuda() is None, reason="there is a GPU")
def test_plan_for_gpus_that_are_not_here(here, many_tiles):
    done = here(f"submit {many_tiles.replace('--device cpu', '--device cuda')} --dry-run")
    assert "#SBATCH --gres=gpu:1\n" in done.stdout
    assert "--device cuda --threads 1 &\n" in done.stdout


@pytest.mark.skipif(missing_for_cuda() is None, reason="there is a GPU")
def test_tile_is_not_chosen_for_gpus_that_are_not_here(refused_here, many_tiles):
    line = many_tiles.replace("--device cpu", "").replace("--tile 9 16 16", "")
    refused_here(f"submit {line}", "no GPU", "--memory", "--tile", "--device cpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--workers 2", ("--workers has no meaning without --scheduler",)),
        ("--mem 1G --gres gpu:1", ("--gres, --mem have no meaning without --scheduler",)),
        ("--scheduler local --tls-ca x", ("--tls-ca has no meaning with --scheduler local",)),
        ("--scheduler tcp://127.0.0.1:9 --workers 2", ("--workers has no meaning with --scheduler tcp",)),
        ("--scheduler slurm --workers 2", ("--scheduler slurm needs --interface",)),
        ("--scheduler local --workers 0", ("--workers is 0",)),
        ("--scheduler tls://127.0.0.1:9 --tls-ca x", ("all of --tls-ca, --tls-cert and --tls-key",)),
        ("--scheduler tls://127.0.0.1:9 --tls-ca x --tls-cert x --tls-key x", ("no file x",)),
    ],
)
def test_schedulers_that_make_no_sense(options, words):
    parser = argparse.ArgumentParser()
    add_cluster_options(parser)
    args = parser.parse_args(shlex.split(options), argparse.Namespace(device="cpu", threads=None))
    with pytest.raises(InputError) as refusal:
        executor_of(args, stop=lambda: False)
    assert all(word in str(refusal.value) for word in words)


def test_scheduler_that_does_not_answer(refused_here, many_tiles):
    refused_here(f"run {many_tiles} --scheduler node:8786", "'node:8786' is no address", "tcp://node:8786")


def test_no_workspace(cli, refused_here):
    (cli.folder / "empty").mkdir()
    for verb in ("work", "finish"):
        refused_here(f"{verb} empty", "no workspace of gpudecon")
    refused_here("work empty --share 2/2", "--share is '2/2'", "0/16")


@pytest.fixture
def stand_in(cli, monkeypatch):
    """A function that puts a shell script before all other programs of a name."""
    folder = cli.folder / "bin"
    folder.mkdir()
    for environment in (cli.environment, os.environ):
        monkeypatch.setitem(environment, "PATH", f"{folder}:{environment['PATH']}")

    def put(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)

    return put


@pytest.fixture
def sbatch_takes_nothing(stand_in):
    """What a submission prepares, and no job."""
    stand_in("sbatch", "cat > /dev/null; echo 4711")
    stand_in("squeue", "")


def test_a_refused_submission_leaves_nothing_behind(cli, here, many_tiles, stand_in):
    """Unless tiles are done."""
    refuse = "cat > /dev/null; echo Invalid account >&2; exit 1"
    stand_in("sbatch", refuse)
    before = cli.listing()
    assert "sbatch refused the job: Invalid account" in here(f"submit {many_tiles}", status=1).stderr
    assert cli.listing() == before
    stand_in("sbatch", "cat > /dev/null; echo 4711")
    stand_in("squeue", "")
    assert "jobs 4711 and 4711" in here(f"submit {many_tiles}").stderr
    here("work .out.ome.zarr.gpudecon --share 3/16 --device cpu --threads 1")
    stand_in("sbatch", refuse)
    here(f"submit {many_tiles} --resume", status=1)
    assert Journal(cli.folder / ".out.ome.zarr.gpudecon" / "journal").done("tile") == {3}


def test_an_array_whose_last_job_was_refused_is_known(here, many_tiles, stand_in):
    stand_in("sbatch", "cat > /dev/null; [ ! -e once ] || { echo Too many jobs >&2; exit 1; }; touch once; echo 4711")
    said = here(f"submit {many_tiles}", status=1).stderr
    assert "sbatch refused the job: Too many jobs" in said
    assert "The array is in the queue as job 4711" in said
    stand_in("squeue", "echo 4711")
    assert "still in the queue (4711)" in here(f"submit {many_tiles} --resume", status=2).stderr


def test_what_is_checked_when_a_run_is_submitted(here, many_tiles):
    """The PSF at once, what was written by the last job."""
    submission = f"submit {many_tiles} --dry-run"
    done = here(f"{submission} --verify")
    assert "finish" in done.stdout
    assert done.stdout.rstrip().endswith(".gpudecon --verify")
    assert "--verify" not in here(submission).stdout
    line = submission.replace("--psf psf.tif --psf-voxel-um 0.2 0.1 0.1", "--method median").replace(
        "--iterations 5", ""
    )
    assert "median has no PSF that could be checked" in here(f"{line} --check-psf", status=2).stderr


def test_a_run_that_was_killed_at_its_very_end(cli, here, many_tiles, monkeypatch):
    """When its output was in place, and the folder not yet removed."""
    line = f"submit {many_tiles.replace('--tile 9 16 16', '--tile 9 61 59')} --prepare"
    here(line)
    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "discard", lambda self: None)
        here("work .out.ome.zarr.gpudecon --device cpu --threads 1")
        here("finish .out.ome.zarr.gpudecon")
    assert (cli.folder / ".out.ome.zarr.gpudecon").exists()
    done = here(f"{line} --resume")
    assert done.stdout == ""
    assert "out.ome.zarr is complete; nothing is left to be done" in done.stderr
    assert not (cli.folder / ".out.ome.zarr.gpudecon").exists()


@pytest.mark.slow
def test_jobs_that_begin_and_end_at_once(cli, here, many_tiles, pixels_of_many_tiles, stand_in):
    """Before sbatch returns."""
    stand_in("sbatch", "cat > job; SLURM_ARRAY_TASK_ID=0 SLURM_JOB_ID=4711 bash job >&2 && echo 4711")
    assert "16 of 16 tiles to do in 1 elements: jobs 4711 and 4711" in here(f"submit {many_tiles} --elements 1").stderr
    np.testing.assert_array_equal(np.asarray(cli.read().data), pixels_of_many_tiles)
    assert not (cli.folder / ".out.ome.zarr.gpudecon").exists()


@pytest.mark.slow
def test_another_batch_system(cli, here, many_tiles, pixels_of_many_tiles, stand_in):
    """The printed commands, run at the same time, the last one at last, through a script that starts gpudecon."""
    stand_in("sbatch", "touch called; exit 1")
    (cli.folder / "my gpudecon.sh").write_text(f'#!/bin/bash\nexec {shlex.quote(sys.executable)} -m gpudecon "$@"\n')
    (cli.folder / "my gpudecon.sh").chmod(0o755)
    command = shlex.quote(shlex.quote(str(cli.folder / "my gpudecon.sh")))
    line = f"submit {many_tiles} --elements 2 --prepare --command {command}"
    *shares, last = here(line).stdout.splitlines()
    assert len(shares) == 2
    assert "An interrupted run" in here(line, status=2).stderr
    jobs = [subprocess.Popen(["bash", "-c", share], cwd=cli.folder, env=cli.environment) for share in shares]
    assert [job.wait(SECONDS) for job in jobs] == [0, 0]
    assert here(f"{line} --resume").stdout.splitlines() == [last]
    subprocess.run(["bash", "-c", last], cwd=cli.folder, env=cli.environment, check=True)
    np.testing.assert_array_equal(np.asarray(cli.read().data), pixels_of_many_tiles)
    again = here(f"{line} --resume")
    assert again.stdout == ""
    assert "out.ome.zarr is complete; nothing is left to be done" in again.stderr
    assert not (cli.folder / "called").exists()


@pytest.mark.slow
def test_shares_in_turn(cli, here, many_tiles, pixels_of_many_tiles, sbatch_takes_nothing):
    """What the jobs call, called by hand; the second share is ended and goes on."""
    said = here(f"submit {many_tiles} --elements 2").stderr
    assert "16 of 16 tiles to do in 2 elements: jobs 4711 and 4711" in said
    workspace = ".out.ome.zarr.gpudecon"
    cli(f"work {workspace} --share 0/2 --device cpu --threads 1")
    said = here(f"finish {workspace}", status=1).stderr
    assert "8 of 16 tiles are not restored: stack.tif, tile 2 of 16; stack.tif, tile 4 of 16;" in said
    assert f"{workspace}/slurm" in said
    assert "submit with the same options and --resume" in said
    with cli.start(f"work {workspace} --share 1/2 --device cpu --threads 1", stderr=subprocess.PIPE) as worker:
        next(line for line in worker.stderr if "tile 2" in line)
        worker.send_signal(10)
        assert worker.wait(SECONDS) == 75
    done = Journal(cli.folder / workspace / "journal").done("tile")
    assert set(range(0, 16, 2)) < done < set(range(16))
    said = here(f"submit {many_tiles} --elements 16 --resume").stderr
    assert f"{16 - len(done)} of 16 tiles to do in {16 - len(done)} elements" in said
    cli(f"work {workspace} --device cpu --threads 1")
    cli(f"finish {workspace} --verify")
    np.testing.assert_array_equal(np.asarray(cli.read().data), pixels_of_many_tiles)
    assert not (cli.folder / workspace).exists()


@pytest.fixture(scope="module")
def slurm():
    """Skips where there is no SLURM and none can be started; one that was started is ended."""
    if shutil.which("sbatch") is None:
        pytest.skip("SLURM is not installed: apt-get install munge slurmctld slurmd slurm-client")
    began = not works("sinfo", "--noheader")
    if began:
        if os.geteuid() != 0 or not SHARED.exists():
            pytest.skip("SLURM does not answer, and its daemons cannot be started here")
        subprocess.run(["bash", SHARED], check=True, stdout=subprocess.DEVNULL)
    wait_for(lambda: output("sinfo", "--noheader", "--format=%t").split()[:1] in (["idle"], ["mix"]))
    yield
    if began:
        for name in ("slurmd", "slurmctld"):
            os.kill(int(Path(f"/run/slurm/{name}.pid").read_text()), 15)


def works(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wait_for(condition, every: float = 0.2) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, output("squeue")
        time.sleep(every)


@pytest.mark.slow
def test_array_with_a_cancelled_and_a_requeued_element(cli, here, many_tiles, slurm):
    """Element 0 is put back into the queue in the middle of its work; element 3 is cancelled before it begins."""
    many_tiles = many_tiles.replace("--iterations 5", "--iterations 30")  # a moment for each tile
    here("run " + many_tiles.replace("out.ome", "expected.ome"))
    folder = cli.folder / ".out.ome.zarr.gpudecon"
    jobs = "--elements 4 --mem 1G --cpus 1 --gres gpu:1"
    array = re.search(r"jobs (\d+) and \d+", here(f"submit {many_tiles} {jobs}").stderr)[1]
    assert works("scancel", f"{array}_3")

    journal = Journal(folder / "journal")
    wait_for(lambda: 0 in journal.done("tile"), every=0.002)
    (worker,) = (p for p in psutil.process_iter(["cmdline"]) if {str(folder), "0/4"} <= set(p.info["cmdline"] or ()))
    worker.suspend()  # lest it ends meanwhile; SLURM wakes it for the signal that asks it to stop
    assert not set(range(0, 16, 4)) <= journal.done("tile")
    assert works("scontrol", "requeue", f"{array}_0")
    # SLURM lets a requeued job wait two minutes; here it may begin at once
    wait_for(lambda: output("squeue", "--noheader", "--format=%r", f"--jobs={array}_0").strip() == "BeginTime")
    assert works("scontrol", "update", f"JobId={array}_0", "StartTime=now")
    log = cli.folder / "out.ome.zarr.slurm.log"
    wait_for(lambda: log.exists() and log.read_text().count("\n"))
    said = log.read_text()
    assert re.search(r"error: 4 of 16 tiles are not restored: stack.tif, tile 4 .*tile 8 .*tile 12 .*tile 16 of", said)
    assert journal.done("tile") == {task for task in range(16) if task % 4 != 3}
    first = (folder / "slurm" / "element-0.log").read_text()
    assert len(re.findall(r"of the 4 tiles of share 0/4 to do", first)) == 2
    assert "DUE TO JOB REQUEUE" in first
    assert "4 of 16 tiles to do in 1 elements" in here(f"submit {many_tiles} {jobs} --resume").stderr
    wait_for(lambda: "written: 16 tiles" in log.read_text())
    np.testing.assert_array_equal(*(np.asarray(cli.read(name).data) for name in ("out.ome.zarr", "expected.ome.zarr")))
    assert not folder.exists()


@pytest.mark.slow
def test_dask_workers_in_jobs(cli, many_tiles, pixels_of_many_tiles, slurm):
    said = cli(f"run {many_tiles} --scheduler slurm --workers 2 --interface lo --mem 1G --cpus 1 --gres gpu:1").stderr
    assert len(re.findall(r"stack.tif, tile \d+ of 16: ", said)) == 16
    np.testing.assert_array_equal(np.asarray(cli.read().data), pixels_of_many_tiles)
    assert not (cli.folder / ".out.ome.zarr.gpudecon").exists()
    wait_for(lambda: "gpudecon-worker" not in output("squeue", "--noheader", "--format=%j"))
