"""The journal: what it says is true, whatever happened to those who wrote it."""

import os
import subprocess
import sys

import pytest

from gpudecon.engine.journal import Journal, Record


def record(task, kind="tile", **fields):
    return Record(kind, task, **({"checksum": f"{task:x}", "low": -0.5, "high": 1 / 3, "seconds": 0.25} | fields))


def test_what_is_added_is_read_to_the_last_bit(tmp_path):
    journal = Journal(tmp_path / "journal")
    assert list(journal.records("tile")) == []
    added = [record(3, low=-1e-310, high=0.1 + 0.2), record(0), record(1, "level")]
    for each in added:
        journal.add(each)
    assert list(Journal(tmp_path / "journal").records("tile")) == added[:2]
    assert journal.done("tile") == {0, 3}
    assert journal.done("level") == {1}


def test_union_of_workers(tmp_path):
    """Processes that write at the same time, each into a file of its own."""
    code = (
        "import sys; from pathlib import Path; from gpudecon.engine.journal import *; j = Journal(Path(sys.argv[1]))\n"
        "for i in range(40): j.add(Record('tile', 2 * i + int(sys.argv[2]), 'c', 0, 1, 2))"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "j", str(k)]) for k in range(2)]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    assert len(list((tmp_path / "j").iterdir())) == 2
    assert Journal(tmp_path / "j").done("tile") == set(range(80))


def test_a_torn_end_loses_at_most_its_own_line(tmp_path):
    journal = Journal(tmp_path / "whole")
    for task in range(4):
        journal.add(record(task))
    journal.close()
    whole = next((tmp_path / "whole").iterdir()).read_bytes()
    torn = Journal(tmp_path / "torn")
    (tmp_path / "torn").mkdir()
    for length in range(len(whole) + 1):
        (tmp_path / "torn" / "dead.jsonl").write_bytes(whole[:length])
        # a line is whole without its end of line: the braces of `found` and of the record are there
        assert torn.done("tile") == set(range(whole[:length].count(b"\n") + whole[:length].endswith(b"}}"))), length
    (tmp_path / "torn" / "dead.jsonl").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "torn" / "next.jsonl").write_bytes(whole)  # another process goes on in a file of its own
    assert torn.done("tile") == {0, 1, 2, 3}


def test_zeros_of_a_disk_that_lost_its_power(tmp_path):
    journal = Journal(tmp_path)
    journal.add(record(0))
    journal.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert Journal(tmp_path).done("tile") == {0}


def test_striking(tmp_path):
    journal, another = Journal(tmp_path), Journal(tmp_path)
    for task in range(4):
        journal.add(record(task))
        another.add(record(task + 2))
        journal.add(record(task, "level"))
    journal.strike("tile", {2, 5})
    assert journal.done("tile") == {0, 1, 3, 4}
    journal.add(record(2))
    journal.strike("level")
    assert journal.done("tile") == {0, 1, 2, 3, 4}
    assert journal.done("level") == set()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jsonl"] * len(list(tmp_path.iterdir()))


def test_a_full_disk_is_an_error_and_what_follows_is_still_true(tmp_path):
    """/dev/full stands for the disk: the write fails, and so does the task."""
    journal = Journal(tmp_path)
    journal.add(record(0))
    own, journal._file = journal._file, os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space left"):
        journal.add(record(1))
    journal.close()
    journal._file = own
    journal.add(record(2))
    assert Journal(tmp_path).done("tile") == {0, 2}
