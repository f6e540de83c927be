"""gpudecon: quantitative 3-D deconvolution of fluorescence microscopy, on GPU and CPU."""

from gpudecon._version import __version__ as __version__
from gpudecon.backend import get_backend as get_backend
from gpudecon.camera import Camera as Camera
from gpudecon.deconvolve import Deconvolver as Deconvolver
from gpudecon.deconvolve import deconvolve as deconvolve
from gpudecon.errors import GpudeconError as GpudeconError
from gpudecon.errors import GpudeconWarning as GpudeconWarning
from gpudecon.image import Channel as Channel
from gpudecon.image import Image as Image
from gpudecon.io import read as read
from gpudecon.io import write as write
from gpudecon.io.psf_file import read_psf as read_psf
from gpudecon.methods import METHODS as METHODS
from gpudecon.methods.constrained_least_squares import ConstrainedLeastSquares as ConstrainedLeastSquares
from gpudecon.methods.richardson_lucy import RichardsonLucy as RichardsonLucy
from gpudecon.methods.wiener import Wiener as Wiener
from gpudecon.optics import Optics as Optics
from gpudecon.psf.beads import distill_psf as distill_psf
from gpudecon.psf.check import check_psf as check_psf
from gpudecon.psf.fit import fit_pupil as fit_pupil
from gpudecon.psf.psf import PSF as PSF
from gpudecon.psf.pupil import pupil_psf as pupil_psf
from gpudecon.psf.theory import theoretical_psf as theoretical_psf
from gpudecon.psf.theory import theoretical_psfs as theoretical_psfs
from gpudecon.quality.stopping import HoldOut as HoldOut
from gpudecon.quality.stopping import RelativeChange as RelativeChange
