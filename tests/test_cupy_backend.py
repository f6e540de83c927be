"""CupyBackend's own rules, on a machine without a GPU: what it asks of CuPy is right, whatever CuPy does with it."""

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from gpudecon.backend.cupy import CupyBackend, check_field
from gpudecon.backend.numpy import NumpyBackend


@pytest.mark.parametrize("shape", [(3, 5, 8), (3, 5, 7), (1, 5, 6)])
def test_only_fields_are_transformed(shape):
    """A contiguous array of the same shape has other rows, and ends before the transform does."""
    _, field = NumpyBackend(threads=1).plan(shape).empty()
    field[...] = 0
    check_field(field, shape)
    for wrong in (np.zeros(shape, np.float32), field.astype(float), field[..., :-1], field[..., ::-1]):
        with pytest.raises(TypeError, match="real view of a field"):
            check_field(wrong, shape)


class OutOfMemoryError(MemoryError):
    pass


class FakeCupy:
    """Two devices with a current stream each; ``waiting`` are the devices whose stream waited for an event.

    ``is_full``: there is no room for another array.
    """

    def __init__(self):
        self.here, self.waiting, self.is_full = [0], [], False
        self.cuda = SimpleNamespace(
            Device=self._device,
            MemoryPool=lambda: SimpleNamespace(malloc=None),
            Stream=self._stream,
            get_current_stream=lambda: self._stream(non_blocking=False),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(getDeviceCount=lambda: 2),
            using_allocator=lambda _: nullcontext(),
        )

    class ndarray(np.ndarray):
        device = None

        def set(self, values, stream):
            self[...] = values

        def get(self, *, stream, out, blocking):
            out[...] = self

    def empty(self, shape, dtype):
        if self.is_full:
            raise OutOfMemoryError
        made = np.empty(shape, dtype).view(self.ndarray)
        made.device = SimpleNamespace(id=self.here[-1])
        return made

    def _device(self, index):
        fake = self

        class Device:
            id = index

            def __enter__(self):
                fake.here.append(index)

            def __exit__(self, *_):
                fake.here.pop()

        return Device()

    def _stream(self, *, non_blocking):
        device = self.here[-1]

        class Stream:
            def record(self):
                return SimpleNamespace(synchronize=lambda: None)

            def wait_event(_, event):
                self.waiting.append(device)

            def __enter__(self):
                pass

            def __exit__(self, *_):
                pass

        return Stream()


@pytest.fixture
def cupy(monkeypatch):
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setitem(sys.modules, "cupyx", SimpleNamespace(empty_pinned=np.empty))
    return fake


def test_what_was_sent_is_waited_for_by_the_stream_of_its_own_device(cupy):
    backend = CupyBackend(1)
    sent = backend.send(np.arange(6.0))
    there = sent.wait()
    assert backend.owns(there)
    assert cupy.waiting == [1]
    assert (backend.fetch(there).wait() == np.arange(6)).all()


def test_what_there_is_no_room_for_stays_on_the_host(cupy):
    backend = CupyBackend(0)
    cupy.is_full = True
    image = np.arange(6.0)
    assert backend.send(image).wait() is image
    assert backend.fetch(image).wait() is image
