"""Each .cu file compiles without a warning for every architecture, with NVRTC alone: no GPU, no driver, no CuPy."""

import ctypes
import importlib.util
from pathlib import Path

import pytest

from gpudecon.backend.cuda import KERNELS, kernel_folder, kernel_source

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
FILES = sorted({kernel.file for kernel in KERNELS.values()})


class NVRTC:
    """The few calls of libnvrtc that turn a text into machine code."""

    def __init__(self, library):
        self._library = ctypes.CDLL(str(library))

    def compile(self, source, name, *options):
        """Machine code (empty after an error) and the compiler's log."""
        program = ctypes.c_void_p()
        self._call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), name.encode(), 0, None, None)
        try:
            flags = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            failed = self._library.nvrtcCompileProgram(program, len(flags), flags)
            code = b"" if failed else self._bytes("CUBIN", program)
            return code, self._bytes("ProgramLog", program).rstrip(b"\0").decode()
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def _bytes(self, what, program):
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, text)
        return text.raw

    def _call(self, function, *args):
        status = self._library[function](*args)
        assert status == 0, f"{function} returned {status}"


@pytest.fixture(scope="module")
def nvrtc():
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else []
    libraries = sorted(path for folder in folders for path in Path(folder).glob("**/libnvrtc.so.*"))
    if not libraries:
        pytest.skip("the wheel nvidia-cuda-nvrtc is not installed: kernels cannot be compiled")
    return NVRTC(libraries[-1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file", FILES)
def test_compiles_without_a_warning(nvrtc, file, architecture):
    code, log = nvrtc.compile(kernel_source(file), file, f"-arch=sm_{architecture}", "-std=c++17")
    assert log == ""
    assert code[:4] == b"\x7fELF"


@pytest.mark.parametrize("file", FILES)
def test_compiles_as_it_stands(nvrtc, file):
    text = (kernel_folder() / file).read_text()
    code, log = nvrtc.compile(text, file, "-arch=sm_80", "-std=c++17", f"-I{kernel_folder()}")
    assert log == ""
    assert code


@pytest.mark.parametrize("file", FILES)
def test_keeps_everything_in_registers(nvrtc, file):
    _, log = nvrtc.compile(kernel_source(file), file, "-arch=sm_80", "-std=c++17", "--ptxas-options=-v")
    properties = [line for line in log.splitlines() if "stack frame" in line]
    assert len(properties) == sum(kernel.file == file for kernel in KERNELS.values())
    assert all("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in line for line in properties)


def test_an_error_names_the_true_file_and_line(nvrtc):
    lines = kernel_source("divergence.cu").splitlines()
    start = lines.index('#line 1 "divergence.cu"')
    number = lines.index("    double sum = 0.0;") - start
    broken = "\n".join(lines).replace("double sum = 0.0;", "double sum = nothing;")
    code, log = nvrtc.compile(broken, "pasted.cu", "-arch=sm_80", "-std=c++17")
    assert code == b""
    assert log.startswith(f"divergence.cu({number}): error")
