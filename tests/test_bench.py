"""The benchmarks run at toy size as the commands that the README gives; nothing is said about their times."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BENCH = ROOT / "bench"
MAY_BE_ZERO = {"relative_error", "seed"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=env, timeout=120)


def run_script(script: str, *arguments: str) -> None:
    done = run(str(BENCH / script), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n") < 60


def checked_rows(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0]["section"] == "env"
    for row in rows:
        numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        assert numbers or "note" in row, row
        for key, number in numbers.items():
            assert math.isfinite(number), row
            # a peer's time per iteration is a difference of two, which a busy machine can turn around
            assert number > 0 or key in MAY_BE_ZERO or row["section"] == "peers", row
    return rows


def test_gpu_benchmark_runs_on_the_cpu(tmp_path: Path) -> None:
    run_script("gpu.py", "--backend", "numpy", "--toy", "-o", str(tmp_path))
    rows = checked_rows(tmp_path / "cpu-stand-in.jsonl")
    assert {row["section"] for row in rows} == {"env", "ceilings", "correctness", "fft", "rl", "peers"}
    assert "GPU" not in rows[0]["device"]
    (table,) = (json.loads(path.read_text()) for path in tmp_path.glob("fft_cost_*.json"))
    (costs,) = table.values()
    assert all(cost > 0 for cost in costs.values())


def test_correctness_sees_a_wrong_operation(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import runpy, sys\n"
        "from gpudecon.backend.ops import NumpyOps\n"
        "right = NumpyOps.rl_update\n"
        "def wrong(self, estimate, work, weights):\n"
        "    right(self, estimate, work, weights)\n"
        "    estimate[-1, -1, -1] = float('nan')\n"
        "NumpyOps.rl_update = wrong\n"
        f"sys.path.insert(0, {str(BENCH)!r})\n"
        f"runpy.run_path({str(BENCH / 'gpu.py')!r}, run_name='__main__')\n"
    )
    done = run(str(broken), "--backend", "numpy", "--toy", "--only", "correctness", "-o", str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert "FAILED: rl_update" in done.stdout


def test_cpu_benchmark(tmp_path: Path) -> None:
    run_script("cpu.py", "--quick", "-o", str(tmp_path / "cpu.jsonl"))
    rows = checked_rows(tmp_path / "cpu.jsonl")
    assert {row["section"] for row in rows} == {"env", "iteration", "fft", "memory", "peers"}
