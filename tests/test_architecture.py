"""The rules of the house, read off the source: who may import whom, and what must not be there at all."""

from __future__ import annotations

import ast
import graphlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import gpudecon

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gpudecon"

# From the ground up; a room imports from itself and from the levels below it.
LEVELS = [
    {"_version", "errors"},
    {"backend", "camera", "image", "optics"},
    {"psf"},
    {"forward"},
    {"methods"},
    {"corrections", "io", "quality", "simulate"},
    {"arguments", "constants", "halo", "lazy", "recording"},
    {"pilot"},
    {"deconvolve"},
    {"engine"},
    {"cli", "napari"},
]
# Where a third party may be imported; whatever is not named here may be imported everywhere.
HOMES = {
    "cupy": "gpudecon/backend/",
    "dask": ("gpudecon/engine/", "gpudecon/lazy.py"),
    "dask_jobqueue": "gpudecon/engine/",
    "distributed": "gpudecon/engine/",
    "fsspec": "gpudecon/io/",
    "imagecodecs": "gpudecon/io/",
    "PIL": "gpudecon/quality/",
    "matplotlib": "gpudecon/quality/",
    "platformdirs": "gpudecon/engine/",
    "tifffile": "gpudecon/io/",
    "tqdm": "gpudecon/cli/",
    "yaozarrs": "gpudecon/io/",
    "zarr": "gpudecon/io/",
}
LATE = {
    "PIL",
    "cupy",
    "dask",
    "dask_jobqueue",
    "distributed",
    "fsspec",
    "matplotlib",
    "platformdirs",
    "scipy",
    "tifffile",
    "tqdm",
    "yaozarrs",
    "zarr",
}
LONGEST_FILE = 400


class Import(NamedTuple):
    """One imported module, where it stands, and whether it is imported with the importing module."""

    source: str
    target: str
    line: int
    is_late: bool

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module(path: Path) -> str:
    """gpudecon/io/tiff.py -> gpudecon.io.tiff; of a package, the package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): str(path.relative_to(ROOT)) for path in sources()}


def imports(path: Path) -> Iterator[Import]:
    """Every import in a file, wherever it stands; those for the type checker count as late."""

    def visit(node: ast.AST, is_late: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno}: a relative import; name the module in full"
                names = [f"{child.module}.{alias.name}" for alias in child.names]
                targets = {name if name in MODULES else str(child.module) for name in names}
            else:
                targets = {alias.name for alias in child.names} if isinstance(child, ast.Import) else set()
            for target in targets:
                yield Import(str(path.relative_to(ROOT)), target, child.lineno, is_late)
            deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
                isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            )
            yield from visit(child, is_late or deferred)

    return visit(ast.parse(path.read_text()), False)


ALL_IMPORTS = [found for path in sources() for found in imports(path)]
OWN_IMPORTS = [found for found in ALL_IMPORTS if found.target.split(".")[0] == "gpudecon"]


def room(name: str) -> str:
    """gpudecon.io.tiff or gpudecon/io/tiff.py -> io."""
    return name.removesuffix(".py").replace("/", ".").split(".")[1]


def level(name: str) -> int:
    """The level of a module's room; a new room needs a place in `LEVELS`."""
    return next(i for i, rooms in enumerate(LEVELS) if room(name) in rooms)


def test_every_room_has_a_level():
    rooms = {room(path) for path in MODULES.values()} - {"__init__", "__main__"}
    assert rooms <= set.union(*LEVELS)


def test_imports_go_downward():
    inner = [i for i in OWN_IMPORTS if i.source not in ("gpudecon/__init__.py", "gpudecon/__main__.py")]
    assert [str(i) for i in inner if i.target == "gpudecon"] == []
    wrong = [i for i in inner if room(i.target) != room(i.source) and level(i.target) >= level(i.source)]
    assert [str(i) for i in wrong] == []


def test_front_doors():
    """The package offers what lies below the command line; ``python -m gpudecon`` only opens the command line."""
    offered = {i.target for i in OWN_IMPORTS if i.source == "gpudecon/__init__.py"}
    assert {room(target) for target in offered} & {"engine", "cli", "napari"} == set()
    assert {i.target for i in OWN_IMPORTS if i.source == "gpudecon/__main__.py"} == {"gpudecon.cli"}


def test_no_cycles():
    graph: dict[str, set[str]] = {path: set() for path in MODULES.values()}
    for found in OWN_IMPORTS:
        graph[found.source].add(MODULES[found.target])
    graphlib.TopologicalSorter(graph).prepare()  # a cycle is an error that lists it


def test_third_parties_stay_at_home():
    strays = [i for i in ALL_IMPORTS if not i.source.startswith(HOMES.get(i.target.split(".")[0], ""))]
    assert [str(i) for i in strays] == []


def test_heavy_packages_are_imported_late():
    """Or in a module that is itself imported late wherever it is."""
    at_once = {MODULES[i.target] for i in OWN_IMPORTS if not i.is_late and i.target in MODULES}
    late = {MODULES[i.target] for i in OWN_IMPORTS if i.target in MODULES} - at_once
    heavy = [i for i in ALL_IMPORTS if i.target.split(".")[0] in LATE and not i.is_late]
    assert [str(i) for i in heavy if i.source not in late] == []


def test_no_environment_variable_is_read():
    names = {"environ", "environb", "getenv", "getenvb"}
    reads = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.ImportFrom) and names & {alias.name for alias in node.names})
    ]
    assert reads == []


def test_files_are_nouns_of_the_field_and_short():
    folders = [PACKAGE, *(ROOT / name for name in ("kernels", "tests", "bench") if (ROOT / name).is_dir())]
    files = [p for f in folders for p in f.rglob("*") if p.suffix in (".py", ".cu", ".cuh", ".hpp")]
    vague = {"common", "helper", "helpers", "misc", "util", "utils"}
    assert [str(p.relative_to(ROOT)) for p in files if p.stem in vague and p.name != "common.cuh"] == []
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in files}
    assert {name: n for name, n in lengths.items() if n > LONGEST_FILE} == {}


def test_import_is_light():
    """What makes a start slow is what is imported with it; the seconds are in bench/results/start.jsonl."""
    heavy = [*LATE, "imagecodecs", "ducc0"]
    code = f"import sys, gpudecon; print(*set({heavy}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", [name for name in dir(gpudecon) if not name.startswith("_")])
def test_public_names_are_explained(name):
    thing = getattr(gpudecon, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert thing.__doc__
        assert not thing.__doc__.startswith(f"{name}(")  # what dataclass puts where nothing is written
