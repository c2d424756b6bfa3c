"""Frames of every type in cubes of every type: exact values, rounded ones, and what is kept."""
import errno
import gzip
import io
import unittest

import mounted
import numpy as np
from astropy.io import fits
from corpus import assert_values, history, read_image
from frames import TYPES, fits_bytes, generator, npy_bytes
from mounted import OneMountTest, fails, last_error, meta, put, run, temporary_directory


def extremes(dtype):
    """Values around every bound of every type, as far as `dtype` has them."""
    dtype = np.dtype(dtype)
    numbers = {0, 1, -1, 2, 3, 5, 100, -100}
    for bits in (7, 8, 15, 16, 24, 31, 32, 53, 63, 64):
        for sign in (1, -1):
            numbers |= {sign * (2 ** bits) + d for d in (-2, -1, 0, 1, 2, 3)}
    if dtype.kind != "f":
        info = np.iinfo(dtype)
        values = [n for n in sorted(numbers) if info.min <= n <= info.max]
        return np.array(values, dtype)
    values = [dtype.type(n) for n in sorted(numbers)]
    values += [dtype.type(x) for x in (0.5, 1.5, 2.5, -0.5, -1.5, 254.5, 255.5, 0.1, 1e-300, 1e-40, 1e30,
                                       -1e30, 1e300, -1e300, np.inf, -np.inf, np.nan, -0.0, 126.5, 127.5)]
    return np.array(values, dtype)


def nearest(values, target):
    """The nearest of `target`, and which of `values` have become others."""
    target = np.dtype(target)
    source = values.dtype
    if source.kind == "f" and target.kind == "f":
        largest = source.type(np.finfo(target).max) if source.itemsize > target.itemsize else np.inf
        inside = np.where(np.isfinite(values), np.clip(values, -largest, largest), values)
        result = inside.astype(target)
        return result, (result.astype(source) != values) & ~np.isnan(values)
    if target.kind == "f":
        result = values.astype(target)
        changed = [r.item() != v.item() for r, v in zip(result.ravel(), values.ravel())]
        return result, np.array(changed).reshape(values.shape)
    info = np.iinfo(target)
    result, changed = [], []
    for value in values.ravel():
        if source.kind == "f" and np.isnan(value):
            result.append(0)  # meta/pad
            changed.append(True)
            continue
        whole = np.rint(value) if source.kind == "f" else value
        whole = int(whole) if np.isfinite(whole) else 2 ** 99 * int(np.sign(whole))
        result.append(min(max(whole, info.min), info.max))
        changed.append(result[-1] != value.item())  # Python compares integers and floats exactly
    return (np.array(result, target).reshape(values.shape),
            np.array(changed).reshape(values.shape))


def as_number(text):
    return float(text) if not text.lstrip("+-").isdigit() else int(text)


class Conversions(OneMountTest):
    def setUp(self):
        self.rng = generator()
        self.count = 0

    def fresh(self, **properties):
        self.count += 1
        cube = self.m.cube(f"{self.id().rsplit('.', 1)[1]}{self.count}")
        for name, value in properties.items():
            put(cube, name, value)
        return cube

    def pairs(self):
        for source in TYPES:
            for target in TYPES:
                values = extremes(source)
                with np.errstate(all="ignore"):
                    converted, changed = nearest(values, target)
                yield source, target, values, converted, changed

    @staticmethod
    def frames(values):
        """As FITS and as NPY, of either byte order: name and content."""
        plane = values.reshape(1, -1)
        yield "f.fits", fits_bytes(plane)
        yield "f.npy", npy_bytes(plane)
        yield "b.npy", npy_bytes(plane.astype(plane.dtype.newbyteorder(">")))

    def test_exact(self):
        with temporary_directory() as base:
            for _, target, values, converted, changed in self.pairs():
                for name, content in self.frames(values[~changed]):
                    cube = self.fresh(dtype=target)
                    (base / name).write_bytes(content)
                    run("cp", base / name, cube / "append")
                    self.assertEqual(meta(cube, "dtype"), target)
                    assert_values(np.load(cube / "cube.npy").ravel(), converted[~changed])
                    run("cmp", base / name, cube / "append" / name)

    def test_inexact_is_refused_by_its_first_value(self):
        with temporary_directory() as base:
            for source, target, values, _, changed in self.pairs():
                if not changed.any():
                    continue
                values = self.rng.permutation(values)
                with np.errstate(all="ignore"):
                    changed = nearest(values, target)[1]
                first = int(np.argmax(changed))
                for name, content in self.frames(values):
                    cube = self.fresh(dtype=target)
                    before = meta(cube, "bytes")
                    (base / name).write_bytes(content)
                    fails("cp", base / name, cube / "append", because=errno.EINVAL)
                    sentence = last_error(cube)
                    self.assertIn(f"the frame's elements are {source}, the cube's are {target}", sentence)
                    text = sentence.split("which cannot hold ")[1].split(" at (")[0]
                    self.assertIn(f" at ({first}, 0, 0)", sentence)
                    np.testing.assert_equal(values.dtype.type(as_number(text)), values[first])
                    self.assertEqual(meta(cube, "shape"), "")
                    mounted.wait_until(lambda: meta(cube, "bytes") == before, "its space is free", 10)

    def test_nearest(self):
        with temporary_directory() as base:
            for _, target, values, converted, changed in self.pairs():
                for name, content in self.frames(values):
                    cube = self.fresh(dtype=target, convert="nearest")
                    (base / name).write_bytes(content)
                    run("cp", base / name, cube / "append")
                    assert_values(np.load(cube / "cube.npy").ravel(), converted)
                    run("cmp", base / name, cube / "append" / name)
                    last = history(cube)[-1]
                    said = (f"{changed.sum()} values are not those of the file but the nearest {target} "
                            "(meta/convert)")
                    self.assertEqual(last.get("sentence", ""), said if changed.any() else "")
                    self.assertEqual((cube / "last-error").read_text(), "")

    def test_nearest_with_a_pad_for_nan(self):
        cube = self.fresh(dtype="int16", convert="nearest", pad="-7")
        (cube / "append/f.npy").write_bytes(npy_bytes(np.array([[np.nan, 1.5, -np.inf]])))
        assert_values(np.load(cube / "cube.npy").ravel(), np.array([-7, 2, -32768], "int16"))

    def test_the_second_frame_may_have_another_type(self):
        cube = self.fresh()
        (cube / "append/a.fits").write_bytes(fits_bytes(np.ones((3, 4), "float32")))
        (cube / "append/b.fits").write_bytes(fits_bytes(np.full((3, 4), 7, "int16")))
        with self.assertRaises(OSError):
            (cube / "append/c.fits").write_bytes(fits_bytes(np.full((3, 4), (1 << 24) + 1, "int32")))
        self.assertIn("cannot hold 16777217 at (0, 0, 0)", last_error(cube))
        self.assertEqual(meta(cube, "shape"), "4 3 2")
        assert_values(np.load(cube / "cube.npy")[1], np.full((3, 4), 7, "float32"))

    def test_without_residue_the_frame_is_a_canonical_file(self):
        with temporary_directory() as base:
            for _, target, values, converted, _ in self.pairs():
                for name, content in self.frames(values):
                    cube = self.fresh(dtype=target, convert="nearest", residue="drop")
                    (base / name).write_bytes(content)
                    run("cp", base / name, cube / "append")
                    assert_values(np.load(cube / "cube.npy").ravel(), converted)
                    self.check_canonical(cube, name, converted.reshape(1, -1), content)

    def check_canonical(self, cube, name, plane, original):
        """What can be made again of the cube's elements stays as it came, but for what follows."""
        file = cube / "append" / name
        if name.endswith(".npy"):
            found = np.load(file)
            found = found.astype(found.dtype.newbyteorder("="))
        else:
            found = read_image(file)
            said = run("fitsverify", file, check=False).stdout.decode()
            self.assertIn(" 0 warning(s) and 0 error(s)", said, said)
        if not original.startswith(file.read_bytes()):
            self.assertEqual(found.dtype, plane.dtype)
        with np.errstate(all="ignore"):
            assert_values(found.astype(plane.dtype), plane)
        self.assertEqual(file.stat().st_size, len(file.read_bytes()))

    def test_without_residue_of_files_that_are_more_than_an_image(self):
        array = self.rng.integers(-3000, 3000, (30, 40), "int16")
        scaled = fits.ImageHDU(array, name="SCI")
        cards = {"LONGSTRN": "OGIP 1.0", "OBJECT": "M 42", "EXPTIME": 30.5, "LONG": "long" * 30}
        scaled.header.update(cards)
        table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=np.arange(9))])
        plain = fits.PrimaryHDU(array, scaled.header)
        packed = fits.CompImageHDU(array, scaled.header)
        floats = fits.CompImageHDU(array.astype("f4"), scaled.header)
        with temporary_directory() as base:
            def check(name, content, dtype="int16"):
                for label, wanted in (("same", None), ("float64", "float64"), ("uint8", "uint8")):
                    with self.subTest(name, to=label):
                        cube = self.fresh(residue="drop", convert="nearest")
                        if wanted:
                            put(cube, "dtype", wanted)
                        (base / name).write_bytes(content)
                        run("cp", base / name, cube / "append")
                        plane = np.load(cube / "cube.npy")[0]
                        self.assertEqual(str(plane.dtype), wanted or dtype)
                        self.check_canonical(cube, name, plane, content)
                        header = fits.getheader(cube / "append" / name)
                        self.assertEqual({key: header[key] for key in cards}, cards)

            for checksum in (False, True):
                def made(*hdus):
                    target = io.BytesIO()
                    fits.HDUList(list(hdus)).writeto(target, checksum=checksum)
                    return target.getvalue()

                one = made(plain)
                check("plain.fits", one)
                check("table behind.fits", made(plain, table))
                check("extension.fits", made(fits.PrimaryHDU(), scaled, table))
                check("packed.fits", made(fits.PrimaryHDU(), packed))
                check("floats.fits", made(fits.PrimaryHDU(), floats), "float32")
                check("gzip.fits.gz", gzip.compress(one))
                check("both.fits.gz", gzip.compress(made(fits.PrimaryHDU(), packed, table)))
                check("junk.fits", one + b"junk")
                check("unpadded.fits", one[:one.index(b"END" + b" " * 77) // 2880 * 2880 + 2880
                                           + array.nbytes])
                scaling = one.replace(b"EXTNAME = 'SCI     '", b"BSCALE  = 0.25      ")
                if not checksum:
                    check("scaled.fits", scaling, "float32")


if __name__ == "__main__":
    mounted.main()
