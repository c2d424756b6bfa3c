"""Names of views, what they resolve to, and what stays the same while the cube grows."""
import mmap
import os
import stat
import subprocess
import time
import unittest

import mounted
import numpy as np
from frames import assert_same, fits_bytes, generator, npy_bytes, random_array, read_fits
from mounted import Mounted, OneMountTest, errno_of, run

NX, NY, NZ = 9, 7, 5


class ViewTest(OneMountTest):
    def setUp(self):
        super().setUp()
        self.rng = generator()
        self.data = np.zeros((0, NY, NX), "int32")
        self.grow(NZ)
        self.slices = self.cube / "slices"

    def grow(self, count):
        for frame in random_array(self.rng, (count, NY, NX), "int32"):
            (self.cube / f"append/f{len(self.data)}.fits").write_bytes(fits_bytes(frame))
            self.data = np.concatenate([self.data, frame[None]])

    def shows(self, name, expected):
        found = np.load(self.slices / f"{name}.npy")
        assert_same(found, np.ascontiguousarray(expected), name)


class Names(ViewTest):
    def test_indexes_of_any_width(self):
        for name in ("z000003", "z3", "z03", "z0000000000003"):
            self.shows(f"xy/{name}", self.data[3])

    def test_nested_and_flat_names_are_one_inode(self):
        for names in (["x000001/y000002", "y000002/x000001", "x1_y2", "y2_x1", "y2/x000001",
                       "y000002_x000001"],):
            inodes = {(self.slices / "z" / f"{n}.npy").stat().st_ino for n in names}
            self.assertEqual(len(inodes), 1)
            for name in names:
                self.shows(f"z/{name}", self.data[:, 2, 1])
        self.assertEqual((self.slices / "xy/z3.fits").stat().st_ino,
                         (self.slices / "xy/z000003.fits").stat().st_ino)
        self.assertNotEqual((self.slices / "xy/z3.fits").stat().st_ino,
                            (self.slices / "xy/z3.npy").stat().st_ino)

    def test_ranges(self):
        self.shows("xy/x2..5_y1..4_z000003", self.data[3, 1:4, 2:5])
        self.shows("xy/z3/x2..5/y1..4", self.data[3, 1:4, 2:5])
        self.shows("xy/y..4_x2.._z3", self.data[3, :4, 2:])
        self.shows("xyz/z1..3", self.data[1:3])
        self.shows("zyx/z1.._x..2", self.data[1:, :, :2].T)
        self.shows("z/x1/y2/z1..4", self.data[1:4, 2, 1])
        self.shows("xyz/x8..9_y0..1_z4..5", self.data[4:, :1, 8:])

    def test_transposes(self):
        self.shows("zx/y000005", self.data[:, 5].T)
        self.shows("yx/z0", self.data[0].T)
        self.shows("yz/x8", self.data[:, :, 8])
        self.shows("zy/x8", self.data[:, :, 8].T)
        self.shows("xzy/z0..", self.data.transpose(1, 0, 2))

    def test_what_does_not_exist(self):
        for name in ("xy/z5.npy", "xy/z000005.fits", "xy/z-1.npy", "xy/z+1.npy", "xy/z.npy",
                     "xy/z1e1.npy", "xy/z1.foo", "xy/z1", "xy/z1.npy.npy", "xy/.npy", "xy/y1.npy",
                     "xy/z1_z1.npy", "xy/z1/z1.npy", "xy/z1..2.npy", "xy/x3..3_z1.npy",
                     "xy/x4..3_z1.npy", "xy/x0..10_z1.npy", "xy/x9.._z1.npy", "xx", "xq", "X",
                     "xy/z99999999999999999999999.npy", "xy/x1_z1.npy", "z/x1.npy", "z/x9/y1.npy",
                     "xyz/w1.npy", "", "xy/_z1.npy", "xy/z1_.npy", "xyz.npy", "xy/z1.NPY"):
            with self.subTest(name):
                if name == "":
                    continue
                path = self.slices / name
                if name == "xy/z1":  # a directory of what else may be said of it, or nothing
                    continue
                self.assertEqual(errno_of(os.stat, path), "ENOENT")
        self.assertEqual(errno_of(os.stat, self.cube / "nonsense"), "ENOENT")

    def test_listings(self):
        self.assertEqual(set(os.listdir(self.slices)), {"xy", "xz", "yz", "x", "y", "z", "zx", "zy"})
        self.assertEqual(sorted(os.listdir(self.slices / "xy")),
                         [f"z{i:06}.fits" for i in range(NZ)])
        self.assertEqual(sorted(os.listdir(self.slices / "zx")),
                         [f"y{i:06}.fits" for i in range(NY)])
        # The slowest fixed axis is outermost.
        self.assertEqual(sorted(os.listdir(self.slices / "z")), [f"y{i:06}" for i in range(NY)])
        self.assertEqual(sorted(os.listdir(self.slices / "z/y000003")),
                         [f"x{i:06}.fits" for i in range(NX)])
        self.assertEqual(sorted(os.listdir(self.slices / "x")), [f"z{i:06}" for i in range(NZ)])
        top = set(os.listdir(self.cube))
        self.assertLessEqual({"append", "frames", "slices", "meta", "history", "last-error",
                              "cube.fits"}, top)
        self.assertNotIn("last.fits", os.listdir(self.slices / "xy"))
        everything = run("find", self.cube, "-type", "f").stdout.decode().split("\n")
        for path in everything:
            below = path[len(str(self.cube)):]
            self.assertFalse(set("[]:+() *") & set(below), below)

    def test_last_and_newest(self):
        for name in ("last", "newest"):
            link = self.slices / f"xy/{name}.fits"
            self.assertTrue(stat.S_ISLNK(link.lstat().st_mode))
            self.assertEqual(os.readlink(link), f"z{NZ - 1:06}.fits")
            assert_same(read_fits(link), self.data[-1])
        self.assertEqual(os.readlink(self.slices / "xz/last.npy"), f"y{NY - 1:06}.npy")
        self.grow(1)
        for name in ("last", "newest"):
            self.assertEqual(os.readlink(self.slices / f"xy/{name}.npy"), f"z{NZ:06}.npy")
            assert_same(np.load(self.slices / f"xy/{name}.npy"), self.data[-1])

    def test_sizes_are_exact(self):
        for name in ("cube.fits", "cube.npy", "cube.raw", "slices/xy/z1.txt", "slices/zx/y1.fits"):
            info = (self.cube / name).stat()
            self.assertEqual(info.st_size, len((self.cube / name).read_bytes()))
            self.assertGreater(info.st_blocks, 0)
            self.assertTrue(stat.S_ISREG(info.st_mode))
        self.assertEqual((self.cube / "cube.raw").stat().st_size, self.data.nbytes)


class Fixed(ViewTest):
    def test_the_files_of_views_stay_as_they_are(self):
        for name in ("slices/xy/z1.fits", "slices/z/x1_y1.npy", "cube.raw", "cube.fits"):
            path = self.cube / name
            before = path.read_bytes()
            with self.subTest(name):
                self.assertEqual(errno_of(os.truncate, path, 3), "EPERM")
                self.assertEqual(errno_of(os.truncate, path, len(before)), "OK")
                self.assertEqual(errno_of(os.unlink, path), "EPERM")
                self.assertEqual(errno_of(os.chmod, path, 0o777), "EPERM")
                self.assertEqual(path.read_bytes(), before)

    def test_nothing_else_can_be_made(self):
        top = self.cube
        for directory in (top, top / "slices", top / "slices/xy", top / "meta", top / "append",
                          top / "frames", self.m.mnt):
            with self.subTest(directory.name):
                self.assertEqual(errno_of(os.mkfifo, directory / "new"), "EPERM")
                self.assertEqual(errno_of(os.symlink, "cube.fits", directory / "new"), "EPERM")
                self.assertIn(errno_of(os.link, top / "cube.fits", directory / "new"), ("EPERM",))
        for directory in (top, top / "slices", top / "slices/xy", top / "meta", self.m.mnt):
            with self.subTest(directory.name):
                self.assertIn(errno_of(os.open, directory / "new", os.O_WRONLY | os.O_CREAT),
                              ("EPERM", "EACCES"))
        self.assertIn(errno_of(os.mkdir, top / "slices/new"), ("EPERM", "EACCES", "ENOENT"))
        self.assertIn(errno_of(os.rename, top / "cube.fits", top / "other.fits"), ("EPERM",))


class Cubes(unittest.TestCase):
    def test_made_renamed_removed(self):
        with Mounted() as m:
            for name in ("a", "b c", "ü", "x" * 255, "!a[1]", "xy"):
                (m / name).mkdir()
                self.assertIn(name, os.listdir(m.mnt))
                self.assertEqual(errno_of(os.mkdir, m / name), "EEXIST")
                os.rename(m / name, m / "renamed")
                self.assertEqual(os.listdir(m.mnt), ["renamed"])
                (m / "renamed").rmdir()
                self.assertEqual(os.listdir(m.mnt), [])
            for name, because in {"a\nb": "EINVAL", "x" * 256: "ENAMETOOLONG"}.items():
                self.assertEqual(errno_of(os.mkdir, m / name), because)
            self.assertEqual(errno_of(os.rmdir, m / "none"), "ENOENT")
            cube = m.cube("full")
            (cube / "append/a.npy").write_bytes(npy_bytes(np.ones((3, 4), "f4")))
            self.assertEqual(errno_of(os.rmdir, cube), "ENOTEMPTY")
            m.cube("empty")
            self.assertIn(errno_of(os.rename, m / "empty", cube), ("EEXIST", "ENOTEMPTY"))
            os.rename(cube, m / "moved")
            assert_same(np.load(m / "moved/slices/xy/z0.npy"), np.ones((3, 4), "float32"))
            m.remount()
            self.assertEqual(sorted(os.listdir(m.mnt)), ["empty", "moved"])
            assert_same(np.load(m / "moved/slices/xy/z0.npy"), np.ones((3, 4), "float32"))

    def test_open_views_survive_a_rename_of_the_cube(self):
        with Mounted() as m:
            cube = m.cube("a")
            (cube / "append/f.npy").write_bytes(npy_bytes(np.ones((3, 4), "f4")))
            with open(cube / "cube.raw", "rb") as file:
                os.rename(cube, m / "b")
                self.assertEqual(file.read(), np.ones((3, 4), "f4").tobytes())

    def test_an_empty_cube_has_no_views(self):
        with Mounted() as m:
            cube = m.cube("a")
            self.assertEqual(errno_of(os.stat, cube / "slices/xy/z0.fits"), "ENOENT")
            self.assertEqual(errno_of(os.open, cube / "cube.fits", os.O_RDONLY), "ENOENT")
            self.assertEqual(os.listdir(cube / "frames"), [])
            self.assertEqual((cube / "meta/shape").read_text().strip(), "")
            run("find", cube)


class Growth(ViewTest):
    def test_a_grown_raw_is_the_same_inode(self):
        for name in ("cube.raw", "cube.txt", "slices/z/x1_y1.raw", "slices/z/x1_y1.txt",
                     "slices/xz/y1.raw", "slices/xyz/z1...raw"):
            path = self.cube / name
            with self.subTest(name):
                inode, before = path.stat().st_ino, path.read_bytes()
                self.grow(1)
                self.assertEqual(path.stat().st_ino, inode)
                after = path.read_bytes()
                self.assertEqual(after[: len(before)], before)
                self.assertGreater(len(after), len(before))

    def test_a_grown_header_keeps_the_number_that_cp_compares(self):
        for name in ("cube.fits", "cube.npy", "slices/z/x1_y1.npy", "slices/xz/y1.fits"):
            path = self.cube / name
            with self.subTest(name):
                before = path.stat()
                self.grow(1)
                after = path.stat()
                self.assertEqual(after.st_ino, before.st_ino)
                self.assertEqual(len(path.read_bytes()), after.st_size)

    def test_another_map_of_bytes_is_another_inode(self):
        for name in ("slices/zx/y1.raw", "slices/zx/y1.npy", "slices/zyx/x0...raw"):
            # Growth along the fastest axis moves every byte after the first column.
            path = self.cube / name
            with self.subTest(name):
                before = path.stat().st_ino
                self.grow(1)
                self.assertNotEqual(path.stat().st_ino, before)

    def test_what_does_not_span_the_growth_axis_stays(self):
        for name in ("slices/xy/z1.npy", "slices/xy/z1.fits", "slices/x/y1_z1.raw",
                     "slices/xyz/z1..3.fits"):
            inode = (self.cube / name).stat().st_ino
            before = (self.cube / name).read_bytes()
            self.grow(1)
            self.assertEqual((self.cube / name).stat().st_ino, inode)
            self.assertEqual((self.cube / name).read_bytes(), before)

    def test_open_files_keep_what_they_show(self):
        names = ["cube.fits", "cube.npy", "slices/zx/y2.raw", "slices/zyx/x0...fits",
                 "slices/z/x1_y1.npy"]
        files = {n: open(self.cube / n, "rb") for n in names}
        before = {n: (self.cube / n).read_bytes() for n in names}
        self.grow(70)
        for name, file in files.items():
            with self.subTest(name), file:
                self.assertEqual(file.read(), before[name])
                self.assertNotEqual((self.cube / name).read_bytes(), before[name])

    def test_maps_keep_what_they_show(self):
        names = ["cube.fits", "cube.npy", "cube.raw", "slices/zx/y2.npy", "slices/zyx/x0...npy"]
        for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
            maps = {}
            for name in names:
                with open(self.cube / name, "rb") as file:
                    before = file.read()
                    maps[name] = before, mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ)
            self.grow(66)
            for name, (before, mapped) in maps.items():
                with self.subTest(name):
                    self.assertEqual(mapped[:], before)
                    mapped.close()

    def test_a_map_may_be_touched_first_after_growth(self):
        with open(self.cube / "cube.npy", "rb") as file:
            size = os.fstat(file.fileno()).st_size
            mapped = mmap.mmap(file.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ)
        old = self.data
        self.grow(3)
        found = np.frombuffer(mapped[size - old.nbytes:], "int32").reshape(old.shape)
        assert_same(found, old)
        mapped.close()

    def test_tail_f_sees_growth(self):
        tail = subprocess.Popen(["tail", "-c", "+1", "-s", "0.1", "-f",
                                 self.cube / "slices/z/x2_y3.raw"], stdout=subprocess.PIPE)
        try:
            self.assertEqual(tail.stdout.read(4 * NZ), self.data[:, 3, 2].tobytes())
            self.grow(2)
            self.assertEqual(tail.stdout.read(8), self.data[NZ:, 3, 2].tobytes())
        finally:
            tail.kill()
            tail.wait()
            tail.stdout.close()

    def test_an_open_raw_grows(self):
        with open(self.cube / "cube.raw", "rb", buffering=0) as file:
            self.assertEqual(len(file.read()), self.data.nbytes)
            for _ in range(5):
                at = self.data.nbytes
                self.grow(1)
                self.assertEqual(os.fstat(file.fileno()).st_size, self.data.nbytes)
                self.assertEqual(file.read(), self.data.tobytes()[at:])

    def test_every_view_shows_a_commit_at_once(self):
        for _ in range(20):
            self.grow(1)
            n = len(self.data)
            self.assertEqual((self.cube / "meta/shape").read_text(), f"{NX} {NY} {n}\n")
            self.assertEqual(np.load(self.cube / "cube.npy", mmap_mode="r").shape, (n, NY, NX))
            self.assertEqual(os.listdir(self.slices / "xy").count(f"z{n - 1:06}.fits"), 1)
            self.shows("xy/last", self.data[-1])
            self.shows("z/x1_y1", self.data[:, 1, 1])
            self.shows("zx/y1", self.data[:, 1].T)

    def test_a_name_that_was_missing_appears(self):
        path = self.slices / f"xy/z{NZ}.npy"
        for _ in range(5):
            self.assertEqual(errno_of(os.stat, path), "ENOENT")
            time.sleep(0.01)
        self.grow(1)
        assert_same(np.load(path), self.data[-1])


if __name__ == "__main__":
    mounted.main()
