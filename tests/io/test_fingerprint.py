"""Whether a file is still the same: an image in several OME-TIFF files, as microscopes write one for each plane."""

import os
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
import tifffile

from gpudecon import io
from gpudecon.io.fingerprint import fingerprint


def ome(names):
    """OME-XML of planes of 5 x 7 along z, one in each file."""
    planes = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName={quoteattr(name)}>urn:uuid:{z}</UUID></TiffData>'
        for z, name in enumerate(names)
    )
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="7" SizeY="5" '
        f'SizeZ="{len(names)}" SizeC="1" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}'
        "</Pixels></Image></OME>"
    )


@pytest.fixture
def files(tmp_path):
    """Three files of one image; the first says so, and has a link elsewhere."""
    names = ["z0.ome.tif", "z1.ome.tif", "z2.ome.tif"]
    for z, name in enumerate(names):
        description = ome(names) if z == 0 else None
        tifffile.imwrite(tmp_path / name, np.full((5, 7), z, "u2"), description=description, metadata=None)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.ome.tif").symlink_to(tmp_path / names[0])
    return [tmp_path / name for name in names]


@pytest.mark.parametrize("through_link", [False, True])
@pytest.mark.parametrize("changed", range(3))
def test_all_files_of_an_image_count(files, changed, through_link):
    path = files[0].parent / "elsewhere" / "link.ome.tif" if through_link else files[0]
    np.testing.assert_array_equal(io.read(path).volume()[:, 0, 0], [0, 1, 2])
    before = fingerprint(path)
    (files[0].parent / "z3.ome.tif").write_bytes(files[2].read_bytes())  # of no concern
    assert fingerprint(path) == before
    status = files[changed].stat()
    os.utime(files[changed], ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    assert fingerprint(path) != before


def test_an_image_in_one_file(tmp_path):
    for name in ("a.tif", "a.ome.tif"):
        tifffile.imwrite(tmp_path / name, np.ones((3, 5, 7), "u2"), photometric="minisblack")
        before = fingerprint(tmp_path / name)
        assert fingerprint(tmp_path / name) == before
        os.utime(tmp_path / name, ns=(1, 1))
        assert fingerprint(tmp_path / name) != before
