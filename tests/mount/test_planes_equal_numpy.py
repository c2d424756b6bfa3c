"""What views show equals what numpy computes from the original frames, bit for bit."""
import os
import unittest

import mounted
import numpy as np
from frames import (LETTERS, TYPES, assert_same, cut, fits_bytes, generator, npy_bytes,
                    random_array, read_view, view_name, write_series)
from mounted import Mounted, meta, run, scaled, shape_of, temporary_directory

EXTENSIONS = ["fits", "npy", "raw"]


def check_view(cube_path, cube, axes, fixed, ranges=None, extension="npy"):
    name = f"{view_name(axes, fixed, ranges)}.{extension}"
    expected = cut(cube, axes, fixed, ranges)
    found = read_view(cube_path / "slices" / name, cube.dtype, expected.shape)
    assert_same(found, expected, name)


def check_random_views(rng, cube_path, cube, count, extensions=tuple(EXTENSIONS)):
    """Any axes in any order, the others fixed, some of the spanned ones cut."""
    letters = LETTERS[: cube.ndim]
    extent = dict(zip(letters, reversed(cube.shape)))
    for _ in range(count):
        axes = "".join(rng.permutation(list(letters))[: rng.integers(1, cube.ndim + 1)])
        fixed = {a: int(rng.integers(extent[a])) for a in letters if a not in axes}
        ranges = {}
        for a in axes:
            if len(axes) == cube.ndim or rng.random() < 0.3:
                begin, end = sorted(rng.choice(extent[a] + 1, 2, replace=False))
                ranges[a] = (int(begin), int(end))
        check_view(cube_path, cube, axes, fixed, ranges, str(rng.choice(list(extensions))))


class Large(unittest.TestCase):
    def test_two_thousand_frames_with_one_cp(self):
        count = scaled(2000, 70)
        with Mounted() as m, temporary_directory() as base:
            run(mounted.program("ACCRETE_SIMULATE"), "--frames", count, "--size", "512x512",
                base / "frames")
            paths = sorted((base / "frames").iterdir())
            cube = m.cube("m42")
            run("cp", *paths, cube / "append")
            self.assertEqual(meta(cube, "shape"), f"512 512 {count}")
            self.assertEqual(meta(cube, "dtype"), "float32")
            rows = [image_of(p) for p in paths]
            rng = generator()
            for _ in range(10):
                x, y, z = (int(rng.integers(n)) for n in (512, 512, count))
                ext = str(rng.choice(EXTENSIONS))
                self.same(cube, f"xy/z{z:06}.{ext}", rows[z][:])
                self.same(cube, f"yx/z{z}.{ext}", rows[z][:].T)
                self.same(cube, f"x/z{z:06}/y{y:06}.{ext}", rows[z][y])
                self.same(cube, f"y/x{x:06}_z{z:06}.{ext}", rows[z][:, x])
                self.same(cube, f"z/x{x:06}/y{y:06}.{ext}", np.array([r[y, x] for r in rows]))
                self.same(cube, f"zx/y{y:06}.{ext}", np.array([r[y] for r in rows]).T)
                self.same(cube, f"xz/y{y:06}.{ext}", np.array([r[y] for r in rows]))
                z1 = min(count, z + 50)
                self.same(cube, f"xyz/x{x}.._y..{y + 1}_z{z}..{z1}.{ext}",
                          np.array([r[: y + 1, x:] for r in rows[z:z1]]))

    def same(self, cube, name, expected):
        expected = np.ascontiguousarray(expected.astype(np.float32))
        assert_same(read_view(cube / "slices" / name, np.float32, expected.shape), expected, name)


def image_of(path):
    """The pixels of a simulated frame, mapped: they follow the header of whole 2880-byte records."""
    with open(path, "rb") as file:
        header = 0
        while b"END" + b" " * 77 not in file.read(2880):
            header += 2880
    return np.memmap(path, ">f4", "r", offset=header + 2880, shape=(512, 512))


class Types(unittest.TestCase):
    def grow(self, m, name, frames, as_bytes=fits_bytes, extension="fits"):
        """Copies frames in with one cp and returns the cube's directory."""
        cube = m.cube(name)
        with temporary_directory() as base:
            for i, frame in enumerate(frames):
                (base / f"f{i:05}.{extension}").write_bytes(as_bytes(frame))
            run("cp", *sorted(base.iterdir()), cube / "append")
            for path in sorted(base.iterdir()):
                run("cmp", path, cube / "append" / path.name)
        return cube

    def test_all_ten_types_as_fits(self):
        rng = generator(1)
        with Mounted() as m:
            for dtype in TYPES:
                with self.subTest(dtype):
                    frames = random_array(rng, (70, 33, 47), dtype)
                    cube = self.grow(m, dtype, frames)
                    self.assertEqual(meta(cube, "shape"), "47 33 70")
                    self.assertEqual(meta(cube, "dtype"), dtype)
                    check_random_views(rng, cube, frames, scaled(40, 15))
                    for z in (0, 17, 69):
                        check_view(cube, frames, "xy", {"z": z}, extension="fits")
                    check_view(cube, frames, "zx", {"y": 5}, extension="txt")
                    for extension in EXTENSIONS:
                        assert_same(read_view(cube / f"cube.{extension}", dtype, frames.shape),
                                    frames, f"cube.{extension}")

    def test_npy_in_both_byte_orders_and_fortran_order(self):
        rng = generator(2)
        with Mounted() as m:
            for dtype in TYPES:
                for order in "<>":
                    for layout in "CF":
                        with self.subTest(f"{dtype}{order}{layout}"):
                            frames = random_array(rng, (5, 12, 31), dtype)
                            stored = frames.astype(frames.dtype.newbyteorder(order))
                            cube = self.grow(
                                m, f"{dtype}{'le' if order == '<' else 'be'}{layout}", stored,
                                lambda a, f=layout: npy_bytes(np.asarray(a, order=f)), "npy")
                            self.assertEqual(shape_of(cube), [31, 12, 5])
                            check_random_views(rng, cube, frames, scaled(10, 5))

    def test_npy_and_fits_and_raw_frames_in_one_cube(self):
        rng = generator(3)
        frames = random_array(rng, (9, 20, 30), "int16")
        makers = [fits_bytes, npy_bytes, lambda a: a.tobytes(),
                  lambda a: npy_bytes(np.asfortranarray(a).astype(">i2"))]
        for first in (0, 1):
            with Mounted() as m:
                cube = m.cube("mixed")
                for i, frame in enumerate(frames):
                    maker = makers[first] if i == 0 else makers[i % len(makers)]
                    # Raw bytes are taken only when they are like the frame before: of native order.
                    data = maker(frame)
                    (cube / "append" / f"frame{i}").write_bytes(data)
                    self.assertEqual((cube / "append" / f"frame{i}").read_bytes(), data)
                check_random_views(rng, cube, frames, 20)

    def test_a_cube_of_lines(self):
        rng = generator(4)
        with Mounted() as m:
            lines = random_array(rng, (200, 77), "float64")
            cube = self.grow(m, "lines", lines)
            self.assertEqual(meta(cube, "shape"), "77 200")
            check_random_views(rng, cube, lines, scaled(30, 10))
            for extension in EXTENSIONS:
                assert_same(read_view(cube / f"cube.{extension}", "float64", lines.shape), lines)

    def test_a_cube_of_five_axes(self):
        rng = generator(5)
        with Mounted() as m:
            parts = random_array(rng, (6, 2, 4, 5, 6, 7), "uint16")  # six frames of 2x4x5x6x7
            cube = self.grow(m, "five", parts)
            whole = parts.reshape(12, 4, 5, 6, 7)
            self.assertEqual(meta(cube, "shape"), "7 6 5 4 12")
            check_random_views(rng, cube, whole, scaled(120, 40))
            assert_same(read_view(cube / "cube.fits", "uint16", whole.shape), whole)

    def test_cubes_of_one_to_eight_axes(self):
        rng = generator(6)
        with Mounted() as m:
            for rank in range(1, 9):
                frame_rank = rank - 1 if rank in (2, 3) else rank
                if rank == 1:
                    continue  # a frame of one axis makes a cube of two
                with self.subTest(rank=rank):
                    shape = tuple(int(n) for n in rng.integers(2, 5, frame_rank))
                    frames = random_array(rng, (5, *shape), "int32")
                    cube = self.grow(m, f"rank{rank}", frames, npy_bytes, "npy")
                    whole = frames if frame_rank < rank else frames.reshape(-1, *shape[1:])
                    self.assertEqual(shape_of(cube), list(reversed(whole.shape)))
                    check_random_views(rng, cube, whole, scaled(25, 10))

    def test_frames_of_odd_sizes(self):
        rng = generator(7)
        with Mounted() as m:
            for i, shape in enumerate([(1, 1), (1, 5), (5, 1), (3, 4097), (700, 3), (1025, 63)]):
                with self.subTest(shape=shape):
                    frames = random_array(rng, (67, *shape), "float32")
                    cube = self.grow(m, f"odd{i}", frames)
                    check_random_views(rng, cube, frames, scaled(15, 6))

    def test_slabs_of_several_planes(self):
        rng = generator(8)
        with Mounted() as m:
            slabs = [random_array(rng, (n, 13, 17), "float32") for n in (3, 1, 65, 2, 130)]
            cube = self.grow(m, "slabs", slabs)
            whole = np.concatenate(slabs)
            self.assertEqual(shape_of(cube), [17, 13, len(whole)])
            check_random_views(rng, cube, whole, scaled(40, 15))


class Series(unittest.TestCase):
    def test_reading_at_any_offset_and_size(self):
        rng = generator(9)
        frames = random_array(rng, (66, 37, 53), "uint16")
        with Mounted() as m, temporary_directory() as base:
            cube = m.cube("c")
            run("cp", *write_series(base, frames), cube / "append")
            for name in ["cube.fits", "cube.npy", "cube.raw", "slices/zyx/x0...fits",
                         "slices/yzx/z1...txt", "slices/zx/y000005.npy", "slices/xy/z000065.fits"]:
                whole = (cube / name).read_bytes()
                self.assertEqual(len(whole), (cube / name).stat().st_size, name)
                file = os.open(cube / name, os.O_RDONLY)
                for _ in range(scaled(60, 20)):
                    at = int(rng.integers(len(whole) + 10))
                    n = int(2 ** rng.uniform(0, 21))
                    self.assertEqual(os.pread(file, n, at), whole[at: at + n], (name, at, n))
                os.close(file)


if __name__ == "__main__":
    mounted.main()
