"""HostLauncher: runs the kernels on the host, compiled by g++ with ``shim.hpp``; a `Launch` for `CudaOps`."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpudecon.backend.cuda import KERNELS, kernel_source

if TYPE_CHECKING:
    from collections.abc import Sequence

SHIM = Path(__file__).with_name("shim.hpp")
FLAGS = ("-std=c++20", "-O1", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-shared", "-fPIC", "-pthread")
SIGNATURE = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')
C_TYPES = {"float": ctypes.c_float, "double": ctypes.c_double, "int": ctypes.c_int, "bool": ctypes.c_bool}


class Parameter(NamedTuple):
    """One parameter of a kernel: ``const float* work`` -> ("const float*", "work")."""

    type: str
    name: str


def signatures(source: str) -> dict[str, list[Parameter]]:
    """The kernels in a .cu text with their parameters."""
    return {
        name: [Parameter(*parameter.strip().rsplit(maxsplit=1)) for parameter in parameters.split(",")]
        for name, parameters in SIGNATURE.findall(source)
    }


class HostLauncher:
    """Builds one shared library per .cu file in ``folder`` when it is first used; ``flags`` are added to g++'s."""

    def __init__(self, folder: Path, flags: Sequence[str] = ()) -> None:
        self._folder = folder
        self._flags = flags
        self._functions: dict[str, ctypes._CFuncPtr] = {}

    def __call__(self, kernel: str, extent: tuple[int, int, int], args: Sequence[object]) -> None:
        entry = KERNELS[kernel]
        if kernel not in self._functions:
            self._build(entry.file)
        size = ctypes.c_uint * 3
        self._functions[kernel](size(*entry.grid(extent)), size(*entry.block), *map(_plain, args))

    def _build(self, file: str) -> None:
        source = kernel_source(file)
        kernels = signatures(source)
        launch = "launch_together" if "__syncthreads" in source else "launch_in_turn"
        wrappers = (
            f'extern "C" void launch_{name}(const unsigned* grid, const unsigned* block, '
            f"{', '.join(f'{p.type} {p.name}' for p in parameters)})\n"
            "{\n"
            "    gridDim = {grid[0], grid[1], grid[2]};\n"
            "    blockDim = {block[0], block[1], block[2]};\n"
            f"    {launch}([&] {{ {name}({', '.join(p.name for p in parameters)}); }});\n"
            "}\n"
            for name, parameters in kernels.items()
        )
        program, library = self._folder / f"{file}.cpp", self._folder / f"{file}.so"
        program.write_text("\n".join((f'#include "{SHIM}"', source, *wrappers)))
        # without the sanitizer that may be preloaded into this process: the compiler takes twice as long with it
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        subprocess.run(["g++", *FLAGS, *self._flags, "-o", library, program], check=True, env=environment)
        loaded = ctypes.CDLL(str(library))
        for name, parameters in kernels.items():
            function = loaded[f"launch_{name}"]
            function.restype = None
            function.argtypes = [ctypes.POINTER(ctypes.c_uint)] * 2 + [
                ctypes.c_void_p if p.type.endswith("*") else C_TYPES[p.type] for p in parameters
            ]
            self._functions[name] = function


def _plain(arg: object) -> object:
    """What ctypes takes: NumPy's scalars as Python's, and None as a null pointer."""
    if isinstance(arg, np.ndarray):
        return arg.ctypes.data
    return arg.item() if isinstance(arg, np.generic) else arg
