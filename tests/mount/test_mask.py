"""mask/ shows, by the names of slices/, which elements a frame gave."""
import os
import unittest

import mounted
import numpy as np
from astropy.io import fits
from frames import (LETTERS, TYPES, assert_same, cut, fits_bytes, generator, npy_bytes,
                    random_array, read_fits, read_view, view_name)
from mounted import Mounted, errno_of, run, scaled, shape_of

EXTENSIONS = ["fits", "npy", "raw", "txt"]


def mask_of(frames, rank):
    """What mask/ shows of a cube of these frames, in numpy's order."""
    slabs = [frame.reshape((1,) * (rank - frame.ndim) + frame.shape) for frame in frames]
    extents = np.max([slab.shape for slab in slabs], axis=0)
    given = np.zeros((sum(len(slab) for slab in slabs), *extents[1:]), "uint8")
    at = 0
    for slab in slabs:
        given[(slice(at, at + len(slab)), *map(slice, slab.shape[1:]))] = 1
        at += len(slab)
    return given


def ragged_frames(rng, count, rank, most, dtype):
    """Series of a few frames of one shape, so that some share a box; then another shape."""
    frames = []
    shape = ()
    while len(frames) < count:
        if not shape or rng.random() < 0.4:
            shape = tuple(int(n) for n in rng.integers(1, most + 1, rank))
        frames.append(random_array(rng, shape, dtype))
    return frames


class MaskTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.context = Mounted()
        cls.m = cls.context.__enter__()
        cls.addClassCleanup(lambda: cls.context.__exit__(None, None, None))

    def make(self, frames, name="", as_bytes=npy_bytes):
        self.cube = self.m.cube(self.id().rsplit(".", 1)[1] + name)
        self.as_bytes = as_bytes
        self.frames = []
        self.grow(*frames)

    def grow(self, *frames):
        for frame in frames:
            (self.cube / f"append/f{len(self.frames):03}").write_bytes(self.as_bytes(frame))
            self.frames.append(frame)
        self.given = mask_of(self.frames, len(shape_of(self.cube)))
        self.assertEqual(shape_of(self.cube), list(reversed(self.given.shape)))

    def shows(self, name, expected, extension="npy"):
        found = read_view(self.cube / "mask" / f"{name}.{extension}", "uint8", expected.shape)
        assert_same(found, np.ascontiguousarray(expected), name)


class Elements(MaskTest):
    def check_random_views(self, rng, count):
        """Any axes in any order, the others fixed, some of the spanned ones cut."""
        letters = LETTERS[: self.given.ndim]
        extent = dict(zip(letters, reversed(self.given.shape)))
        for _ in range(count):
            axes = "".join(rng.permutation(list(letters))[: rng.integers(1, len(letters) + 1)])
            fixed = {a: int(rng.integers(extent[a])) for a in letters if a not in axes}
            ranges = {}
            for a in axes:
                if len(axes) == len(letters) or rng.random() < 0.3:
                    begin, end = sorted(rng.choice(extent[a] + 1, 2, replace=False))
                    ranges[a] = (int(begin), int(end))
            self.shows(view_name(axes, fixed, ranges), cut(self.given, axes, fixed, ranges),
                       str(rng.choice(EXTENSIONS)))

    def test_names_of_slices_show_masks(self):
        self.make([np.ones(s, "f4") for s in ((7, 9), (7, 9), (3, 4), (8, 2), (7, 9), (1, 12))])
        given = self.given
        self.assertEqual((given.shape, given.sum()), ((6, 8, 12), 3 * 63 + 12 + 16 + 12))
        for extension in EXTENSIONS:
            for z in range(6):
                self.shows(f"xy/z{z:06}", given[z], extension)
            self.shows("yx/z2", given[2].T, extension)
            self.shows("zx/y000003", given[:, 3].T, extension)
            self.shows("z/x000003/y000002", given[:, 2, 3], extension)
            self.shows("z/y7_x1", given[:, 7, 1], extension)
            self.shows("xy/x2..11_y1..4_z000003", given[3, 1:4, 2:11], extension)
            self.shows("xyz/z1..3", given[1:3], extension)
            self.shows("zyx/z1.._x..5", given[1:, :, :5].T, extension)
            self.shows("xy/last", given[5], extension)
            self.shows("xy/newest", given[5], extension)
            self.shows("xz/last", given[:, 7], extension)

    def test_an_element_that_equals_the_pad_was_given_all_the_same(self):
        self.make([np.full((3, 4), np.nan, "f4"), np.full((2, 2), np.nan, "f4")])
        self.shows("xyz/x0..", self.given)

    def test_all_ten_types(self):
        rng = generator(1)
        for dtype in TYPES:
            with self.subTest(dtype):
                self.make(ragged_frames(rng, 12, 2, 40, dtype), dtype,
                          fits_bytes if rng.random() < 0.5 else npy_bytes)
                self.check_random_views(rng, scaled(30, 10))

    def test_cubes_of_two_to_eight_axes(self):
        rng = generator(2)
        for rank in range(2, 9):
            with self.subTest(rank=rank):
                frame_rank = rank - 1 if rank <= 3 else rank
                most = {2: 60, 3: 20, 4: 8, 5: 5}.get(rank, 3)
                self.make(ragged_frames(rng, 9, frame_rank, most, "int16"), str(rank))
                self.check_random_views(rng, scaled(30, 10))

    def test_masks_of_many_requests(self):
        rng = generator(3)
        shapes = [(512, 512)] * 5 + [(500, 530), (512, 512), (600, 3)]
        self.make([np.zeros(s, "uint8") for s in shapes])
        for extension in EXTENSIONS[:3]:
            self.shows("xyz/x0..", self.given, extension)
            self.shows("zyx/x0..", self.given.T, extension)
        for name in ("xyz/x0...fits", "zyx/x0...npy", "yxz/x0...txt"):
            path = self.cube / "mask" / name
            whole = path.read_bytes()
            self.assertEqual(len(whole), path.stat().st_size)
            with open(path, "rb", buffering=0) as file:
                for _ in range(scaled(60, 20)):
                    at = int(rng.integers(len(whole) + 10))
                    n = int(2 ** rng.uniform(0, 21))
                    self.assertEqual(os.pread(file.fileno(), n, at), whole[at: at + n],
                                     (name, at, n))


class Files(MaskTest):
    def make_ragged(self):
        self.make([np.ones(s, "uint16") for s in ((7, 9), (3, 4), (8, 2))],
                  as_bytes=lambda a: fits_bytes(a, [f"{'OBJECT':<8}= '{'M42':<8}'"]))

    def test_listings_are_those_of_slices(self):
        self.make_ragged()

        def below(directory):
            return sorted(str(p.relative_to(directory)) for p in directory.rglob("*"))

        self.assertIn("mask", os.listdir(self.cube))
        for extensions in (["fits"], ["npy", "txt", "raw"]):
            (self.cube / "meta/formats").write_text(" ".join(extensions))
            names = below(self.cube / "mask")
            self.assertEqual(names, below(self.cube / "slices"))
            self.assertLessEqual({f"xy/z000002.{e}" for e in extensions}, set(names))

    def test_a_mask_is_no_inode_of_slices(self):
        self.make_ragged()
        for name in (".", "xy", "z/x1", "xy/z1.fits", "xyz/z0...raw", "xy/last.fits"):
            inodes = [(self.cube / top / name).lstat().st_ino for top in ("slices", "mask")]
            self.assertNotEqual(*inodes, name)
        for directory in (self.cube, self.cube / "mask", self.cube / "mask/xy",
                          self.cube / "mask/z", self.cube / "mask/z/y000001"):
            for entry in os.scandir(directory):
                self.assertEqual(entry.inode(), os.stat(entry.path).st_ino, entry.path)
        self.assertEqual((self.cube / "mask/z/x1/y2.npy").stat().st_ino,
                         (self.cube / "mask/z/y000002_x000001.npy").stat().st_ino)

    def test_fits_without_the_cards_of_frames(self):
        self.make_ragged()
        self.assertEqual(fits.getheader(self.cube / "slices/xy/z1.fits")["OBJECT"], "M42")
        for name in ("xy/z000001.fits", "zx/y000005.fits", "z/x1_y1.fits", "xyz/x0...fits"):
            with self.subTest(name):
                path = self.cube / "mask" / name
                said = run("fitsverify", path).stdout.decode()
                self.assertIn("0 warning(s) and 0 error(s)", said)
                header = fits.getheader(path)
                self.assertNotIn("OBJECT", header)
                self.assertEqual(header["BITPIX"], 8)
                self.assertEqual(read_fits(path).dtype, "uint8")

    def test_extended_attributes(self):
        self.make_ragged()
        for name, axes, shape in (("xy/z1.npy", "xy", "9 8"), ("zx/y1.fits", "zx", "3 9")):
            says = {n: os.getxattr(self.cube / "mask" / name, f"user.accrete.{n}").decode()
                    for n in ("dtype", "axes", "shape")}
            self.assertEqual(says, {"dtype": "uint8", "axes": axes, "shape": shape})
        self.assertEqual(os.getxattr(self.cube / "mask/xy/z1.npy", "user.accrete.frame"), b"f001")

    def test_masks_cannot_be_written(self):
        self.make_ragged()
        for name in ("xy/z1.fits", "z/x1_y1.npy", "xyz/x0...raw"):
            path = self.cube / "mask" / name
            before = path.read_bytes()
            for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
                self.assertEqual(errno_of(os.open, path, flags), "EROFS", name)
            self.assertEqual(errno_of(os.truncate, path, 3), "EROFS")
            self.assertEqual(errno_of(os.unlink, path), "EPERM")
            self.assertEqual(errno_of(os.chmod, path, 0o777), "EPERM")
            self.assertEqual(path.read_bytes(), before)
        self.assertIn(errno_of(os.mkdir, self.cube / "mask/new"), ("EPERM", "EACCES"))

    def test_what_does_not_exist(self):
        self.make_ragged()
        for name in ("xy/z3.npy", "xy/z1.foo", "xx", "xy/x0..10_z1.npy", "z/x9/y1.npy",
                     "cube.fits"):
            self.assertEqual(errno_of(os.stat, self.cube / "mask" / name), "ENOENT", name)

    def test_an_empty_cube_has_no_masks(self):
        cube = self.m.cube("empty")
        self.assertEqual(os.listdir(cube / "mask"), [])
        self.assertEqual(errno_of(os.stat, cube / "mask/xy/z0.npy"), "ENOENT")


class Growth(MaskTest):
    def setUp(self):
        self.make([np.ones(s, "i4") for s in ((7, 9), (3, 4), (7, 9))])

    def test_raw_and_txt_grow_at_their_end(self):
        for name in ("z/x5_y5.raw", "z/x5_y5.txt", "xz/y4.raw", "xyz/z1...raw"):
            path = self.cube / "mask" / name
            with self.subTest(name), open(path, "rb", buffering=0) as file:
                inode, before = path.stat().st_ino, file.read()
                for shape in ((2, 9), (7, 9)):
                    self.grow(np.ones(shape, "i4"))
                self.assertEqual(path.stat().st_ino, inode)
                after = path.read_bytes()
                self.assertEqual(after[: len(before)], before)
                self.assertGreater(len(after), len(before))
                self.assertEqual(before + file.read(), after)
        self.shows("z/x5_y5", self.given[:, 5, 5], "raw")

    def test_another_map_of_bytes_is_another_inode(self):
        for name in ("zx/y1.raw", "zx/y1.npy", "xy/z1.raw"):
            path = self.cube / "mask" / name
            with self.subTest(name):
                before = path.stat().st_ino
                self.grow(np.ones((7, self.given.shape[2] + 1), "i4"))  # wider
                self.assertNotEqual(path.stat().st_ino, before)

    def test_open_masks_keep_what_they_show(self):
        names = ["xyz/z0...fits", "zyx/x0...npy", "zx/y2.raw", "z/x5_y5.npy", "xy/z1.npy"]
        files = {n: open(self.cube / "mask" / n, "rb") for n in names}
        before = {n: (self.cube / "mask" / n).read_bytes() for n in names}
        self.grow(*[np.ones((9, 9), "i4")] * 3)
        for name, file in files.items():
            with self.subTest(name), file:
                self.assertEqual(file.read(), before[name])
                self.assertNotEqual((self.cube / "mask" / name).read_bytes(), before[name])

    def test_every_mask_shows_a_commit_at_once(self):
        rng = generator()
        for frame in ragged_frames(rng, scaled(40, 15), 2, 12, "i4"):
            self.grow(frame)
            self.shows("xy/last", self.given[-1])
            self.shows("zx/y1", self.given[:, 1].T)
            self.shows("xyz/x0..", self.given)
        self.m.remount()
        self.shows("xyz/x0..", self.given)


if __name__ == "__main__":
    mounted.main()
