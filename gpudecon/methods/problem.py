"""Problem: what a method is given; Method: what a method is."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Protocol, cast, get_args, get_origin, get_type_hints

import numpy as np

from gpudecon.backend import Array, Backend
from gpudecon.errors import InputError
from gpudecon.forward import ForwardModel
from gpudecon.methods.reach import Spread
from gpudecon.methods.record import Record

# The FFT leaves about 1e-7 of the largest value where the blurred estimate is zero; below this fraction of the image's
# largest value the model is taken to be this fraction, so that noise is not divided by rounding errors.
FLOOR = 1e-6


@dataclass(frozen=True)
class Data:
    """What an iteration compares its model with, on the model's ``data_shape``, as the operations take it.

    ``background_image`` (or None) is added to ``background``; ``mask`` (or None) is not 0 where the image is a
    measurement; ``floor`` is the least value of a model that noise may be divided by.
    """

    image: Array
    background: float
    background_image: Array | None
    mask: Array | None
    floor: float

    @property
    def scene(self) -> tuple[float, Array | None, Array | None, float]:
        """The arguments after the image of `Ops.rl_ratio` and `Ops.poisson_divergence`."""
        return self.background, self.background_image, self.mask, self.floor


@dataclass(frozen=True)
class Problem:
    """One image to restore, on one backend: g ~ gain Poisson((H f + background) / gain).

    ``image`` is on the image's box (z, y, x), in grey values from which a known camera offset is subtracted and to
    which, as to the background, the variance of the read noise over the gain is added (Snyder et al. 1993).  ``gain``
    is in grey values per photo-electron, None if not known.  ``background_image`` and ``mask`` (uint8, not 0 where the
    image is a measurement) have the image's box or are None.  ``voxel_um`` (z, y, x) weighs differences along the axes,
    equal sizes where the true ones are not known.  ``highest`` is the image's largest value, or that of the whole image
    which this is a part of; ``record`` has what else only the whole can tell.
    """

    backend: Backend
    model: ForwardModel
    image: Array
    background: float
    voxel_um: tuple[float, float, float]
    highest: float
    background_image: Array | None = None
    mask: Array | None = None
    gain: float | None = None
    record: Record = dataclasses.field(default_factory=Record)

    def data(self) -> Data:
        """Image, background and mask on the model's ``data_shape``, the image in float32."""
        model = self.model
        mask = self.mask
        if mask is not None and model.data_shape != self.image.shape:  # continued like the image, and measured if
            mask = (model.load(mask) == 1).astype(np.uint8)  # all is that goes into a voxel
        varying = None if self.background_image is None else model.load(self.background_image)
        return Data(model.load(self.image), self.background, varying, mask, FLOOR * self.highest)

    def light(self) -> Array:
        """The image less its background, float32 on the image's box, in an array of its own."""
        light = self.image.astype(np.float32)
        self.take_background_from(light)
        return light

    def take_background_from(self, image: Array) -> None:
        """Subtract the background from a float32 array on the image's box."""
        if self.background:
            image -= np.float32(self.background)
        if self.background_image is not None:
            image -= self.background_image

    def weights(self, data: Data) -> Array | None:
        """1 / H^T mask on the domain, None where that is 1."""
        return self.model.weights if data.mask is None else self.model.inverse_sensitivity(data.mask)


class Method(Protocol):
    """A restoration method: a frozen dataclass whose fields are its options, and one generator.

    `iterate` yields the current estimate after every iteration, in the layout of ``problem.model.empty()``, which the
    GPU's transforms ask for; a direct filter yields once.  The yielded array is valid until the next step, and
    ``problem.model.work`` is free for others meanwhile.  Stopping, callbacks, timing and checks are the driver's.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]
    counts_only: ClassVar[bool]  # takes the image for counts, which cannot be negative
    needs_psf: ClassVar[bool]  # without a PSF the model is `Unblurred`
    takes_mask: ClassVar[bool]  # can leave voxels out
    promises: ClassVar[frozenset[str]]  # "non-negative", "flux": what holds for the result with whatever options

    @property
    def divisible(self) -> bool:
        """Whether the parts of an image can be restored one by one."""
        ...

    @property
    def arrays(self) -> float:
        """Real fields on the domain that `iterate` holds at its peak, beside those of the model and the data."""
        ...

    def reach(self, spread: Spread) -> float:
        """Voxels along an axis beyond which surroundings change the result by less than 1e-3 (see `gpudecon.halo`)."""
        ...

    def iterate(self, problem: Problem) -> Iterator[Array]: ...


def settled(method: Method, problem: Problem) -> Method:
    """The method with what it would choose from the data chosen for this problem, where it has such options.

    A trial on a part of the light then runs with the constants of the whole.
    """
    choose = getattr(method, "settled", None)
    return method if choose is None else cast("Method", choose(problem))


def check_options(method: Any) -> None:
    """Check the types of a method's fields: Literal, int, float, bool, and unions of them."""
    kind: Any = type(method)
    hints = _types_of(kind)
    for field in dataclasses.fields(method):
        given, hint = getattr(method, field.name), hints[field.name]
        parts = get_args(hint) if get_origin(hint) is not Literal and get_args(hint) else (hint,)
        words = [w for part in parts if get_origin(part) is Literal for w in get_args(part)]
        types = tuple(t for t in parts if isinstance(t, type))
        number = isinstance(given, Real) and not isinstance(given, bool)
        whole = isinstance(given, Integral) and not isinstance(given, bool)
        fits = (
            (isinstance(given, str) and given in words)
            or (float in types and number)
            or (int in types and whole)
            or (bool in types and isinstance(given, bool))
        )
        if not fits:
            allowed = [repr(w) for w in words] + [
                {"int": "a whole number", "float": "a number", "bool": "True or False"}[t.__name__] for t in types
            ]
            raise InputError(f"{type(method).name}: {field.name} is {given!r}; it must be {' or '.join(allowed)}.")


@functools.cache  # it evaluates text
def _types_of(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
