"""What a start costs: `import gpudecon` and `gpudecon --help` in turn with a bare interpreter and `import numpy`.

python bench/start.py -o bench/results/start.jsonl
python bench/start.py --quick -o /tmp/start.jsonl

The seconds are of whole processes whose modules are compiled already, as after a first call.  Each must end well; what
is imported is for the tests to say.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rows import Rows, environment, print_table
from timing import WallClock, interleaved

REFERENCE = "import numpy"
STARTS = {
    "interpreter": ("-c", "pass"),
    REFERENCE: ("-c", "import numpy"),
    "import gpudecon": ("-c", "import gpudecon"),
    "gpudecon --help": ("-m", "gpudecon", "--help"),
    "gpudecon run --help": ("-m", "gpudecon", "run", "--help"),
}


def start(words: tuple[str, ...], cache: str) -> Callable[[], object]:
    """A call that starts an interpreter and waits for its end; compiled modules are kept in the folder ``cache``."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environ = kept | {"PYTHONPYCACHEPREFIX": cache}
    return lambda: subprocess.run([sys.executable, *words], env=environ, stdout=subprocess.DEVNULL, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="two rounds instead of 31")
    args = parser.parse_args()
    rows = Rows(args.output)
    rows.add("env", "machine", **environment())
    with tempfile.TemporaryDirectory() as cache:
        calls = {name: start(words, cache) for name, words in STARTS.items()}
        found = interleaved(calls, WallClock(), rounds=2 if args.quick else 31, warm_up=1)
    for name, timing in found.items():
        rows.add("start", name, **timing.fields, ratio_to_numpy=timing.median / found[REFERENCE].median)
    print_table(rows.all)


if __name__ == "__main__":
    main()
