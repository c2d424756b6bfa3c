"""A disk that goes bad costs what it does not give back, and nothing else."""
import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import unittest
from pathlib import Path

import mounted
import numpy as np
from bad_disk import BadDisk, need_root
from frames import assert_same, generator, random_array, read_view, write_series
from mounted import Mounted, errno_of, fails, put, run, shape_of, temporary_directory

PAGE = 4096
# A frame of 64 KiB, in a page of its own at either end.
SHAPE = (128, 128)

MAP_AND_READ = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
at = int(sys.argv[2])
print(view[at:at + 4].hex())
"""


def events(cube):
    return [json.loads(line) for line in (cube / "history").read_text().splitlines()]


def sync(file):
    """fsync() of a file of the cube."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def page_out(pid, file):
    """Has the kernel take these pages from the process, where it lets it."""
    libc = ctypes.CDLL(None, use_errno=True)
    process_madvise, pageout = 440, 21
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
        ranges = [line.split()[0] for line in maps if line.rstrip().endswith(str(file))]
    if not ranges:
        raise AssertionError(f"{file} is not mapped")
    pidfd = os.pidfd_open(pid)
    try:
        for text in ranges:
            begin, end = (int(each, 16) for each in text.split("-"))
            piece = (ctypes.c_size_t * 2)(begin, end - begin)
            libc.syscall(process_madvise, pidfd, piece, ctypes.c_size_t(1), pageout,
                         ctypes.c_uint(0))
    finally:
        os.close(pidfd)


class BadDiskTest(unittest.TestCase):
    def setUp(self):
        need_root(self)
        context = temporary_directory()
        self.base = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.disk = BadDisk(self, self.base)
        (self.disk.mnt / "store").mkdir()
        (self.base / "in").mkdir()
        self.frames = random_array(generator(), (16, *SHAPE), "float32")
        self.paths = write_series(self.base / "in", self.frames)

    def mount(self):
        m = Mounted(store=self.disk.mnt / "store")
        self.addCleanup(self.end, m)
        return m.start()

    @staticmethod
    def end(m):
        m.__exit__(*sys.exc_info())

    def file(self, name, cube="c"):
        return self.disk.mnt / "store" / cube / name

    def fill(self, m, frames=4):
        """Cubes c and d with so many frames, on disk."""
        self.cube = m / "c"
        for name in ("c", "d"):
            cube = m.cube(name)
            run("cp", *self.paths[:frames], cube / "append")
            sync(cube / "meta/shape")

    def assert_has(self, cube, frames):
        self.assertEqual(shape_of(cube), [*reversed(SHAPE), len(frames)])
        assert_same(read_view(cube / "cube.npy", None, None), frames)

    @unittest.skipIf(mounted.SANITIZE, "sanitizers let no memory be locked")
    def test_a_checkpoint_that_cannot_be_read_any_more(self):
        """Rows of frames are read from its mapping at any time."""
        m = self.mount()
        self.fill(m, 16)
        while (sum(os.stat(each).st_size for each in self.file("").glob("journal.*"))) < 300 << 10:
            for formats in ("npy", "fits") * 50:
                put(self.cube, "formats", formats)
        m.remount()
        self.assert_has(self.cube, self.frames)
        checkpoint = max(self.file("").glob("checkpoint.*"))
        self.assertGreater(checkpoint.stat().st_size, PAGE)
        self.disk.make_bad("read", checkpoint)
        page_out(m.pid, checkpoint)
        Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
        names = [path.name for path in self.paths]
        self.assertEqual(sorted(os.listdir(self.cube / "frames")), sorted(names))
        table = (self.cube / "meta/frames").read_text()
        self.assertTrue(all(name in table for name in names))
        self.assert_has(self.cube, self.frames)

    # ---- Syncs that fail ----

    def fail_a_sync(self, change, make_bad):
        """Makes changes to cube c until a sync of them fails. The one that comes by itself may be
        there before the disk is bad."""
        for turn in range(10):
            change(turn)
            make_bad()
            failed = errno_of(sync, self.cube / "meta/shape")
            self.disk.make_good()
            if failed != "OK":
                self.assertIn(failed, ("EIO", "EROFS"))
                self.assertGreater(self.disk.failures(), 0)
                return
        self.fail("the disk does not fail")

    def fence_by(self, file):
        """Cube c loses a sync of that file, in which frames were to reach the disk."""
        m = self.mount()
        self.fill(m)
        cube, other = self.cube, m / "d"
        self.fail_a_sync(lambda turn: run("cp", self.paths[4 + turn], cube / "append"),
                         lambda: self.disk.make_bad("write", self.file(file)))

        # Read-only, and not tried again although the disk would do it.
        failures = self.disk.failures()
        self.assertEqual(errno_of(sync, cube / "meta/shape"), "EROFS")
        fails("cp", self.paths[-1], cube / "append", because=errno.EROFS)
        fails("rm", cube / "frames" / self.paths[0].name, because=errno.EROFS)
        self.assertEqual(errno_of(put, cube, "formats", "npy"), "EROFS")
        self.assertEqual(errno_of(self.poke, cube), "EROFS")
        self.assertEqual(self.disk.failures(), failures)
        frames = shape_of(cube)[2]
        self.assert_has(cube, self.frames[:frames])
        told = events(cube)
        fence = [e for e in told if e["event"] == "fence"]
        self.assertEqual([e["errno"] for e in fence], [errno.EIO])
        self.assertIn(file, fence[0]["sentence"])
        unsynced = [e["name"] for e in told if e["event"] == "unsynced"]
        self.assertGreater(len(unsynced), 0)
        self.assertEqual(unsynced, [p.name for p in self.paths[frames - len(unsynced):frames]])

        # The other cube goes on.
        run("cp", self.paths[4], other / "append")
        sync(other / "meta/shape")
        self.assert_has(other, self.frames[:5])
        self.what_is_kept(m, frames - len(unsynced), frames)

    @staticmethod
    def poke(cube, z=0, at=0, value=b"\0\0\0\0"):
        fd = os.open(cube / f"slices/xy/z{z:06}.raw", os.O_WRONLY)
        try:
            os.pwrite(fd, value, at)
        finally:
            os.close(fd)

    def what_is_kept(self, m, synced, frames):
        """After a restart the cube has what was synced, and of the rest only what is whole. What it
        says is on disk stays so when the kernel forgets its files."""
        m.remount()
        cube = self.cube
        kept = shape_of(cube)[2]
        self.assertGreaterEqual(kept, synced)
        self.assertLessEqual(kept, frames)
        self.assert_has(cube, self.frames[:kept])
        run("cp", self.paths[-1], cube / "append")
        sync(cube / "meta/shape")
        m.stop()
        self.disk.forget()
        m.start()
        self.assertEqual(errno_of(put, cube, "formats", "fits npy"), "OK")
        self.assert_has(cube, np.concatenate([self.frames[:kept], self.frames[-1:]]))
        self.assert_has(m / "d", self.frames[:5])
        print(f"{kept - synced} of {frames - synced} frames that were not synced are there")

    def test_data_cannot_be_written(self):
        self.fence_by("bricks")

    def test_the_journal_cannot_be_written(self):
        self.fence_by("journal.000001")

    def test_a_poke_cannot_be_written(self):
        m = self.mount()
        self.fill(m)
        cube = m / "c"

        def value():
            return (cube / "slices/xy/z0.raw").read_bytes()[:4]

        values = [b"%04d" % n for n in range(12)]

        def poke(turn):
            self.poke(cube, value=values[turn])

        poke(-1)  # notes that there are pokes
        sync(cube / "meta/shape")
        self.fail_a_sync(poke, lambda: self.disk.make_bad("write", self.file("bricks")))
        self.assertIn(value(), values)
        m.remount()
        kept = value()
        self.assertIn(kept, values)
        self.poke(cube, z=1, value=b"4444")
        sync(cube / "meta/shape")
        m.stop()
        self.disk.forget()
        m.start()
        self.assertEqual(value(), kept)

    def test_the_whole_filesystem_gives_up(self):
        m = self.mount()
        self.fill(m)
        cube = m / "c"
        # A flush that fails ends the filesystem's own journal.
        synced = 4
        for path in self.paths[4:-1]:
            if run("cp", path, cube / "append", check=False).returncode != 0:
                break
            self.disk.command("fail sync 1")
            synced += errno_of(sync, cube / "meta/shape") == "OK"
        self.assertGreater(self.disk.failures(), 0)
        self.disk.make_good()
        for door in (cube / "append", m / "d/append"):
            self.assertNotEqual(run("cp", self.paths[-1], door, check=False).returncode, 0)
        self.assertNotEqual((cube / "last-error").read_text(), "")
        frames = shape_of(cube)[2]
        self.assert_has(cube, self.frames[:frames])
        self.assert_has(m / "d", self.frames[:4])
        m.stop()
        self.disk.forget()
        m.start()
        kept = shape_of(cube)[2]
        self.assertGreaterEqual(kept, synced)
        self.assert_has(cube, self.frames[:kept])
        self.assert_has(m / "d", self.frames[:4])
        run("cp", self.paths[-1], cube / "append")
        sync(cube / "meta/shape")

    # ---- Bytes that cannot be read ----

    def start_with_a_bad_page(self):
        """The daemon has mapped all, and read none of it. Frame 1 of four has a page that cannot be
        read; returns where that begins in its elements."""
        m = self.mount()
        self.fill(m)
        bricks = self.file("bricks").read_bytes()
        pages = 5 * PAGE
        at = bricks.index(self.frames[1].astype(">f4").tobytes()[pages:pages + PAGE])
        m.stop()
        self.disk.forget()
        m.start()
        self.disk.make_bad("read", self.file("bricks"), at, PAGE)
        return m, pages

    def test_bytes_that_cannot_be_read(self):
        m, bad = self.start_with_a_bad_page()
        cube = m / "c"
        plane = cube / "slices/xy/z000001.raw"
        self.assertEqual(errno_of(plane.read_bytes), "EIO")
        whole = self.frames[1].tobytes()
        wrong = []
        with open(plane, "rb", buffering=0) as file:
            for at in range(0, len(whole), PAGE):
                try:
                    self.assertEqual(os.pread(file.fileno(), PAGE, at), whole[at:at + PAGE])
                except OSError as error:
                    self.assertEqual(error.errno, errno.EIO)
                    wrong.append(at)
        self.assertEqual(wrong, [bad])
        for path in (cube / "frames" / self.paths[1].name, cube / "cube.npy"):
            self.assertEqual(errno_of(path.read_bytes), "EIO")

        # All else goes on.
        for z in (0, 2, 3):
            assert_same(read_view(cube / f"slices/xy/z{z}.npy", None, None), self.frames[z])
        self.assert_has(m / "d", self.frames[:4])
        run("cp", self.paths[4], cube / "append")
        assert_same(read_view(cube / "slices/xy/z4.npy", None, None), self.frames[4])
        self.assertEqual(errno_of(self.poke, cube, 1, bad), "EIO")
        self.assertIsNone(m.process.poll())

        self.disk.make_good()
        assert_same(read_view(plane.with_suffix(".npy"), None, None), self.frames[1])
        m.remount()
        self.assert_has(cube, self.frames[:5])

    def test_a_mapped_view_of_bytes_that_cannot_be_read(self):
        m, bad = self.start_with_a_bad_page()
        plane = m / "c/slices/xy/z000001.raw"

        def map_and_read(at):
            return subprocess.run([sys.executable, "-c", MAP_AND_READ, plane, str(at)], check=False,
                                  stdout=subprocess.PIPE, timeout=mounted.PATIENCE)

        self.assertEqual(map_and_read(bad).returncode, -signal.SIGBUS)
        self.assertIsNone(m.process.poll())
        self.assertEqual(map_and_read(bad - 2 * PAGE).stdout.decode().strip(),
                         self.frames[1].tobytes()[bad - 2 * PAGE:][:4].hex())
        assert_same(read_view(m / "c/slices/xy/z0.npy", None, None), self.frames[0])
        self.disk.make_good()
        self.assertEqual(map_and_read(bad).stdout.decode().strip(),
                         self.frames[1].tobytes()[bad:][:4].hex())


if __name__ == "__main__":
    mounted.main()
