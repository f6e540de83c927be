"""ForwardModel: how the microscope turns an object into an image, H, and the adjoint H^T, by real FFTs.

The PSF has its centre at index n // 2 of every axis.  The object lives on a *domain* that may be larger than the image;
the image is the corner of the domain at index 0, and the margin behind it stands, by periodicity, for both sides.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gpudecon.backend import Array, Backend
from gpudecon.errors import InputError

Edges = Literal["extend", "reflect", "periodic"]
EDGES: tuple[str, ...] = get_args(Edges)

# Object voxels outside the image that send less than this fraction of their light into it cannot be estimated: dividing
# by so small a sensitivity only amplifies noise (Bertero & Boccacci, A&A 437, 2005, section 3).
LEAST_SENSITIVITY = 0.01


class ForwardModel:
    """Blur with a PSF on an image of a given shape, edges included.

    * ``edges="extend"``: the domain exceeds the image by the PSF on every side, so that light from objects outside the
      frame is explained; the data are the image alone (Bertero & Boccacci 2005).
    * ``edges="reflect"``: the data are the image continued into a margin of the PSF's size by its mirror image.
    * ``edges="periodic"``: the domain is the image; opposite faces touch.

    Attributes: ``domain`` (Z, Y, X); ``image_shape`` (z, y, x); ``work``, the real scratch field that `blur` and
    `adjoint` leave their result in, free for anybody between calls; ``otf``, complex64, divided by the number of voxels
    of the domain; ``weights``, 1 / H^T 1 on the domain (0 where H^T 1 is below 1 %), or None where H^T 1 is 1
    everywhere.
    """

    def __init__(
        self, backend: Backend, image_shape: tuple[int, int, int], psf: NDArray[np.float32], edges: Edges = "extend"
    ) -> None:
        if edges not in EDGES:
            raise InputError(f"Unknown edges {edges!r}; use one of {', '.join(EDGES)}.")
        self.backend = backend
        self.edges: Edges = edges
        self.image_shape = image_shape
        least = tuple(n + p - 1 for n, p in zip(image_shape, psf.shape, strict=True))
        domain = image_shape if edges == "periodic" else backend.padded_shape(least)
        self.domain: tuple[int, int, int] = (domain[0], domain[1], domain[2])
        self.fft = backend.plan(self.domain)
        self.spectrum, self.work = self.fft.empty()
        self.otf = self._transfer_function(psf)
        # "reflect" has data everywhere on its domain, "extend" only in the corner that is the image
        self.data_shape = image_shape if edges == "extend" else self.domain
        self.weights = self.inverse_sensitivity() if edges == "extend" else None

    @property
    def size(self) -> int:
        """Number of voxels of the domain."""
        return int(np.prod(self.domain))

    def empty(self) -> Array:
        """A new real array on the domain, uninitialised, in the layout that `blur` and the operations take."""
        return self.fft.empty()[1]

    def blur(self, estimate: Array) -> Array:
        """``work`` <- H estimate; valid on the image (``data_shape``), undefined behind it."""
        return self._convolve(estimate, conjugate=False, filled=self.domain[0], needed=self.data_shape[0])

    def adjoint(self, otf: Array | None = None) -> Array:
        """``work`` <- H^T work, where ``work`` is zero outside the data; with another ``otf`` that one's adjoint."""
        return self._convolve(self.work, conjugate=True, filled=self.data_shape[0], needed=self.domain[0], otf=otf)

    def correlate(self, otf: Array) -> Array:
        """``work`` <- work correlated, on the whole domain, with what ``otf`` (like the attribute) transforms to."""
        return self._convolve(self.work, conjugate=True, filled=self.domain[0], needed=self.domain[0], otf=otf)

    def load(self, image: Array) -> Array:
        """The data as float32 on ``data_shape``: the image itself, or continued into the margin."""
        if self.data_shape == self.image_shape and image.dtype == np.float32:
            return image
        data = self.backend.xp.empty(self.data_shape, np.float32)
        self.backend.ops.load_extended(data, image)
        return data

    def crop(self, estimate: Array) -> Array:
        """The part of a domain array that is the image; a view."""
        nz, ny, nx = self.image_shape
        return estimate[:nz, :ny, :nx]

    def inverse_sensitivity(
        self, mask: Array | None = None, otf: Array | None = None, least: float = LEAST_SENSITIVITY
    ) -> Array:
        """1 / H^T mask on the domain, where ``mask`` on ``data_shape`` is 1 for measured voxels (None: all are).

        0 where H^T mask is below `LEAST_SENSITIVITY`: what lies there cannot be seen; nowhere above 1 / ``least``.
        With another ``otf``, of that one's adjoint.
        """
        xp = self.backend.xp
        nz, ny, nx = self.data_shape
        self.work[...] = 0
        self.work[:nz, :ny, :nx] = 1 if mask is None else mask
        self.adjoint(otf)
        weights = self.empty()
        xp.maximum(self.work, np.float32(least), out=weights)
        xp.divide(np.float32(1), weights, out=weights)
        weights *= self.work > LEAST_SENSITIVITY
        return weights

    def _convolve(self, source: Array, *, conjugate: bool, filled: int, needed: int, otf: Array | None = None) -> Array:
        used = self.otf if otf is None else otf
        self.fft.convolve(source, self.spectrum, self.work, used, conjugate=conjugate, filled=filled, needed=needed)
        return self.work

    def _transfer_function(self, psf: NDArray[np.float32]) -> Array:
        folded, places = wrapped(psf / np.float32(self.size), self.domain)
        self.work[...] = 0
        upload = self.backend.upload
        self.work[self.backend.xp.ix_(*map(upload, places))] = upload(folded)
        self.fft.forward(self.work, self.spectrum)
        return self.spectrum.copy()


class Unblurred(ForwardModel):
    """H = 1, for methods without a PSF: the image is the object.  It has no transfer function and no transforms."""

    def __init__(self, backend: Backend, image_shape: tuple[int, int, int]) -> None:
        self.backend = backend
        self.edges = "reflect"
        self.image_shape = self.domain = self.data_shape = image_shape
        self.weights = None

    def empty(self) -> Array:
        """A new array of the image's shape, uninitialised."""
        return self.backend.xp.empty(self.domain, np.float32)

    def blur(self, estimate: Array) -> Array:
        """A copy of the estimate."""
        return estimate.copy()


def wrapped(psf: NDArray[np.float32], domain: tuple[int, ...]) -> tuple[NDArray[np.float32], list[NDArray[np.intp]]]:
    """The PSF and, for each axis, the indices of the domain where it goes so that its centre, n // 2, is at index 0.

    A PSF longer than the domain is folded onto it, as periodicity demands.
    """
    places = []
    for axis, length in enumerate(domain):
        n = psf.shape[axis]
        place = (np.arange(n) - n // 2) % length
        if n > length:
            folded = np.zeros((*psf.shape[:axis], length, *psf.shape[axis + 1 :]), np.float32)
            np.add.at(folded, (*(slice(None),) * axis, place), psf)
            psf, place = folded, np.arange(length)
        places.append(place)
    return psf, places
