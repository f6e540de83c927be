"""The memory that this process may use: the machine's, or what a container or a scheduler's job leaves of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path


def host_memory(root: Path = Path("/")) -> tuple[int, int]:
    """Free and total bytes; memory that the system holds files in counts as free.

    The limits of the process's control group (versions 1 and 2) and of those above it are kept.  ``root`` is where
    ``proc`` and ``sys`` are found.
    """
    free, total = _machine(root)
    for limit, used in _groups(root):
        total = min(total, limit)
        free = min(free, max(limit - used, 0))
    return free, total


def _machine(root: Path) -> tuple[int, int]:
    page = os.sysconf("SC_PAGE_SIZE")
    total = os.sysconf("SC_PHYS_PAGES") * page
    try:
        said = dict(re.findall(r"^(\w+):\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE))
        return int(said["MemAvailable"]) * 1024, int(said["MemTotal"]) * 1024
    except (OSError, KeyError):  # not Linux
        return total // 2, total


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, bytes in use that are no cached files) of each control group that has a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit_name, use_name, cached = root / "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit_name, use_name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        else:
            continue
        folder = top / path.lstrip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(top):
                break
            try:
                limit, used = (group / limit_name).read_text().strip(), int((group / use_name).read_text())
                files = re.search(rf"^{cached} (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
            except OSError:  # in a container the group's own path may not be there; the top one is
                continue
            if limit != "max":
                yield int(limit), used - (int(files[1]) if files else 0)
