"""accrete-sigclip against sigma clipping in numpy, bit for bit: planted outliers are found and
replaced, nothing else is touched."""
import errno
import os
import subprocess
import unittest

import mounted
import numpy as np
from astropy.io import fits
from frames import (LETTERS, TYPES, assert_same, fits_bytes, generator, npy_bytes, random_array,
                    write_fits, write_series)
from mounted import Mounted, meta, run, scaled, shape_of, temporary_directory


# ---- The same in numpy ----

class Middle:
    """The middle of the kept values of each line, of which each has one."""

    def __init__(self, lines, keep):
        top = np.inf if lines.dtype.kind == "f" else np.iinfo(lines.dtype).max
        ordered = np.sort(np.where(keep, lines, lines.dtype.type(top)), axis=1)
        count = keep.sum(axis=1)
        each = np.arange(len(lines))
        self.low = ordered[each, (count - 1) // 2]
        self.high = ordered[each, count // 2]
        self.dtype = lines.dtype

    def _exact(self):
        low, high = self.low.astype("f8"), self.high.astype("f8")
        with np.errstate(over="ignore"):
            return np.where(np.isinf(low + high), low / 2 + high / 2, (low + high) / 2)

    def median(self):
        if self.dtype.kind == "f":
            return (self._exact() + 0.0).astype(self.dtype)
        low, high = self.low.astype("u8"), self.high.astype("u8")
        below = low + (high - low) // 2
        return (below + ((high - low) & below & np.uint64(1))).astype(self.dtype)

    def deviations(self, lines):
        if self.dtype.name not in ("int64", "uint64"):
            return lines.astype("f8") - self._exact()[:, None]
        low, values = self.low[:, None], lines.astype("u8")
        half = (self.high.astype("u8") - self.low.astype("u8")).astype("f8") / 2
        return np.where(lines < low, -(low.astype("u8") - values).astype("f8"),
                        (values - low.astype("u8")).astype("f8")) - half[:, None]


def too_far(lines, keep, middle, sigma):
    """Which of the kept values one clipping drops. Sums are made in the order of the line."""
    deviations = np.where(keep, middle.deviations(np.where(keep, lines, 0)), 0)
    largest = np.abs(deviations).max(axis=1)
    usable = (largest > 0) & (largest < np.inf)
    exponent = np.frexp(np.where(usable, largest, 1))[1] - 1
    deviations *= np.ldexp(1.0, -np.maximum(exponent, -1022))[:, None]
    count = keep.sum(axis=1)
    mean = np.add.accumulate(deviations, axis=1)[:, -1] / count
    squares = np.where(keep, (deviations - mean[:, None]) ** 2, 0)
    spread = np.sqrt(np.add.accumulate(squares, axis=1)[:, -1] / count)
    far = keep & (np.abs(deviations) > sigma * spread[:, None]) & usable[:, None]
    return far & ~(far.sum(axis=1) == count)[:, None]


def clip_lines(lines, given, sigma=5, iterations=10):
    """Which values are outliers, and the median of each line."""
    keep = (given != 0) & np.isfinite(lines)
    outliers = np.zeros(lines.shape, bool)
    medians = np.zeros(len(lines), lines.dtype)
    active = np.flatnonzero(keep.any(axis=1))
    for i in range(iterations + 1):
        middle = Middle(lines[active], keep[active])
        medians[active] = middle.median()
        if i == iterations:
            break
        with np.errstate(all="ignore"):
            far = too_far(lines[active], keep[active], middle, sigma)
        keep[active] &= ~far
        outliers[active] |= far
        active = active[far.any(axis=1)]
        if not len(active):
            break
    return outliers, medians


def numpy_axis(cube, letter, letters=LETTERS):
    return cube.ndim - 1 - letters.index(letter)


def clipped(cube, given, letter, letters=LETTERS, **how):
    """The repaired cube, and which elements were outliers."""
    axis = numpy_axis(cube, letter, letters)
    as_lines = np.moveaxis(cube, axis, -1)
    length = cube.shape[axis]
    outliers, medians = clip_lines(as_lines.reshape(-1, length),
                                   np.moveaxis(given, axis, -1).reshape(-1, length), **how)
    outliers = np.moveaxis(outliers.reshape(as_lines.shape), -1, axis)
    medians = np.expand_dims(medians.reshape(as_lines.shape[:-1]), axis)
    return np.where(outliers, medians, cube), outliers


# ---- Cubes with something to find ----

def night(rng, shape, dtype, hits):
    """Noise around a level of each line's own; `hits` elements are hit by something."""
    dtype = np.dtype(dtype)
    level = rng.integers(40, 60, shape[1:])
    noise = rng.standard_normal(shape) * 3
    cube = level + (noise if dtype.kind == "f" else np.rint(noise).astype("i8"))
    if dtype.name == "int64":
        cube += (1 << 62) + 1  # where a double cannot tell neighbours apart
    elif dtype.name == "uint64":
        cube = cube.astype("u8") + np.uint64((1 << 63) + 1)
    cube = cube.astype(dtype)
    places = rng.choice(cube.size, hits, replace=False)
    cube.reshape(-1)[places] += rng.integers(25, 60, hits).astype(dtype)
    return cube


def sigclip(cube, *options, check=True):
    return run(mounted.program("ACCRETE_SIGCLIP"), *options, cube, check=check)


def found_by(said, cube):
    """The table that the tool prints: {index of numpy: (old value, new value)}, and the summary."""
    title, *rows, summary = said.decode().splitlines()
    assert title.startswith("# ") and title.endswith(" old new"), title
    assert summary.startswith("# "), summary
    value = float if cube.dtype.kind == "f" else int
    table = {}
    for row in rows:
        *indexes, old, new = row.split(" ")
        index = tuple(int(i) for i in reversed(indexes))
        assert index not in table, row
        table[index] = (cube.dtype.type(value(old)), cube.dtype.type(value(new)))
    return table, summary


def check_report(said, before, after, outliers, dry_run=False):
    table, summary = found_by(said, before)
    assert set(table) == set(map(tuple, np.argwhere(outliers).tolist())), "other outliers"
    for index, (old, new) in table.items():
        assert (old, new) == (before[index], after[index]), index
    assert summary.startswith(f"# {len(table)} outliers in {before.size} elements "), summary
    assert summary.endswith(f", {0 if dry_run else len(table)} changed"), summary


def check_image(path, outliers):
    said = run("fitsverify", path).stdout.decode()
    assert "0 warning(s) and 0 error(s)" in said, said
    with fits.open(path, memmap=False) as hdus:
        assert len(hdus) == 1
        assert_same(hdus[0].data, outliers.astype("uint8"), "the image of outliers")


# ---- The tool alone, on ordinary files that lie as under a mount ----

class Tree:
    """As much of a cube's directory as the tool looks at for one axis."""

    def __init__(self, base, cube, given=None, letters=LETTERS, along=None):
        self.base, self.dtype = base, cube.dtype
        self.letters = letters[: cube.ndim]
        along = along or self.letters[-1]
        self.axis = numpy_axis(cube, along, self.letters)
        self.view_shape = np.moveaxis(cube, self.axis, -1).shape
        (base / "meta").mkdir()
        for name, text in {"shape": " ".join(map(str, reversed(cube.shape))),
                           "dtype": cube.dtype.name, "axes": " ".join(self.letters),
                           "grow": along, "generation": "7"}.items():
            (base / "meta" / name).write_text(text + "\n")
        name = f"{along}{self.letters.replace(along, '')}/{along}0..{cube.shape[self.axis]}.raw"
        self.values, self.given = base / "slices" / name, base / "mask" / name
        given = np.ones(cube.shape, "u1") if given is None else given
        for path, array in ((self.values, cube), (self.given, given)):
            path.parent.mkdir(parents=True)
            path.write_bytes(np.moveaxis(array, self.axis, -1).tobytes())

    def cube(self):
        return np.moveaxis(np.fromfile(self.values, self.dtype).reshape(self.view_shape), -1,
                           self.axis)


class Clipping(unittest.TestCase):
    def check(self, cube, given=None, letters=LETTERS, along=None, options=(), **how):
        """Returns how many outliers there are."""
        given = np.ones(cube.shape, "u1") if given is None else given
        along = along or letters[cube.ndim - 1]
        with temporary_directory() as base:
            (base / "t").mkdir()
            tree = Tree(base / "t", cube, given, letters, along)
            expected, outliers = clipped(cube, given, along, letters, **how)
            said = sigclip(base / "t", "--dry-run", "--mask", base / "dry.fits", *options)
            self.assertEqual(said.stderr, b"")
            check_report(said.stdout, cube, expected, outliers, dry_run=True)
            check_image(base / "dry.fits", outliers)
            assert_same(tree.cube(), cube, "after a dry run")
            mask_before = tree.given.read_bytes()
            said = sigclip(base / "t", "--mask", base / "m.fits", *options)
            check_report(said.stdout, cube, expected, outliers)
            check_image(base / "m.fits", outliers)
            assert_same(tree.cube(), expected, "the repaired cube")
            self.assertEqual(tree.given.read_bytes(), mask_before)
        return int(outliers.sum())

    def test_all_ten_types(self):
        rng = generator()
        for dtype in TYPES:
            with self.subTest(dtype):
                self.assertGreater(self.check(night(rng, (90, 7, 11), dtype, 60)), 50)

    def test_one_to_eight_axes_and_every_axis(self):
        rng = generator(1)
        for shape in ((80,), (60, 9), (40, 6, 5), (30, 4, 5, 3), (3, 30, 2, 4, 2),
                      (2, 3, 40, 2, 1, 3), (2, 2, 3, 1, 2, 30, 2), (2, 1, 30, 2, 2, 1, 2, 3)):
            letters = "".join(rng.permutation(list("abcdefghijklmnop"))[: len(shape)])
            for along in letters:
                with self.subTest(shape=shape, axes=letters, along=along):
                    cube = night(rng, shape, "int16", max(1, int(np.prod(shape)) // 100))
                    self.check(cube, letters=letters, along=along)

    def test_a_mask_of_any_kind(self):
        rng = generator(2)
        cube = night(rng, (80, 9, 10), "float32", 60)
        given = (rng.random(cube.shape) < 0.7).astype("u1")
        given[:, 3] = 0  # lines of which no element was given
        given[1:, 4] = 0  # and only one
        cube[given == 0] = rng.choice([0, 1e30, np.nan], (given == 0).sum())
        self.assertGreater(self.check(cube, given), 20)

    def test_values_that_are_no_numbers(self):
        rng = generator(3)
        for dtype in ("float32", "float64"):
            cube = night(rng, (60, 8, 9), dtype, 80)
            cube[rng.random(cube.shape) < 0.1] = np.nan
            cube[rng.random(cube.shape) < 0.1] = np.inf
            cube[rng.random(cube.shape) < 0.1] = -np.inf
            cube[:, 2] = np.nan
            self.assertGreater(self.check(cube), 10)

    def test_values_of_all_magnitudes(self):
        rng = generator(4)
        for dtype in TYPES:
            with self.subTest(dtype):
                self.check(random_array(rng, (200, 5, 6), dtype))
                self.assertGreater(self.check(random_array(rng, (200, 5, 6), dtype),
                                              options=["--sigma", 1.5], sigma=1.5), 0)
        for scale in (1e300, 1e-300, 5e-324):
            with self.subTest(scale):
                self.assertGreater(self.check(night(rng, (90, 5, 6), "float64", 20) * scale), 10)
        extremes = rng.choice([-1.7e308, 1.7e308, 3.0], (50, 4, 5), p=[0.02, 0.02, 0.96])
        self.check(extremes)

    def test_constant_lines_and_zeros_of_both_signs(self):
        rng = generator(5)
        cube = rng.choice(np.array([0.0, -0.0], "f4"), (50, 6, 7))
        cube[13, 2:4] = 1e-3
        self.assertEqual(self.check(cube), 14)
        self.assertEqual(self.check(np.full((40, 3, 4), 17, "u1")), 0)

    def test_medians_of_integers_are_rounded_half_to_even(self):
        for dtype in ("int8", "uint16", "int64", "uint64"):
            info = np.iinfo(dtype)
            for low, high, median in ((2, 3, 2), (3, 4, 4), (info.min, info.min + 1, None),
                                      (info.max - 21, info.max - 20, None)):
                if median is None:
                    median = low if low % 2 == 0 else high
                cube = np.array([low] * 25 + [high] * 25 + [high + 20], dtype).reshape(51, 1)
                cube = np.vstack([cube, [[low]]]).astype(dtype)
                with self.subTest(dtype, low=low), temporary_directory() as base:
                    tree = Tree(base, cube)
                    sigclip(base)
                    # 26 of the lower value stay and 25 of the higher: the median is one of them.
                    self.assertEqual(int(tree.cube()[50, 0]), low)
                with self.subTest(dtype, low=low), temporary_directory() as base:
                    tree = Tree(base, cube[:-1])
                    sigclip(base)
                    self.assertEqual(int(tree.cube()[50, 0]), median)

    def test_few_iterations_and_any_sigma(self):
        rng = generator(6)
        cube = (rng.standard_normal((200, 8, 9)) * 10.0 ** rng.integers(0, 6, (200, 8, 9)))
        for sigma, iterations in ((5, 1), (3, 2), (2, 3), (1, 100), (0.5, 10), (1e-3, 10)):
            with self.subTest(sigma=sigma, iterations=iterations):
                self.assertGreater(
                    self.check(cube, options=["--sigma", sigma, "--iterations", iterations],
                               sigma=sigma, iterations=iterations), 50)
        # All are too far: then none is.
        two = np.array([[1.0, 2.0] * 10]).T
        self.assertEqual(self.check(two, options=["-s", 0.9], sigma=0.9), 0)

    def test_blocks_that_cut_rows_and_long_lines(self):
        # Blocks have 8 MiB: here a row has several of them, or a line is longer than one.
        rng = generator(7)
        for shape, along in (((1000, 3, 70, 150), "t"), ((5, 1 << 20), "x"), ((2, 3 << 20), "x"),
                             ((40, 100000), "y")):
            with self.subTest(shape=shape, along=along):
                self.assertGreater(self.check(night(rng, shape, "uint8", 500), along=along), 300)

    def test_neighbours_along_the_line(self):
        cube = np.arange(400, dtype="i4").reshape(100, 4) % 5
        cube[10:13, 1] = 1000
        cube[98:, 2] = -1000
        cube[0, 3] = 1000
        self.assertEqual(self.check(cube), 6)


class Misuse(unittest.TestCase):
    def refused(self, code, *words):
        result = run(mounted.program("ACCRETE_SIGCLIP"), *words, check=False)
        said = result.stderr.decode()
        self.assertEqual((result.returncode, said.count("\n")), (code, 1), said)
        self.assertIn("accrete-sigclip", said)
        return said

    def test_usage(self):
        for words in ([], ["a", "b"], ["--sigma", "0", "c"], ["--sigma", "nan", "c"],
                      ["--sigma", "inf", "c"], ["--sigma", "5x", "c"], ["--iterations", "0", "c"],
                      ["--iterations", "-1", "c"], ["--axis", "zx", "c"], ["--axis", "", "c"],
                      ["--mask", "", "c"], ["--nonsense", "c"], ["c", "--sigma"]):
            with self.subTest(words):
                self.refused(2, *words)

    def test_what_is_no_cube(self):
        with temporary_directory() as base:
            self.assertIn(os.strerror(errno.ENOENT), self.refused(1, base))
            tree = Tree(base, night(generator(), (30, 4), "u1", 1))
            self.assertIn("no axis q", self.refused(1, "--axis", "q", base))
            for name, text in (("shape", ""), ("shape", "4 x"), ("shape", "4 30 1"),
                               ("shape", "4 0"), ("shape", f"{1 << 40} {1 << 40}"),
                               ("dtype", "float16"), ("grow", "xy")):
                path = base / "meta" / name
                before = path.read_text()
                path.write_text(text + "\n")
                with self.subTest(name, text=text):
                    self.refused(1, base)
                path.write_text(before)
            self.assertIn("no such", self.refused(1, "--mask", base / "no such/m.fits", base))
            tree.given.write_bytes(b"1")
            self.assertIn("1 bytes instead of 120", self.refused(1, base))

    def test_nothing_is_changed_that_could_not_be_told(self):
        cube = night(generator(), (90, 7), "f4", 9)
        with temporary_directory() as base, open("/dev/full", "wb") as full:
            tree = Tree(base, cube)
            result = subprocess.run([mounted.program("ACCRETE_SIGCLIP"), base], stdout=full,
                                    stderr=subprocess.PIPE, check=False)
            self.assertEqual(result.returncode, 1)
            self.assertIn(os.strerror(errno.ENOSPC), result.stderr.decode())
            assert_same(tree.cube(), cube)


# ---- Real cubes ----

class Cubes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.context = Mounted()
        cls.m = cls.context.__enter__()
        cls.addClassCleanup(lambda: cls.context.__exit__(None, None, None))

    def make(self, name, frames, as_bytes=npy_bytes, axes=None):
        cube = self.m.cube(f"{self.id().rsplit('.', 1)[1]}-{name}")
        (cube / "meta/formats").write_text("raw")
        if axes:
            (cube / "meta/axes").write_text(axes)
        for i, frame in enumerate(frames):
            (cube / f"append/f{i:04}").write_bytes(as_bytes(frame))
        return cube

    def check(self, cube, **how):
        """A dry run, then a real one; returns which elements were outliers."""
        values, given = np.load(cube / "cube.npy"), self.load_mask(cube)
        along = meta(cube, "grow")
        letters = meta(cube, "axes").replace(" ", "")
        expected, outliers = clipped(values, given, along, letters, **how)
        with temporary_directory() as base:
            said = sigclip(cube, "--dry-run", "--mask", base / "m.fits")
            check_report(said.stdout, values, expected, outliers, dry_run=True)
            check_image(base / "m.fits", outliers)
            assert_same(np.load(cube / "cube.npy"), values, "after a dry run")
            said = sigclip(cube, "--mask", base / "m.fits")
            check_report(said.stdout, values, expected, outliers)
            check_image(base / "m.fits", outliers)
        assert_same(np.load(cube / "cube.npy"), expected, "the repaired cube")
        assert_same(self.load_mask(cube), given, "its mask")
        return outliers

    def load_mask(self, cube):
        letters = meta(cube, "axes").replace(" ", "")
        return np.load(cube / f"mask/{letters}/{letters[0]}0...npy")

    def test_all_ten_types(self):
        rng = generator(10)
        for dtype in TYPES:
            with self.subTest(dtype):
                frames = night(rng, (60, 9, 12), dtype, 40)
                as_bytes = fits_bytes if rng.random() < 0.5 else npy_bytes
                self.assertGreater(self.check(self.make(dtype, frames, as_bytes)).sum(), 30)

    def test_cubes_of_one_to_four_axes(self):
        rng = generator(11)
        for rank, shape in ((1, (2000,)), (2, (50, 40)), (3, (50, 6, 7)), (4, (40, 4, 5, 6))):
            with self.subTest(rank=rank):
                values = night(rng, shape, "float32", 20)
                # Frames of 1 and 2 axes make a cube of one more, unless that has its axes already.
                frames = np.split(values, 4) if rank in (1, 4) else values
                cube = self.make(str(rank), frames, axes="qrst"[:rank] if rank != 2 else None)
                self.assertEqual(len(shape_of(cube)), rank)
                self.assertGreater(self.check(cube).sum(), 10)

    def test_ragged_frames(self):
        rng = generator(12)
        values = night(rng, (80, 9, 12), "float32", 80)
        for dtype, pad in (("float32", "nan"), ("float32", "1e30"), ("int16", "-30000")):
            with self.subTest(dtype, pad=pad):
                frames = [frame.astype(dtype)[: rng.integers(5, 10), : rng.integers(6, 13)]
                          for frame in values]
                cube = self.m.cube(f"ragged-{dtype}-{pad}")
                (cube / "meta/formats").write_text("raw")
                (cube / "meta/dtype").write_text(dtype)
                (cube / "meta/pad").write_text(pad)
                for i, frame in enumerate(frames):
                    (cube / f"append/f{i:04}").write_bytes(npy_bytes(frame))
                self.assertLess(self.load_mask(cube).mean(), 0.9)
                self.assertGreater(self.check(cube).sum(), 10)

    def test_untouched_frames_are_their_files_still(self):
        rng = generator(13)
        values = night(rng, (40, 30, 20), "uint16", 0)
        hit = [3, 17, 39]
        for z in hit:
            values[z, z // 2, rng.integers(20)] += 500
        with temporary_directory() as base:
            files = write_series(base, values)
            cube = self.make("files", [])
            run("cp", *files, cube / "append/")
            outliers = self.check(cube)
            self.assertEqual(np.flatnonzero(outliers.any(axis=(1, 2))).tolist(), hit)
            for z, path in enumerate(files):
                if z not in hit:
                    run("cmp", path, cube / "frames" / path.name)
                    continue
                # The frame has the new values, too, and is a valid file.
                self.assertIn(b"0 error(s)", run("fitsverify", cube / "frames" / path.name).stdout)
                self.assertEqual((fits.getdata(cube / "frames" / path.name) != values[z]).sum(), 1)
            repaired = np.load(cube / "cube.npy")
            self.m.remount()
            assert_same(np.load(cube / "cube.npy"), repaired, "after a remount")

    def test_an_empty_cube(self):
        result = sigclip(self.make("empty", []), check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("no frame", result.stderr.decode())

    def grow_while_it_runs(self, *options):
        """The tool waits for its reader when the pipe is full; meanwhile the cube changes."""
        rng = generator(14)
        values = night(rng, (300, 150, 200), "float32", 30000)
        cube = self.make("growing" + "".join(options), [values])
        expected, outliers = clipped(values, np.ones(values.shape, "u1"), "z")
        process = subprocess.Popen([mounted.program("ACCRETE_SIGCLIP"), *options, cube],
                                   stdout=subprocess.PIPE)
        said = process.stdout.readline()
        new = night(rng, (4, 160, 200), "float32", 0)
        (cube / "prepend/first").write_bytes(npy_bytes(new[0]))
        (cube / "insert/z/100/middle").write_bytes(npy_bytes(new[1]))
        (cube / "append/last").write_bytes(npy_bytes(new[2]))
        self.assertIsNone(process.poll())
        with process.stdout:
            said += process.stdout.read()
        self.assertEqual(process.wait(mounted.PATIENCE), 0)
        check_report(said, values, expected, outliers, dry_run=bool(options))
        self.assertEqual(shape_of(cube), [200, 160, 303])
        after = np.load(cube / "cube.npy", mmap_mode="r")
        old = np.delete(after, [0, 100, 302], axis=0)[:, :150]
        assert_same(old, values if options else expected)
        for z, frame in zip([0, 100, 302], new):
            assert_same(np.ascontiguousarray(after[z]), frame, "a frame that came meanwhile")

    def test_a_cube_that_grows_meanwhile_in_a_dry_run(self):
        self.grow_while_it_runs("--dry-run")

    def test_a_cube_that_grows_meanwhile(self):
        self.grow_while_it_runs()


class Large(unittest.TestCase):
    def test_ten_thousand_hits(self):
        rng = generator(20)
        side, depth, hits = scaled(512, 40), 1000, scaled(10000)
        values = rng.standard_normal((depth, side, side), np.float32)
        values *= 20
        values += 500
        planted = np.unravel_index(rng.choice(values.size, hits, replace=False), values.shape)
        values[planted] += rng.uniform(500, 30000, hits).astype("f4")
        with Mounted() as m, temporary_directory() as base:
            cube = m.cube("night")
            (cube / "meta/formats").write_text("raw")
            for z, frame in enumerate(values):
                write_fits(cube / f"append/f{z:04}.fits", frame)
            expected, outliers = np.empty_like(values), np.empty(values.shape, bool)
            for y in range(0, side, 16):
                rows = np.s_[:, y: y + 16]
                expected[rows], outliers[rows] = clipped(values[rows], np.ones(values[rows].shape),
                                                         "z")
            self.assertTrue(outliers[planted].all())
            self.assertLess(outliers.sum() - hits, 1e-6 * values.size + 10)
            said = self.clip(cube, "--dry-run")
            check_report(said, values, expected, outliers, dry_run=True)
            for z in rng.choice(depth, 20, replace=False):
                run("cmp", cube / f"frames/f{z:04}.fits", self.source(base, values[z]))
            said = self.clip(cube, "--mask", base / "m.fits")
            check_report(said, values, expected, outliers)
            check_image(base / "m.fits", outliers)
            assert_same(np.load(cube / "cube.npy", mmap_mode="r"), expected)
            for z in np.flatnonzero(~outliers.any(axis=(1, 2)))[:20]:
                run("cmp", cube / f"frames/f{z:04}.fits", self.source(base, values[z]))

    def source(self, base, frame):
        write_fits(base / "source.fits", frame)
        return base / "source.fits"

    def clip(self, cube, *options):
        """Runs the tool in little memory."""
        limited = 'ulimit -v 131072; exec "$@"' if not mounted.SANITIZE else 'exec "$@"'
        return run("bash", "-c", limited, "bash", mounted.program("ACCRETE_SIGCLIP"), *options,
                   cube).stdout


if __name__ == "__main__":
    mounted.main()
