"""Memory of the host, read from files as Linux writes them."""

import pytest

from gpudecon.backend import get_backend
from gpudecon.backend.host_memory import host_memory

GIB = 2**30


@pytest.fixture
def root(tmp_path):
    """A function that writes files below a root; a machine of 16 GiB, 10 of them free, is there."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    write(**{"proc/meminfo": f"MemTotal: {16 * 2**20} kB\nMemFree: 1 kB\nMemAvailable:   {10 * 2**20} kB\n"})
    return write


def test_machine_without_limits(root):
    assert host_memory(root()) == (10 * GIB, 16 * GIB)


def test_limit_of_a_group_above_counts_and_cached_files_are_free(root):
    top = "sys/fs/cgroup"
    made = root(
        **{
            "proc/self/cgroup": "0::/job/step\n",
            f"{top}/job/step/memory.max": "max\n",
            f"{top}/job/step/memory.current": "5\n",
            f"{top}/job/step/memory.stat": "inactive_file 0\n",
            f"{top}/job/memory.max": f"{4 * GIB}\n",
            f"{top}/job/memory.current": f"{3 * GIB}\n",
            f"{top}/job/memory.stat": f"anon 7\ninactive_file {2 * GIB}\n",
        }
    )
    assert host_memory(made) == (3 * GIB, 4 * GIB)


def test_first_version_of_control_groups(root):
    top = "sys/fs/cgroup/memory"
    made = root(
        **{
            "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/docker/abc\n",
            f"{top}/memory.limit_in_bytes": f"{2 * GIB}\n",
            f"{top}/memory.usage_in_bytes": f"{GIB}\n",
            f"{top}/memory.stat": f"inactive_file 9\ntotal_inactive_file {GIB // 2}\n",
        }
    )
    assert host_memory(made) == (3 * GIB // 2, 2 * GIB)


def test_this_machine():
    free, total = get_backend("cpu").memory()
    assert 0 < free <= total
