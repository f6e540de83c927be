"""The scripts of job arrays, without SLURM: who does what, and that a shell and sbatch read them as meant."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudecon.engine.slurm import Array, Resources, elements_left, share
from gpudecon.errors import InputError

FOLDER = Path('/data/a "b" c/.it\'s 50% done.ome.zarr.gpudecon')


def array(**changes):
    given = {
        "folder": FOLDER,
        "output": FOLDER.with_name("it's 50% done.ome.zarr"),
        "elements": 16,
        "resources": Resources(),
        "command": "gpudecon",
    }
    return Array(**given | changes)


def directives(script):
    return [shlex.split(line.removeprefix("#SBATCH "))[0] for line in script.splitlines() if line.startswith("#SBATCH")]


@given(elements=st.integers(1, 40), tasks=st.integers(0, 200))
def test_shares_are_a_partition(elements, tasks):
    held = [task for element in range(elements) for task in share(element, elements, tasks)]
    assert sorted(held) == list(range(tasks))


@given(st.data(), st.integers(1, 20), st.integers(1, 60))
def test_elements_left_are_those_with_something_to_do(data, elements, tasks):
    done = data.draw(st.sets(st.integers(0, tasks - 1)))
    assert elements_left(elements, tasks, done) == [e for e in range(elements) if set(share(e, elements, tasks)) - done]


def test_array_asks_for_what_was_given():
    resources = Resources("gpu", "gpu:a100:1", "02:00:00", "64G", 8, ("--account=lab", "--constraint=hbm & ib"), 300)
    script = array(resources=resources, concurrent=4).script([0, 1, 2, 7, 9, 10])
    assert script.splitlines()[0] == "#!/bin/bash"
    assert directives(script) == [
        "--job-name=gpudecon-it_s_50__done.ome.zarr",
        "--array=0-2,7,9-10%4",
        f"--output={FOLDER}/slurm/element-%a.log".replace("50%", "50%%"),
        "--open-mode=append",
        "--requeue",
        "--signal=B:USR1@300",
        "--partition=gpu",
        "--gres=gpu:a100:1",
        "--time=02:00:00",
        "--mem=64G",
        "--cpus-per-task=8",
        "--account=lab",
        "--constraint=hbm & ib",
    ]


def test_finishing_job_needs_no_gpu():
    found = directives(array(resources=Resources("gpu", "gpu:1")).finish_script())
    assert "--partition=gpu" in found
    assert not [option for option in found if "gres" in option or "array" in option or "signal" in option]


@pytest.mark.parametrize("name", ["script", "finish_script"])
def test_scripts_are_correct_shell(name):
    scripts = array()
    text = scripts.script([3]) if name == "script" else scripts.finish_script()
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# A worker that says what it is called with, and then, told to stop, ends with status 75 after what it has in hand.
# No $(...) after the trap: bash 5.2 was seen to lose a signal that came while it expanded one.
WORKER = """
printf '%s\\n' "$@" > words
trap 'stopped=yes' USR1
touch ready
for ((i = 0; i < 100; i++)); do sleep 0.1; [ -z "$stopped" ] || { echo finished > tile; exit 75; }; done
"""


@pytest.mark.parametrize(("state", "requeued"), [("RUNNING", "requeue 4711\n"), ("CANCELLED", None)])
def test_element_goes_back_into_the_queue_unless_it_was_cancelled(tmp_path, state, requeued):
    """With a stand-in for scontrol; the real one is in test_slurm_array.py."""
    (tmp_path / "worker").write_text(WORKER)
    (tmp_path / "scontrol").write_text(
        f'#!/bin/bash\nif [ "$1" = show ]; then echo "   JobState={state} Reason=None"; else echo "$@" > requeued; fi\n'
    )
    (tmp_path / "scontrol").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "4711"}
    text = array(command="bash worker", device="cuda", threads=8).script([3])
    with subprocess.Popen(["bash", "-c", text], cwd=tmp_path, env=environment) as element:
        while not (tmp_path / "ready").exists():
            assert element.poll() is None
        element.terminate()
        assert element.wait(timeout=20) == 75
    assert (tmp_path / "words").read_text().splitlines() == [
        *("work", str(FOLDER), "--share", "3/16", "--device", "cuda", "--threads", "8")
    ]
    assert (tmp_path / "tile").read_text() == "finished\n"
    found = tmp_path / "requeued"
    assert (found.read_text() if found.exists() else None) == requeued


def test_options_that_are_none_are_refused():
    with pytest.raises(InputError, match="'a100' is no option"):
        Resources(extra=("--constraint=x", "a100"))
    with pytest.raises(InputError, match="several lines"):
        Resources(partition="gpu\nrm -rf /")
