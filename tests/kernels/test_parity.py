"""Every kernel has one twin, one launch and one protocol member, all with the same arguments."""

import inspect

import pytest

from gpudecon.backend.cuda import KERNELS, PIXEL_CODES, ROW_THREADS, CudaOps, kernel_folder, kernel_source
from gpudecon.backend.ops import NumpyOps, Ops

from .host_launcher import signatures

SOURCES = {path.name: path.read_text() for path in kernel_folder().iterdir() if path.name.endswith(".cu")}
SIGNATURES = {name: found for source in SOURCES.values() for name, found in signatures(source).items()}


def arguments(owner, method):
    return list(inspect.signature(getattr(owner, method)).parameters)[1:]


def methods(owner):
    return {name for name, _ in inspect.getmembers(owner, inspect.isfunction) if not name.startswith("_")}


def test_each_kernel_is_listed_with_its_file():
    assert {(name, file) for file, source in SOURCES.items() for name in signatures(source)} == {
        (name, kernel.file) for name, kernel in KERNELS.items()
    }


@pytest.mark.parametrize("owner", [NumpyOps, CudaOps, Ops])
def test_methods_are_the_kernels(owner):
    assert methods(owner) == set(KERNELS)


@pytest.mark.parametrize("name", KERNELS)
def test_arguments_are_the_twins_then_sizes(name):
    expected = arguments(NumpyOps, name)
    assert arguments(CudaOps, name) == arguments(Ops, name) == expected
    parameters = SIGNATURES[name]
    assert [p.name for p in parameters[: len(expected)]] == expected
    assert {p.type for p in parameters[len(expected) :]} == {"int"}


def test_constants_are_the_same_in_both_languages():
    for file in ("divergence.cu", "row_sums.cu"):
        assert f"constexpr int ROW_THREADS = {ROW_THREADS};" in SOURCES[file]
    codes = ", ".join(f"PIXEL_{dtype.kind.upper()}{8 * dtype.itemsize}" for dtype in PIXEL_CODES)
    assert f"enum PixelType {{ {codes} }};" in kernel_source("load_store.cu")
    assert list(PIXEL_CODES.values()) == list(range(len(PIXEL_CODES)))
