"""Point spread functions: the type, its cleaning and resampling, and models from the optics."""

from gpudecon.psf.psf import PSF as PSF
