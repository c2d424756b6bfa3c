"""Frames from real telescopes: each is taken with equal data, or refused with a sentence.

They come with Debian's python3-astropy, and with python3-reproject, python3-ccdproc and
python3-photutils where those are installed; ACCRETE_REAL_FRAMES names a directory with more.
"""
import collections
import gzip
import os
import pathlib
import unittest

import warnings

import astropy
import mounted
import numpy as np
from astropy.io import fits
from frames import assert_same, read_fits
from mounted import Mounted, last_error, meta, run, shape_of, temporary_directory

PACKAGES = pathlib.Path(astropy.__file__).parent.parent
ASTROPY = PACKAGES / "astropy"
# Images without compression and scaling, of telescopes and surveys: these must be taken.
MUST = ["modeling/tests/data/1904-66_AZP.fits", "io/fits/tests/data/o4sp040b0_raw.fits",
        "io/fits/tests/data/fixed-1890.fits", "io/fits/tests/data/test0.fits",
        "io/fits/tests/data/arange.fits", "nddata/tests/data/sip-wcs.fits",
        "wcs/tests/data/dist.fits", "wcs/tests/data/ie6d07ujq_wcs.fits",
        "io/fits/tests/data/checksum.fits"]


def every_file():
    roots = [PACKAGES / p for p in ("astropy", "reproject", "ccdproc", "photutils")]
    if "ACCRETE_REAL_FRAMES" in os.environ:
        roots.append(pathlib.Path(os.environ["ACCRETE_REAL_FRAMES"]))
    for root in roots:
        yield from sorted(p for p in root.rglob("*") if p.name.lower().endswith(
            (".fits", ".fit", ".fts", ".fits.gz")))


def first_image(path):
    """The data of the first image that has some, raw as stored in its type; None if there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with fits.open(path, memmap=False, ignore_blank=True) as hdus:
                for hdu in hdus:
                    if isinstance(hdu, (fits.PrimaryHDU, fits.ImageHDU)) \
                            and not isinstance(hdu, fits.CompImageHDU) \
                            and not isinstance(hdu, fits.GroupsHDU) and hdu.data is not None and hdu.data.size:
                        return hdu.data.astype(hdu.data.dtype.newbyteorder("=")), hdu.header.copy()
        except Exception:  # pylint: disable=broad-except
            pass  # astropy ships broken files, too
    return None


class RealFrames(unittest.TestCase):
    def test_every_file_is_taken_right_or_refused_with_a_sentence(self):
        outcome = collections.Counter()
        taken = []
        with Mounted() as m, temporary_directory() as base:
            for i, path in enumerate(every_file()):
                data = path.read_bytes()
                if path.name.endswith(".gz"):
                    data = gzip.decompress(data)
                source = base / f"frame{i}.fits"
                source.write_bytes(data)
                cube = m.cube(f"cube{i}")
                result = run("cp", source, cube / "append", check=False)
                image = first_image(source)
                name = str(path.relative_to(path.parents[-4] if len(path.parents) > 4 else "/"))
                with self.subTest(name):
                    if result.returncode != 0:
                        outcome["refused"] += 1
                        self.assertEqual(meta(cube, "shape"), "")
                        sentence = last_error(cube)
                        self.assertGreater(len(sentence), 10)
                        print(f"refused {name}: {sentence}")
                        continue
                    outcome["taken"] += 1
                    taken.append(path)
                    self.assertIsNotNone(image, "taken, though astropy finds no image in it")
                    self.check(cube, source, *image)
            print(dict(outcome))
            for name in MUST:
                self.assertIn(ASTROPY / name, taken)
            m.remount()
            run("find", m.mnt, "-name", "cube.fits", "-exec", "cat", "{}", "+")

    def check(self, cube, source, data, header):
        run("cmp", source, cube / "append" / source.name)
        expected = data if data.ndim > 2 else data[None]
        self.assertEqual(shape_of(cube), list(reversed(expected.shape)))
        assert_same(np.load(cube / "cube.npy"), expected)
        assert_same(read_fits(cube / "cube.fits"), expected)
        said = run("fitsverify", cube / "cube.fits", check=False).stdout.decode()
        # Headers of old files may break rules of today; ours are not to add to that.
        original = run("fitsverify", source, check=False).stdout.decode()
        if " 0 error(s)" in original:
            self.assertIn(" 0 error(s)", said, said)
        if data.ndim == 2:
            plane = fits.getheader(cube / "slices/xy/z0.fits")
            for key in ("OBJECT", "TELESCOP", "DATE-OBS", "CTYPE1", "CRPIX1", "EXPTIME"):
                if key in header:
                    self.assertEqual(plane[key], header[key], key)

    def test_compressed_images_of_the_sky_unpacked_first(self):
        """M13 and a piece of the sky survey come compressed: as plain files they are frames."""
        with Mounted() as m, temporary_directory() as base:
            with fits.open(ASTROPY / "io/fits/tests/data/comp.fits") as hdus:
                m13 = hdus[1].data.astype("int16")
                fits.writeto(base / "m13.fits", m13, hdus[1].header)
            with gzip.open(ASTROPY / "wcs/tests/data/dss.14.29.56-62.41.05.fits.gz") as packed:
                (base / "dss.fits").write_bytes(packed.read())
            for name in ("m13", "dss"):
                with self.subTest(name):
                    cube = m.cube(name)
                    for i in range(3):
                        run("cp", base / f"{name}.fits", cube / f"append/{name}-{i}.fits")
                    image, _ = first_image(base / f"{name}.fits")
                    self.assertEqual(shape_of(cube), [*reversed(image.shape), 3])
                    assert_same(read_fits(cube / "slices/xy/z2.fits"), image)
                    assert_same(np.load(cube / "slices/yx/z1.npy"), np.ascontiguousarray(image.T))


if __name__ == "__main__":
    mounted.main()
