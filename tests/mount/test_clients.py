"""The programs that astronomers use, on views."""
import io
import os
import tarfile
import unittest

import mounted
import numpy as np
from astropy.io import fits
from frames import assert_same, generator, random_array, read_fits, write_series
from mounted import Mounted, run, shell, temporary_directory


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.context = Mounted()
        cls.m = cls.context.__enter__()
        cls.addClassCleanup(cls.close)
        cls.temporary = temporary_directory()
        cls.base = cls.temporary.__enter__()
        rng = generator()
        cls.cubes = {}
        for dtype in ("float32", "uint16", "int8", "uint64"):
            frames = random_array(rng, (20, 48, 64), dtype)
            (cls.base / dtype).mkdir()
            cube = cls.m.cube(dtype)
            run("cp", *write_series(cls.base / dtype, frames), cube / "append")
            cls.cubes[dtype] = (cube, frames)
        cls.cube, cls.frames = cls.cubes["float32"]

    @classmethod
    def close(cls):
        try:
            cls.context.__exit__(None, None, None)
        finally:
            cls.temporary.__exit__(None, None, None)

    def copy(self, name):
        target = self.base / os.path.basename(name)
        run("cp", self.cube / name, target)
        return target

    # ---- astropy ----

    def test_astropy_opens(self):
        for dtype, (cube, frames) in self.cubes.items():
            with self.subTest(dtype):
                assert_same(read_fits(cube / "cube.fits"), frames)
                assert_same(read_fits(cube / "slices/xy/z000007.fits"), frames[7])
                assert_same(read_fits(cube / "slices/zx/y000005.fits"),
                            np.ascontiguousarray(frames[:, 5].T))
                assert_same(fits.getdata(cube / "slices/z/x3_y4.fits").astype(dtype),
                            frames[:, 4, 3])

    def test_astropy_maps(self):
        with fits.open(self.cube / "cube.fits", memmap=True) as hdus:
            data = hdus[0].data
            self.assertIsNotNone(data.base)
            assert_same(data[3].astype(np.float32), self.frames[3])
            assert_same(data[:, 5, 6].astype(np.float32), self.frames[:, 5, 6])

    def test_astropy_finds_nothing_to_mend(self):
        for name in ("cube.fits", "slices/xy/z000007.fits", "slices/xyz/x3..9_z2...fits"):
            with fits.open(self.cube / name) as hdus:
                self.assertEqual(len(hdus), 1)
                hdus.verify("exception")

    # ---- cfitsio ----

    def test_fitsverify_is_content(self):
        for dtype, (cube, _) in self.cubes.items():
            for name in ("cube.fits", "slices/xy/z000007.fits", "slices/zx/y000005.fits",
                         "slices/z/x000003/y000004.fits", "slices/xyz/x3..9_z2...fits",
                         "slices/zyx/x0...fits"):
                with self.subTest(dtype, name=name):
                    said = run("fitsverify", cube / name).stdout.decode()
                    self.assertIn("0 warning(s) and 0 error(s)", said)

    def test_cfitsio_copies(self):
        for program in ("fitscopy", "imcopy"):
            with self.subTest(program):
                target = self.base / f"{program}.fits"
                run(program, self.cube / "cube.fits", target)
                assert_same(read_fits(target), self.frames)

    def test_cfitsio_cuts_sections(self):
        target = self.base / "section.fits"
        cube, frames = self.cubes["uint16"]
        run("fitscopy", f"{cube}/cube.fits[2:10,3:30,4:9]", target)
        assert_same(read_fits(target), np.ascontiguousarray(frames[3:9, 2:30, 1:10]))

    def test_fpack_compresses_and_unpacks(self):
        cube, frames = self.cubes["uint16"]
        run("fpack", "-O", self.base / "plane.fz", cube / "slices/xy/z000002.fits")
        run("funpack", "-O", self.base / "plane.fits", self.base / "plane.fz")
        assert_same(read_fits(self.base / "plane.fits"), frames[2])

    # ---- numpy ----

    def test_numpy_loads(self):
        for dtype, (cube, frames) in self.cubes.items():
            with self.subTest(dtype):
                assert_same(np.load(cube / "cube.npy"), frames)
                mapped = np.load(cube / "cube.npy", mmap_mode="r")
                self.assertIsInstance(mapped, np.memmap)
                assert_same(np.array(mapped), frames)
                self.assertEqual(mapped.offset % 64, 0)
                assert_same(np.array(np.load(cube / "slices/zy/x9.npy", mmap_mode="c")),
                            np.ascontiguousarray(frames[:, :, 9].T))

    def test_numpy_memmap_and_fromfile(self):
        for dtype, (cube, frames) in self.cubes.items():
            with self.subTest(dtype):
                mapped = np.memmap(cube / "cube.raw", dtype, "r", shape=frames.shape)
                assert_same(np.array(mapped), frames)
                assert_same(np.fromfile(cube / "slices/xy/z000003.raw", dtype).reshape(48, 64),
                            frames[3])

    def test_numpy_reads_text(self):
        for dtype in ("float32", "int8"):
            cube, frames = self.cubes[dtype]
            with self.subTest(dtype):
                found = np.loadtxt(cube / "slices/z/x3_y4.txt", dtype=np.float64).astype(dtype)
                np.testing.assert_array_equal(found, frames[:, 4, 3])
        lines = (self.cubes["uint64"][0] / "slices/xy/z3.txt").read_text().split("\n")
        self.assertEqual(lines.pop(), "")
        self.assertEqual(len({len(line) for line in lines}), 1, "lines differ in width")
        self.assertEqual([int(line) for line in lines],
                         [int(v) for v in self.cubes["uint64"][1][3].ravel()])

    # ---- the shell ----

    def test_dd_od_cat_cmp(self):
        name = "slices/z/x000003/y000004.raw"
        said = shell(f"dd if={self.cube / name} bs=4 skip=2 count=3 status=none | od -A n -t f4")
        np.testing.assert_array_equal(
            np.array(said.stdout.split(), np.float64).astype(np.float32), self.frames[2:5, 4, 3])
        self.assertEqual(run("cat", self.cube / name).stdout, self.frames[:, 4, 3].tobytes())
        self.assertEqual(run("tail", "-c", 8, self.cube / name).stdout,
                         self.frames[-2:, 4, 3].tobytes())
        for i in range(20):
            run("cmp", self.base / f"float32/f{i:05}.fits", self.cube / f"append/f{i:05}.fits")
            run("cmp", self.base / f"float32/f{i:05}.fits", self.cube / f"frames/f{i:05}.fits")
        run("cmp", self.cube / "cube.raw", self.copy("cube.raw"))

    def test_find_and_wc_and_du(self):
        found = run("find", self.cube / "slices/xy", "-type", "f").stdout.decode().split()
        self.assertEqual(sorted(found),
                         [f"{self.cube}/slices/xy/z{z:06}.fits" for z in range(20)])
        found = run("find", self.cube, "-name", "cube.*").stdout.decode().split()
        self.assertIn(f"{self.cube}/cube.fits", found)
        run("find", self.m.mnt, "-ls")
        self.assertEqual(run("wc", "-c", self.cube / "cube.raw").stdout.split()[0],
                         str(self.frames.nbytes).encode())
        size = run("du", "--apparent-size", "-b", self.cube / "cube.raw").stdout.split()[0]
        self.assertEqual(size, str(self.frames.nbytes).encode())

    def test_tar_keeps_everything(self):
        for options in ([], ["--sparse"]):
            with self.subTest(options):
                data = run("tar", *options, "-C", self.cube, "-cf", "-", "slices/xy",
                           "frames").stdout
                with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                    for z in range(20):
                        member = archive.extractfile(f"slices/xy/z{z:06}.fits")
                        with fits.open(io.BytesIO(member.read())) as hdus:
                            assert_same(hdus[0].data.astype(np.float32), self.frames[z])
                        self.assertEqual(archive.extractfile(f"frames/f{z:05}.fits").read(),
                                         (self.base / f"float32/f{z:05}.fits").read_bytes())

    def test_cp_r_and_rsync_take_a_directory_out(self):
        out = self.base / "out"
        run("cp", "-r", self.cube / "slices/xz", out)
        self.assertEqual(len(os.listdir(out)), 48)
        assert_same(read_fits(out / "y000011.fits"), np.ascontiguousarray(self.frames[:, 11]))
        run("rsync", "-a", f"{self.cube}/slices/xy/", self.base / "synced")
        assert_same(read_fits(self.base / "synced/z000019.fits"), self.frames[19])

    # ---- header of views ----

    def test_cards_of_a_plane_are_those_of_its_frame(self):
        cube = self.m.cube("cards")
        (self.base / "cards").mkdir()
        run(mounted.program("ACCRETE_SIMULATE"), "--frames", 5, "--size", "40x30", "--drift", 1,
            self.base / "cards")
        run("cp", *sorted((self.base / "cards").iterdir()), cube / "append")
        for z in range(5):
            frame = fits.getheader(self.base / f"cards/frame-{z:06}.fits")
            plane = fits.getheader(cube / f"slices/xy/z{z}.fits")
            for key in ("OBJECT", "FILTER", "DATE-OBS", "EXPTIME", "FRAMENO", "CRPIX1", "CTYPE1"):
                self.assertEqual(plane[key], frame[key], key)
        whole = fits.getheader(cube / "cube.fits")
        self.assertEqual([whole[f"NAXIS{i}"] for i in (1, 2, 3)], [40, 30, 5])
        self.assertNotIn("FRAMENO", whole)


if __name__ == "__main__":
    mounted.main()
