"""Growth along every axis, at both ends and in the interior, by frames of every extent."""
import errno
import itertools
import os
import random
import subprocess
import time
import unittest

import mounted
import numpy as np
from astropy.io import fits
from frames import (LETTERS, SEED, assert_same, cut, fits_bytes, generator, random_array,
                    read_fits, read_view, view_name, write_fits)
from growing import GrowingTest, Model, door, frame_table, stored_bytes
from mounted import (Mounted, errno_of, last_error, meta, put, run, scaled, shape_of,
                     temporary_directory)

TYPES = ["uint8", "int16", "float32", "float64", "uint16", "int64", "int8", "uint32"]


class EveryAxis(GrowingTest):
    def grow(self, shape, dtype, most=5):
        """Along each axis at the start, at the end and between, into one cube."""
        rank = len(shape)
        put(self.cube, "axes", " ".join(LETTERS[:rank]))
        expected = random_array(self.rng, shape, dtype)
        run("cp", self.file(expected), self.cube / "append")
        chance = random.Random(SEED)
        places = [(axis, place) for axis in range(rank)
                  for place in chance.sample(("append", "prepend", 0.0, 0.5, 1.0), most)]
        chance.shuffle(places)
        for turn, (axis, place) in enumerate(places):
            dimension = rank - 1 - axis  # numpy's
            extent = list(expected.shape)
            extent[dimension] = int(self.rng.integers(1, 3))
            slab = random_array(self.rng, extent, dtype)
            end = expected.shape[dimension]
            index = {"append": end, "prepend": 0}.get(place)
            side = place
            if index is None:
                side, index = "insert", round(place * end)
            path = door(side, LETTERS[axis], index if side == "insert" else None)
            run("cp", self.file(slab, kind=("fits", "npy")[turn % 2]), self.cube / path)
            first, second = np.split(expected, [index], dimension)
            expected = np.concatenate([first, slab, second], dimension)
            self.assertEqual(shape_of(self.cube), list(reversed(expected.shape)))
            assert_same(np.load(self.cube / "cube.npy"), expected, path)
        return expected

    def show(self, expected):
        """Planes, lines, elements and cut-outs, in all formats, agree with numpy."""
        rank = expected.ndim
        letters = LETTERS[:rank]
        assert_same(read_fits(self.cube / "cube.fits"), expected)
        assert_same(read_view(self.cube / "cube.raw", expected.dtype, expected.shape), expected)
        for axes in itertools.chain(itertools.permutations(letters, 1),
                                    itertools.permutations(letters, 2)):
            fixed = {a: int(self.rng.integers(expected.shape[rank - 1 - letters.index(a)]))
                     for a in letters if a not in axes}
            path = self.cube / f"slices/{view_name(''.join(axes), fixed)}"
            if not fixed:
                continue
            wanted = np.ascontiguousarray(cut(expected, "".join(axes), fixed))
            for extension in ("npy", "raw"):
                assert_same(read_view(f"{path}.{extension}", expected.dtype, wanted.shape), wanted,
                            f"{path.name}.{extension}")

    def test_one_axis(self):
        self.show(self.grow((3,), "int16"))

    def test_two_axes(self):
        self.show(self.grow((3, 4), "float32"))

    def test_three_axes(self):
        self.show(self.grow((2, 3, 4), "uint16"))

    def test_four_axes(self):
        self.show(self.grow((2, 1, 3, 2), "float64"))

    def test_five_axes(self):
        self.show(self.grow((1, 2, 1, 2, 3), "uint8"))

    def test_eight_axes(self):
        expected = self.grow((1, 1, 1, 1, 1, 1, 1, 1), "int8", most=2)
        self.assertEqual(expected.ndim, 8)
        assert_same(read_fits(self.cube / "cube.fits"), expected)

    def test_every_type(self):
        for dtype in TYPES:
            with self.subTest(dtype):
                self.cube = self.m.cube(f"of-{dtype}")
                frames = random_array(self.rng, (5, 3, 4), dtype)
                for i, side in ((2, "append"), (1, "prepend"), (0, "prepend/z"), (4, "append/z"),
                                (3, "insert/z/3")):
                    run("cp", self.file(frames[i]), self.cube / side)
                assert_same(np.load(self.cube / "cube.npy"), frames)

    def test_many_serial_growths_at_one_side(self):
        frames = random_array(self.rng, (200, 7, 5), "int16")
        paths = [self.file(frame) for frame in frames]
        run("cp", *paths[100:], self.cube / "append")
        run("cp", *reversed(paths[:100]), self.cube / "prepend")
        assert_same(np.load(self.cube / "cube.npy"), frames)
        columns = random_array(self.rng, (90, 200, 7, 1), "int16")
        run("cp", *[self.file(c) for c in columns[:45]], self.cube / "append/x")
        run("cp", *[self.file(c) for c in columns[45:]], self.cube / "prepend/x")
        expected = np.concatenate([*columns[:44:-1], frames, *columns[:45]], 2)
        assert_same(np.load(self.cube / "cube.npy"), expected)
        self.m.remount()
        assert_same(np.load(self.cube / "cube.npy"), expected)

    def test_other_programs_at_every_side(self):
        expected = random_array(self.rng, (4, 5), "float32")
        run("cp", self.file(expected), self.cube / "append")
        expected = expected[None]
        for turn, (side, copy) in enumerate(itertools.product(
                ("append/z", "prepend", "insert/z/1"),
                (["mv"], ["rsync", "-a"], ["install", "-m", "640"], ["cp", "-p"], ["fitscopy"],
                 ["rsync", "-a", "--inplace"], ["cp", "--sparse=always"]))):
            frame = random_array(self.rng, (4, 5), "float32")
            path = self.file(frame)
            run(*copy, path, self.cube / side / (path.name if copy[0] != "rsync" else ""))
            at = {"append/z": turn + 1, "prepend": 0, "insert/z/1": 1}[side]
            expected = np.insert(expected, at, frame, 0)
            assert_same(np.load(self.cube / "cube.npy"), expected, f"{copy} {side}")

    def test_numpy_and_astropy_at_every_side(self):
        first, second, third, fourth = random_array(self.rng, (4, 3, 2), "float64")
        np.save(self.cube / "prepend/second.npy", second)
        fits.writeto(self.cube / "prepend/z/first.fits", first)
        fits.writeto(self.cube / "insert/z/2/fourth.fits", fourth)
        third.tofile(self.cube / "insert/z/2/third.raw")
        assert_same(np.load(self.cube / "cube.npy"), np.stack([first, second, third, fourth]))


class Doors(GrowingTest):
    def test_before_the_first_frame(self):
        """Every door takes the first frame; the frame defines the cube as in append/."""
        frame = random_array(self.rng, (3, 4), "int16")
        for i, path in enumerate(("append/x", "append/z", "prepend", "prepend/y", "insert/z/0",
                                  "insert/x/0", "insert/y/000")):
            with self.subTest(path):
                cube = self.m.cube(f"first{i}")
                run("cp", self.file(frame), cube / path)
                self.assertEqual(meta(cube, "axes"), "x y z")
                assert_same(np.load(cube / "cube.npy"), frame[None])
        cube = self.m.cube("no-such-axis")
        self.refuse(self.file(frame), "append/w", errno.EINVAL, "axis", cube=cube)
        self.assertEqual(meta(cube, "shape"), "")
        for path in ("insert/z/1", "insert/q/0", "append/q", "prepend/xy"):
            self.assertFalse((cube / path).exists(), path)

    def test_axes_of_other_names(self):
        put(self.cube, "axes", "x y f s")
        model = Model(4, "float32", letters="xyfs")
        for i, (side, axis, index, shape) in enumerate((
                ("append", None, None, (3, 4)), ("append", "f", None, (2, 3, 4)),
                ("insert", "f", 1, (2, 1, 3, 4)), ("prepend", "s", None, (5, 4)),
                ("insert", "x", 2, (3, 1)), ("append", "y", None, (2, 4)))):
            array = random_array(self.rng, shape, "float32")
            path = self.file(array)
            run("cp", path, self.cube / door(side, axis, index))
            model.add(path.name, array, side, axis, index)
            model.check(self.cube, f"frame {i}")
        for letter in "zt":
            self.assertFalse((self.cube / "append" / letter).exists())

    def test_several_files_into_one_door(self):
        """Into the start, or in front of an index, they end in reverse."""
        a, b, c, d, e, f, g = random_array(self.rng, (7, 2, 3), "int16")
        run("cp", self.file(a), self.file(b), self.file(c), self.cube / "prepend")
        assert_same(np.load(self.cube / "cube.npy"), np.stack([c, b, a]))
        run("cp", self.file(d), self.file(e), self.cube / "insert/z/1")
        assert_same(np.load(self.cube / "cube.npy"), np.stack([c, e, d, b, a]))
        run("cp", self.file(f), self.file(g), self.cube / "append")
        whole = np.stack([c, e, d, b, a, f, g])
        assert_same(np.load(self.cube / "cube.npy"), whole)
        for axis, dimension in (("x", 2), ("y", 1)):
            shape = list(whole.shape)
            shape[dimension] = 1
            slabs = random_array(self.rng, (3, *shape), "int16")
            run("cp", *map(self.file, slabs), self.cube / f"prepend/{axis}")
            whole = np.concatenate([*reversed(slabs), whole], dimension)
            assert_same(np.load(self.cube / "cube.npy"), whole)
            shape[3 - dimension] = whole.shape[3 - dimension]
            slabs = random_array(self.rng, (3, *shape), "int16")
            run("cp", *map(self.file, slabs), self.cube / f"insert/{axis}/2")
            first, second = np.split(whole, [2], dimension)
            whole = np.concatenate([first, *reversed(slabs), second], dimension)
            assert_same(np.load(self.cube / "cube.npy"), whole)

    def test_indexes_of_insert(self):
        frames = list(random_array(self.rng, (3, 2, 3), "int16"))
        run("cp", *map(self.file, frames), self.cube / "append")
        for text, index in (("000001", 1), ("0", 0), ("00000000000000000000000000000002", 2),
                            ("6", 6)):
            frame = random_array(self.rng, (2, 3), "int16")
            run("cp", self.file(frame), self.cube / f"insert/z/{text}")
            frames.insert(index, frame)
            assert_same(np.load(self.cube / "cube.npy"), np.stack(frames))
        for text in ("8", "-1", "+1", "1 ", " 1", "0x1", "1.0", "one", "18446744073709551615",
                     "18446744073709551616", "99999999999999999999999999", "9223372036854775807",
                     "1..3"):
            with self.subTest(text):
                self.assertFalse((self.cube / "insert/z" / text).exists())
                self.assertEqual(errno_of(os.open, self.cube / f"insert/z/{text}/f",
                                          os.O_WRONLY | os.O_CREAT), "ENOENT")
        self.assertEqual(errno_of(os.open, self.cube / "insert/f", os.O_WRONLY | os.O_CREAT),
                         "EPERM")
        self.assertEqual(errno_of(os.open, self.cube / "insert/z/f", os.O_WRONLY | os.O_CREAT),
                         "EPERM")
        assert_same(np.load(self.cube / "cube.npy"), np.stack(frames))

    def test_an_index_that_is_gone_when_the_copy_ends(self):
        frames = random_array(self.rng, (4, 2, 3), "int16")
        paths = [self.file(frame) for frame in frames]
        run("cp", *paths, self.cube / "append")
        data = fits_bytes(frames[0])
        file = os.open(self.cube / "insert/z/4/late.fits", os.O_WRONLY | os.O_CREAT)
        try:
            os.write(file, data[:2890])
            os.unlink(self.cube / "append" / paths[1].name)
            os.write(file, data[2890:])
        finally:
            self.assertEqual(errno_of(os.close, file), "EINVAL")
        self.assertIn("3 indexes", last_error(self.cube))
        assert_same(np.load(self.cube / "cube.npy"), frames[[0, 2, 3]])

    def test_each_frame_stays_listed_in_its_door(self):
        frames = random_array(self.rng, (6, 2, 3), "int16")
        paths = {}
        doors = ["append", "append/z", "prepend", "prepend/z", "insert/z/1", "insert/z/2"]
        for frame, path in zip(frames, doors):
            paths[path] = self.file(frame)
            run("cp", paths[path], self.cube / path)
        for path in doors:
            self.assertEqual(os.listdir(self.cube / path), [paths[path].name], path)
            for other in doors:  # every door resolves every frame
                run("cmp", paths[path], self.cube / other / paths[path].name)
                self.assertEqual((self.cube / other / paths[path].name).stat().st_ino,
                                 (self.cube / "frames" / paths[path].name).stat().st_ino)
        self.assertEqual(os.listdir(self.cube / "insert/z/000002"), [paths["insert/z/2"].name])
        order = [paths[d].name for d in ("prepend/z", "insert/z/1", "insert/z/2", "prepend",
                                         "append", "append/z")]
        self.assertEqual(os.listdir(self.cube / "frames"), order)
        rows = frame_table(self.cube)
        self.assertEqual([row["name"] for row in rows], order)
        self.assertEqual([row["index"] for row in rows], [str(i) for i in range(6)])
        self.m.remount()
        for path in doors:
            self.assertEqual(os.listdir(self.cube / path), [paths[path].name], path)
        self.assertEqual(os.listdir(self.cube / "frames"), order)
        self.assertEqual(os.listdir(self.cube / "insert"), [])
        self.assertEqual(os.listdir(self.cube / "insert/z"), [])

    def test_rsync_again_into_each_door_sends_nothing(self):
        for path in ("append", "prepend", "append/x", "insert/y/0"):
            source = self.base / path.replace("/", "-")
            source.mkdir()
            for i in range(3):
                write_fits(source / f"{source.name}{i}.fits",
                           random_array(self.rng, (3, 4), "int16"))
            for expected in ("3", "0"):
                said = run("rsync", "-a", "--stats", f"{source}/", self.cube / path).stdout
                sent = said.decode().split("regular files transferred: ")[1].split("\n")[0]
                self.assertEqual(sent, expected, path)
        self.assertEqual(len(os.listdir(self.cube / "frames")), 12)

    def test_axis_letters_are_no_names_of_frames(self):
        path = self.file(random_array(self.rng, (3, 4), "int16"))
        run("cp", path, self.cube / "append")
        for letter in "xyz":
            self.assertEqual(errno_of(os.rename, self.cube / "frames" / path.name,
                                      self.cube / "frames" / letter), "EINVAL")
        run("cp", path, self.cube / "append/t")  # no axis of this cube
        self.assertEqual(sorted(os.listdir(self.cube / "append")), [path.name, "t"])

    def test_writers_at_all_doors_at_once(self):
        count = scaled(240, 80)
        frames = random_array(self.rng, (count, 6, 9), "int32")
        doors = ["append", "prepend", "insert/z/0", "append/z"]
        run("cp", self.file(frames[0]), self.cube / "append")
        paths = [self.file(frame) for frame in frames[1:]]
        lines = "".join(f"{p} {self.cube / doors[i % 4]}\n" for i, p in enumerate(paths))
        run("xargs", "-P4", "-L1", "cp", input=lines.encode())
        self.assertEqual(shape_of(self.cube), [9, 6, count])
        whole = np.load(self.cube / "cube.npy")
        rows = frame_table(self.cube)
        self.assertEqual(len({row["name"] for row in rows}), count)
        for row in rows:
            assert_same(whole[int(row["index"])], frames[int(row["name"][1:5])], row["name"])
        at = {row["name"]: int(row["index"]) for row in rows}
        middle = at["f0000.fits"]
        for i, path in enumerate(paths):
            self.assertEqual(at[path.name] > middle, doors[i % 4].startswith("append"), path.name)

    def test_writers_along_all_axes_at_once(self):
        """Whatever the order of commits, the frames' elements are there, once, and pad beside."""
        base = np.full((4, 4, 4), 1, "int32")
        run("cp", self.file(base), self.cube / "append")
        count = scaled(60, 30)
        lines, total = "", int(base.sum())
        for i in range(count):
            shape = self.rng.integers(1, 7, 3)
            array = np.full(shape, i + 2, "int32")
            total += int(array.sum())
            path = door(*[("append", "x"), ("prepend", "y"), ("insert", "z", 1),
                          ("append",), ("insert", "x", 2), ("prepend",)][i % 6])
            lines += f"{self.file(array)} {self.cube / path}\n"
        run("xargs", "-P4", "-L1", "cp", input=lines.encode())
        whole = np.load(self.cube / "cube.npy")
        self.assertEqual(int(whole.sum()), total)
        self.assertEqual(int(read_view(self.cube / "mask/xyz/x0...npy", None, None).sum()),
                         int((whole != 0).sum()))
        self.m.remount()
        assert_same(np.load(self.cube / "cube.npy"), whole)


class Mosaics(GrowingTest):
    def test_strips_at_all_sides_of_a_plane(self):
        put(self.cube, "axes", "x y")
        model = Model(2, "float32")
        for i, (path, shape) in enumerate((
                (("append",), (5, 7)), (("append", "x"), (5, 2)), (("prepend", "x"), (5, 3)),
                (("append", "y"), (2, 12)), (("prepend", "y"), (1, 12)),
                (("insert", "x", 4), (8, 2)), (("insert", "y", 3), (1, 14)))):
            array = random_array(self.rng, shape, "float32")
            source = self.file(array)
            run("cp", source, self.cube / door(*path))
            model.add(source.name, array, *path)
            model.check(self.cube, f"strip {i}")
        self.assertEqual(shape_of(self.cube), [14, 9])
        self.assertFalse(np.isnan(np.load(self.cube / "mask/xy/x0...npy")).any())

    def test_a_strip_of_two_axes_lies_in_the_first_plane(self):
        """Missing slowest axes are 1, whichever axis grows; trailing ones are accepted."""
        stack = random_array(self.rng, (3, 4, 5), "int16")
        run("cp", self.file(stack), self.cube / "append")
        for turn, shape in enumerate(((4, 2), (1, 4, 2), (1, 1, 4, 2), (1, 1, 1, 1, 1, 1, 4, 2))):
            strip = random_array(self.rng, shape, "int16")
            run("cp", self.file(strip), self.cube / "append/x")
            east = np.zeros((3, 4, 2), "int16")
            east[0] = strip.reshape(4, 2)
            stack = np.concatenate([stack, east], 2)
            assert_same(np.load(self.cube / "cube.npy"), stack, f"{shape}")
        line = random_array(self.rng, (13,), "int16")
        run("cp", self.file(line), self.cube / "prepend/y")
        south = np.zeros((3, 1, 13), "int16")
        south[0, 0] = line
        stack = np.concatenate([south, stack], 1)
        assert_same(np.load(self.cube / "cube.npy"), stack)
        self.refuse(self.file(np.zeros((2, 1, 4, 2), "int16")), "append/x", errno.EINVAL, "4 axes",
                    "3")

    def test_a_yz_plane_has_an_axis_of_one(self):
        stack = random_array(self.rng, (3, 4, 5), "float32")
        run("cp", self.file(stack), self.cube / "append")
        for path, index in (("append/x", 5), ("prepend/x", 0), ("insert/x/3", 3)):
            plane = random_array(self.rng, (3, 4, 1), "float32")
            run("cp", self.file(plane, kind="npy"), self.cube / path)
            stack = np.insert(stack, index, plane[:, :, 0], 2)
            assert_same(np.load(self.cube / "cube.npy"), stack, path)
            assert_same(np.load(self.cube / f"slices/yz/x{index}.npy"),
                        np.ascontiguousarray(plane[:, :, 0]))

    def test_fortran_order_and_big_endian(self):
        stack = random_array(self.rng, (3, 4, 5), "float64")
        np.save(self.cube / "append/a.npy", stack)
        east = random_array(self.rng, (3, 4, 2), "float64")
        np.save(self.cube / "append/x/b.npy", np.asfortranarray(east))
        west = random_array(self.rng, (3, 4, 1), "float64")
        np.save(self.cube / "prepend/x/c.npy", np.asfortranarray(west).astype(">f8"))
        assert_same(np.load(self.cube / "cube.npy"), np.concatenate([west, stack, east], 2))

    def test_tiles_of_a_survey(self):
        """A mosaic of 6 x 5 tiles, rows of which are put together in cubes of their own."""
        tiles = random_array(self.rng, (5, 6, 30, 40), "uint16")
        put(self.cube, "axes", "x y")
        for row in tiles:
            strip = self.m.cube("row")
            put(strip, "axes", "x y")
            put(strip, "grow", "x")
            run("cp", *map(self.file, row), strip / "append")
            run("cp", strip / "cube.fits", self.cube / "append/y" / f"row{self.count}.fits")
            self.count += 1
            run("rm", *[strip / "frames" / n for n in os.listdir(strip / "frames")])
            run("rm", *[strip / "removed" / n for n in os.listdir(strip / "removed")])
            run("rmdir", strip)
        assert_same(np.load(self.cube / "cube.npy"),
                    np.concatenate([np.concatenate(row, 1) for row in tiles], 0))


class Ragged(GrowingTest):
    PADS = {"float32": ["nan", "inf", "-inf", "-7", "12345.678", None],
            "float64": ["nan", "-7", None], "int16": ["-7", "32767", None], "uint8": ["255", None]}

    def test_smaller_and_larger_on_every_path(self):
        turn = 0
        for dtype, pads in self.PADS.items():
            for pad in pads:
                turn += 1
                rank = 2 + turn % 3
                with self.subTest(dtype=dtype, pad=pad, rank=rank):
                    self.one(f"of{turn}", dtype, pad, rank, random.Random(SEED + turn))

    def one(self, name, dtype, pad, rank, chance):
        cube = self.m.cube(name)
        put(cube, "axes", " ".join(LETTERS[:rank]))
        if pad is not None:
            put(cube, "pad", pad)
        model = Model(rank, dtype, None if pad is None else np.dtype(dtype).type(float(pad)))
        paths = [("append", None), ("append", None), ("prepend", None)]
        paths += [(side, axis) for side in ("append", "prepend", "insert", "insert")
                  for axis in LETTERS[:rank]]
        chance.shuffle(paths)
        for i, (side, axis) in enumerate(paths):
            index = chance.randint(0, len(model.shown(LETTERS.index(axis)))) \
                if side == "insert" else None
            shape = [chance.randint(1, 6) for _ in range(chance.randint(1, rank))]
            array = random_array(self.rng, shape, dtype)
            path = self.file(array, kind=chance.choice(["fits", "npy"]))
            run("cp", path, cube / door(side, axis, index))
            model.add(path.name, array, side, axis, index)
            self.assertEqual(shape_of(cube), model.shape())
            if i % 4 == 3:
                model.check(cube, f"frame {i}")
        model.check(cube, "at the end")
        letters = "".join(model.letters)
        assert_same(np.load(cube / f"mask/{letters}/x0...npy"), model.mask())
        assert_same(read_fits(cube / "cube.fits"), model.array())
        assert_same(np.array(float(meta(cube, "pad")), dtype), np.array(model.pad, dtype), "pad")
        self.m.remount()
        model.check(cube, "after a remount")

    def test_pad_is_fixed_by_the_first_frame(self):
        put(self.cube, "pad", "-7")
        run("cp", self.file(np.zeros((3, 4), "int16")), self.cube / "append")
        self.assertEqual(errno_of(put, self.cube, "pad", "3"), "EPERM")
        self.assertIn("first frame", last_error(self.cube))
        run("cp", self.file(np.ones((1, 1), "int16")), self.cube / "prepend")
        self.assertEqual(np.load(self.cube / "cube.npy")[0].tolist(),
                         [[1, -7, -7, -7], [-7] * 4, [-7] * 4])

    def test_pads_that_the_type_does_not_have(self):
        for dtype, pad in (("int16", "nan"), ("uint8", "-1"), ("uint8", "256"), ("int16", "0.5")):
            with self.subTest(dtype=dtype, pad=pad):
                cube = self.m.cube(f"{dtype}-{pad}")
                put(cube, "dtype", dtype)
                self.assertEqual(errno_of(put, cube, "pad", pad), "EINVAL")
                self.assertIn(pad, last_error(cube))

    def test_only_smaller_frames(self):
        put(self.cube, "ragged", "smaller")
        model = Model(3, "int16")

        def take(shape, *path):
            array = random_array(self.rng, shape, "int16")
            source = self.file(array)
            run("cp", source, self.cube / door(*path))
            model.add(source.name, array, *path)
            model.check(self.cube, f"{shape} into {path}")

        take((4, 5), "append")
        take((2, 3), "append")
        take((4, 5), "prepend")
        for shape, letter, extents in (((5, 5), "y", "54"), ((4, 6), "x", "65"),
                                       ((1, 9), "x", "95")):
            said = self.refuse(self.file(np.zeros(shape, "int16")), "append", errno.EINVAL,
                               f"axis {letter}", "meta/ragged", "larger", *extents)
            print(said)
        for path in ("prepend", "insert/z/1"):
            self.refuse(self.file(np.zeros((4, 6), "int16")), path, errno.EINVAL, "meta/ragged")
        # Across the axis that grows: y and z of a frame that grows x.
        take((3, 4, 9), "append", "x")
        take((2, 1, 1), "insert", "x", 2)
        self.refuse(self.file(np.zeros((4, 4, 1), "int16")), "append/x", errno.EINVAL, "axis z")
        self.refuse(self.file(np.zeros((1, 5, 1), "int16")), "prepend/x", errno.EINVAL, "axis y")
        self.m.remount()
        self.assertEqual(meta(self.cube, "ragged"), "smaller")
        self.refuse(self.file(np.zeros((4, 99), "int16")), "append", errno.EINVAL, "axis x")
        put(self.cube, "ragged", "pad")
        take((5, 99), "append")

    def test_no_ragged_frames(self):
        run("cp", self.file(random_array(self.rng, (4, 5), "int16")), self.cube / "append")
        put(self.cube, "ragged", "refuse")
        for shape, letter in (((4, 4), "x"), ((3, 5), "y"), ((4, 6), "x"), ((5, 5), "y"),
                              ((1,), "x")):
            for path in ("append", "prepend", "insert/z/0"):
                print(self.refuse(self.file(np.zeros(shape, "int16")), path, errno.EINVAL,
                                  f"axis {letter}", "meta/ragged"))
        self.refuse(self.file(np.zeros((2, 4, 7), "int16")), "append/x", errno.EINVAL, "axis z")
        run("cp", self.file(random_array(self.rng, (4, 5), "int16")), self.cube / "prepend")
        run("cp", self.file(random_array(self.rng, (2, 4, 7), "int16")), self.cube / "append/x")
        run("cp", self.file(random_array(self.rng, (3, 4, 12), "int16")), self.cube / "append")
        self.assertEqual(shape_of(self.cube), [12, 4, 5])

    def test_values_of_the_setting(self):
        self.assertEqual(meta(self.cube, "ragged"), "pad")
        for value in ("smaller", "refuse", "pad"):
            put(self.cube, "ragged", value + "\n")
            self.assertEqual(meta(self.cube, "ragged"), value)
        for value in ("larger", "\n", "PAD", "pad smaller"):
            self.assertEqual(errno_of(put, self.cube, "ragged", value), "EINVAL")
            self.assertIn("pad, smaller or refuse", last_error(self.cube))
        self.assertEqual(meta(self.cube, "ragged"), "pad")

    def test_a_frame_that_is_refused_late_changes_nothing(self):
        """While it comes in, another one makes it fit no more."""
        put(self.cube, "ragged", "refuse")
        data = fits_bytes(np.zeros((3, 4), "int16"))
        file = os.open(self.cube / "append/late.fits", os.O_WRONLY | os.O_CREAT)
        try:
            os.write(file, data[:2890])
            run("cp", self.file(np.ones((5, 6), "int16")), self.cube / "append")
            errno_of(os.write, file, data[2890:])
        finally:
            self.assertEqual(errno_of(os.close, file), "EINVAL")
        self.assertIn("meta/ragged", last_error(self.cube))
        self.assertEqual(shape_of(self.cube), [6, 5, 1])
        assert_same(np.load(self.cube / "cube.npy"), np.ones((1, 5, 6), "int16"))

    def test_pad_takes_no_space(self):
        for kind, shapes in {"crossed": [(1, 4000), (4000, 1)] * 20,
                             "larger": [(16 * i, 16 * i) for i in range(1, 41)],
                             "smaller": [(1200, 1200)] + [(2, 2)] * 40}.items():
            with self.subTest(kind):
                cube = self.m.cube(kind)
                given = 0
                for shape in shapes:
                    array = random_array(self.rng, shape, "float32")
                    given += array.nbytes
                    run("cp", self.file(array), cube / "append")
                logical = int(np.prod(shape_of(cube), dtype=np.int64)) * 4
                used = stored_bytes(cube)
                print(f"{kind}: {given} bytes given, {used} stored, {logical} shown")
                self.assertLess(used, 1.1 * given + 41 * 4096 + (1 << 20))
                self.assertLess(used, logical / 2)

    def test_strips_of_a_mosaic_take_no_more_than_they_hold(self):
        put(self.cube, "axes", "x y z")
        given = 0
        for i in range(24):
            path = [("append",), ("append", "x"), ("prepend", "y"), ("insert", "x", 3)][i % 4]
            array = random_array(self.rng, [(200, 300), (150, 40), (60, 500), (9, 200, 50)][i % 4],
                                 "float32")
            given += array.nbytes
            run("cp", self.file(array), self.cube / door(*path))
        used = stored_bytes(self.cube)
        print(f"{given} bytes given, {used} stored, shape {meta(self.cube, 'shape')}")
        self.assertLess(used, 1.3 * given + (1 << 20))


class Cost(GrowingTest):
    def test_no_growth_rewrites_what_is_there(self):
        """Small frames at all sides of 64 MiB: what the daemon wrote is about what they hold."""
        put(self.cube, "axes", "x y z")
        block = self.rng.integers(0, 1 << 30, (16, 1024, 1024), "int32")
        run("cp", self.file(block, kind="npy"), self.cube / "append")
        model = Model(3, "int32")
        model.add("block", block)
        sources = []
        for i in range(30):
            path = [("append", "x"), ("prepend", "x"), ("insert", "x", 500), ("append", "y"),
                    ("prepend", "y"), ("insert", "y", 77), ("append",), ("prepend",),
                    ("insert", "z", 5), ("insert", "z", 9)][i % 10]
            array = random_array(self.rng, (3, 2, 40), "int32")
            sources.append((self.file(array), path, array))
        before = self.m.bytes_written()
        for source, path, array in sources:
            run("cp", source, self.cube / door(*path))
            model.add(source.name, array, *path)
        written = self.m.bytes_written() - before
        print(f"{written} bytes written for 30 frames of {sources[0][0].stat().st_size}")
        self.assertLess(written, 8 << 20)
        self.assertEqual(shape_of(self.cube), model.shape())
        assert_same(np.load(self.cube / "cube.npy", mmap_mode="r")[::3], model.array()[::3])

    def test_a_view_that_is_open_keeps_showing_what_it_showed(self):
        stack = random_array(self.rng, (6, 64, 64), "float32")
        run("cp", self.file(stack), self.cube / "append")
        whole = np.load(self.cube / "cube.npy", mmap_mode="r")
        plane = np.load(self.cube / "slices/xy/z3.npy", mmap_mode="r")
        columns = np.load(self.cube / "slices/zx/y5.npy", mmap_mode="r")
        assert_same(np.array(plane), stack[3])
        for i, path in enumerate((("prepend",), ("insert", "z", 4), ("append", "x"),
                                  ("insert", "x", 3), ("prepend", "y"), ("append",))):
            array = random_array(self.rng, [(64, 64), (70, 70), (8, 64, 2)][i % 3], "float32")
            run("cp", self.file(array), self.cube / door(*path))
            assert_same(np.array(whole), stack)
            assert_same(np.array(plane), stack[3])
            assert_same(np.array(columns), np.ascontiguousarray(stack[:, 5, :].T))


class Kill(unittest.TestCase):
    def test_in_the_middle_of_growth_at_all_sides(self):
        chance = random.Random(SEED)
        rng = generator()
        script = 'while read -r f d; do cp "$f" "$d" || exit 1; echo "$f" >> "$1"; done'
        with Mounted() as m:
            cube = m.cube("c")
            put(cube, "axes", "x y z")
            model = Model(3, "int16")
            number = 0
            for turn in range(scaled(6, 3)):
                with temporary_directory() as base:
                    plan = []
                    trial = model
                    for _ in range(150):
                        side = chance.choice(["append", "prepend", "insert"])
                        axis = chance.choice("xyz") if side == "insert" \
                            else chance.choice([None, *"xyz"])
                        index = 0 if side == "insert" else None
                        array = random_array(rng, [chance.randint(1, 4) for _ in range(3)],
                                             "int16")
                        path = base / f"f{number:06}.fits"
                        number += 1
                        write_fits(path, array)
                        plan.append((path, array, side, axis, index))
                    (base / "done").touch()
                    copier = subprocess.Popen(["bash", "-c", script, "copy", base / "done"],
                                              stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
                    copier.stdin.write("".join(
                        f"{p} {cube / door(s, a, i)}\n" for p, _, s, a, i in plan).encode())
                    copier.stdin.close()
                    time.sleep(chance.uniform(0.02, 0.4) * (4 if mounted.SANITIZE else 1))
                    m.process.kill()
                    m.process.wait()
                    m.process = None
                    copier.wait(mounted.PATIENCE)
                    m.unmount_dead()
                    m.start()
                    done = len((base / "done").read_text().split())
                    there = set(os.listdir(cube / "frames"))
                    fresh = [step for step in plan if step[0].name in there]
                    print(f"round {turn}: cp had returned for {done}, there are {len(fresh)}")
                    self.assertIn(len(fresh), (done, done + 1))
                    self.assertEqual(fresh, plan[: len(fresh)])
                    for path, array, side, axis, index in fresh:
                        trial.add(path.name, array, side, axis, index)
                    trial.check(cube, f"round {turn}")


if __name__ == "__main__":
    mounted.main()
