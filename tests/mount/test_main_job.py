"""The main job as a user types it."""
import os
import pathlib
import shutil
import sys
import unittest

import mounted
import numpy as np
from frames import FITS_TYPES, assert_same, fits_bytes, generator, random_array, read_fits
from mounted import Mounted, is_mounted, need_fuse, run, scaled, shell, temporary_directory


class Helpers(unittest.TestCase):
    def test_the_frames_made_by_hand_are_what_astropy_reads(self):
        rng = generator()
        with temporary_directory() as base:
            for dtype in FITS_TYPES:
                for shape in [(3, 5), (7,), (2, 3, 4)]:
                    array = random_array(rng, shape, dtype)
                    (base / "a.fits").write_bytes(fits_bytes(array))
                    assert_same(read_fits(base / "a.fits"), array, dtype)
                    said = run("fitsverify", "-q", base / "a.fits").stdout
                    self.assertIn(b"verification OK", said)


class MainJob(unittest.TestCase):
    def test_the_transcript(self):
        frames = scaled(40, 18)
        with Daemonized() as job:
            simulate = mounted.program("ACCRETE_SIMULATE")
            run(simulate, "--frames", frames, "--size", "160x100", "--truth", job.base / "truth",
                job.base / "frames")
            job.type('"$ACCRETEFS" STORE MNT')
            self.assertTrue(is_mounted(job.mnt), "not mounted though the daemon had returned")
            job.type("mkdir MNT/m42")
            job.type("cp frames/*.fits MNT/m42/append/")
            self.assertEqual(job.type("cat MNT/m42/meta/shape"), f"160 100 {frames}\n")
            self.look(job, frames)
            job.type("fusermount3 -u MNT; \"$ACCRETEFS\" STORE MNT")
            self.assertEqual(job.type("cat MNT/m42/meta/shape"), f"160 100 {frames}\n")
            self.look(job, frames)
            job.unmount()

    def look(self, job, frames):
        originals = np.stack([read_fits(f) for f in sorted((job.base / "frames").iterdir())])
        self.assertEqual(originals.shape, (frames, 100, 160))
        mean = job.type("""python3 -c "from astropy.io import fits; """
                        """print(fits.getdata('MNT/m42/slices/xy/z000017.fits').mean())" """)
        self.assertEqual(mean.strip(), str(originals[17].mean()))
        shape = job.type("""python3 -c "import numpy as np; a=np.load('MNT/m42/slices/zx/"""
                         """y000005.npy',mmap_mode='r'); print(a.shape)" """)
        self.assertEqual(shape.strip(), f"(160, {frames})")
        column = job.type("dd if=MNT/m42/slices/z/x000120/y000088.raw status=none"
                          " | od -v -A n -w4 -t f4")
        found = np.array(column.split(), np.float64).astype(np.float32)
        assert_same(found, originals[:, 88, 120], "the column")
        job.type("cp MNT/m42/cube.fits m42.fits")
        assert_same(read_fits(job.base / "m42.fits"), originals, "the copy of the cube")
        self.assertIn("verification OK", job.type("fitsverify -q m42.fits"))
        # The planted cosmic rays are where the table says.
        for line in (job.base / "truth").read_text().splitlines()[:50]:
            frame, x, y, value = line.split()
            z_line = np.fromfile(job.mnt / f"m42/slices/z/y{y}_x{x}.raw", np.float32)
            self.assertEqual(z_line[int(frame)], np.float32(value))


class Daemonized:
    """A place where accretefs is started as a user starts it, without -f."""

    def __enter__(self):
        need_fuse()
        self._directory = temporary_directory()
        self.base = self._directory.__enter__()
        self.mnt = self.base / "MNT"
        self.mnt.mkdir()
        (self.base / "STORE").mkdir()
        (self.base / "bin").mkdir()
        (self.base / "bin/python3").symlink_to(sys.executable)
        reports = f"log_path={self.base}/sanitizer"
        self.environment = dict(os.environ, PATH=f"{self.base}/bin:{os.environ['PATH']}",
                                ASAN_OPTIONS=reports, UBSAN_OPTIONS=reports, TSAN_OPTIONS=reports)
        return self

    def __exit__(self, *_):
        while is_mounted(self.mnt):
            shell(f"fusermount3 -uz '{self.mnt}'")
        reports = "".join(r.read_text() for r in self.base.glob("sanitizer.*"))
        mounted.wait_until(lambda: not self.daemons(), "the daemons have ended", 60)
        self._directory.__exit__(None, None, None)
        if reports:
            raise AssertionError("a sanitizer reported:\n" + reports)

    def type(self, line):
        return shell(line, cwd=self.base, env=self.environment).stdout.decode()

    def unmount(self):
        run("fusermount3", "-u", self.mnt)
        mounted.wait_until(lambda: not self.daemons(), "the daemon has ended")

    def daemons(self):
        found = []
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                here = os.readlink(process / "cwd")
            except OSError:
                continue
            own = os.path.basename(mounted.program("ACCRETEFS")).encode()
            if os.path.basename(words[0]) == own and (
                    here == str(self.base) or bytes(self.base / "STORE") in words):
                found.append(int(process.name))
        return found


class Command(unittest.TestCase):
    def start(self, *words):
        return run(mounted.program("ACCRETEFS"), *words, check=False)

    def test_errors_are_clear(self):
        need_fuse()
        with temporary_directory() as base:
            (base / "mnt").mkdir()
            (base / "other").mkdir()
            (base / "other/file").write_text("not a cube\n")
            cases = {"no mount point": [base / "store", base / "missing"],
                     "no arguments": [],
                     "a store that is another directory": [base / "other", base / "mnt"],
                     "an unknown option": ["--nonsense", base / "store", base / "mnt"],
                     "a store inside its mount": [base / "mnt/store", base / "mnt"]}
            for what, words in cases.items():
                with self.subTest(what):
                    result = self.start(*words)
                    try:
                        self.assertNotEqual(result.returncode, 0)
                        self.assertTrue(result.stderr.strip(), "it said nothing")
                    finally:
                        if is_mounted(base / "mnt"):
                            run("fusermount3", "-u", base / "mnt")
            self.assertEqual((base / "other/file").read_text(), "not a cube\n")

    def test_help_and_version(self):
        self.assertIn(b"STORE", self.start("--help").stdout)
        self.assertIn(b"accretefs", self.start("--version").stdout.lower())

    def test_a_second_daemon_on_a_store_is_refused(self):
        with Mounted() as m, temporary_directory() as base:
            (base / "mnt").mkdir()
            result = self.start(m.store, base / "mnt")
            if is_mounted(base / "mnt"):
                run("fusermount3", "-u", base / "mnt")
            self.assertNotEqual(result.returncode, 0)
            self.assertIn(str(m.store), result.stderr.decode())
            (m / "c").mkdir()  # the first one is as before

    def test_a_dead_mount_is_taken_over(self):
        with Mounted() as m:
            (m / "c").mkdir()
            m.process.kill()
            m.process.wait()
            self.assertTrue(is_mounted(m.mnt))
            m.process = None
            # The old entry of the mount table would make the wait end at once: so wait for a listing.
            m.start()
            mounted.wait_until(lambda: "c" in listing(m.mnt), "the mount works again")


def listing(path):
    try:
        return os.listdir(path)
    except OSError:
        return []


if __name__ == "__main__":
    assert shutil.which("fitsverify"), "fitsverify is missing"
    mounted.main()
