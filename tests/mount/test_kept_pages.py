"""With io=cached the kernel keeps what it has of a view from one open to the next: reading it again
costs nothing, and shows whatever has changed meanwhile."""
import mmap
import multiprocessing
import os
import pathlib
import shutil
import struct
import time
import unittest

import mounted
import numpy as np
from frames import assert_same, fits_bytes, generator, npy_bytes, random_array, read_view, write_fits
from mounted import Mounted, put, run, shell

SHAPE = (192, 256)
DEPTH = 4
DTYPE = "float32"


class CachedMountTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.context = Mounted(options=["-o", "io=cached"])
        cls.m = cls.context.__enter__()
        cls.addClassCleanup(lambda: cls.context.__exit__(None, None, None))

    def setUp(self):
        self.cube = self.m.cube(self.id().rsplit(".", 1)[1])

    def replied(self, action):
        """Bytes that the daemon has written while that was done: its replies, and a little more."""
        def count():
            text = pathlib.Path(f"/proc/{self.m.pid}/io").read_text()
            return int(text.split("wchar: ")[1].split()[0])

        before = count()
        action()
        return count() - before


class KeptPages(CachedMountTest):
    def setUp(self):
        super().setUp()
        self.frames = random_array(generator(), (DEPTH, *SHAPE), DTYPE)
        self.append(self.frames)

    def append(self, frames, prefix="f"):
        for i, frame in enumerate(frames):
            write_fits(self.cube / "append" / f"{prefix}{i}.fits", frame, [f"OBJECT  = 'no {i}'"])

    def plane(self, z=1, extension="fits"):
        return self.cube / f"slices/xy/z{z:06}.{extension}"

    def is_read_anew(self, path):
        return self.replied(path.read_bytes) > path.stat().st_size // 2

    def assert_change_is_seen(self, change, after):
        """`after`: what plane 1 shows then."""
        views = [self.plane(1, extension) for extension in ("fits", "npy", "raw", "txt")]
        for path in views:
            for _ in range(3):
                path.read_bytes()
            self.assertFalse(self.is_read_anew(path), path)
        change()
        for path in views:
            assert_same(read_view(path, DTYPE, SHAPE), after, path)

    def test_a_second_reading_asks_for_nothing(self):
        for z in range(DEPTH):
            for extension in ("fits", "npy", "raw", "txt"):
                path = self.plane(z, extension)
                self.assertTrue(self.is_read_anew(path), path)
                for _ in range(3):
                    self.assertFalse(self.is_read_anew(path), path)
                assert_same(read_view(path, DTYPE, SHAPE), self.frames[z], path)

    def test_a_second_reader_leaves_the_pages_of_the_first(self):
        path = self.plane()
        with open(path, "rb") as file, \
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as first:
            first[:]
            self.assertFalse(self.is_read_anew(path))
            self.assertLess(self.replied(lambda: first[:]), len(first) // 2)

    def test_growth_leaves_planes(self):
        path = self.plane()
        path.read_bytes()
        self.append(self.frames[:1], "g")
        self.assertFalse(self.is_read_anew(path))

    def test_pokes_through_any_view_are_seen(self):
        expected = self.frames[1].copy()
        head = {extension: self.plane(1, extension).stat().st_size - expected.nbytes
                for extension in ("npy", "raw")}
        y, x = 5, 7
        for i, (path, offset, order) in enumerate([
                (self.plane(1, "raw"), head["raw"] + (y * SHAPE[1] + x) * 4, "="),
                (self.plane(1, "npy"), head["npy"] + (y * SHAPE[1] + x) * 4, "="),
                (self.cube / "cube.raw", ((SHAPE[0] + y) * SHAPE[1] + x) * 4, "="),
                (self.cube / f"slices/z/x{x:06}/y{y:06}.raw", 4, "="),
                (self.cube / "frames/f1.fits", 2880 + (y * SHAPE[1] + x) * 4, ">")]):
            with self.subTest(path=path):
                value = float(i + 1)
                cell = struct.pack(f"{order}f", value)

                def poke(path=path, offset=offset, cell=cell):
                    with open(path, "r+b", buffering=0) as file:
                        file.seek(offset)
                        file.write(cell)

                expected[y, x] = value
                self.assert_change_is_seen(poke, expected)

    def test_a_view_that_is_replaced_is_seen(self):
        other = random_array(generator(1), SHAPE, DTYPE)
        with mounted.temporary_directory() as base:
            write_fits(base / "other.fits", other)
            self.assert_change_is_seen(lambda: run("cp", base / "other.fits", self.plane()), other)
            (base / "other.npy").write_bytes(npy_bytes(other[::-1]))
            self.assert_change_is_seen(
                lambda: run("cp", base / "other.npy", self.plane(1, "npy")), other[::-1])

    def test_frames_that_go_and_come_back_are_seen(self):
        frames, removed = self.cube / "frames", self.cube / "removed"
        self.assert_change_is_seen(lambda: os.unlink(frames / "f1.fits"), self.frames[2])
        self.assert_change_is_seen(lambda: shutil.move(removed / "f1.fits", frames / "f1.fits"),
                                   self.frames[1])
        self.assert_change_is_seen(
            lambda: shell("rm frames/f1.fits && mv removed/f1.fits frames", cwd=self.cube),
            self.frames[1])

    def test_a_frame_that_is_replaced_or_sorted_is_seen(self):
        other = random_array(generator(2), SHAPE, DTYPE)
        put(self.cube, "samename", "replace")
        self.assert_change_is_seen(
            lambda: (self.cube / "append/f1.fits").write_bytes(fits_bytes(other)), other)
        write_fits(self.cube / "append/a.fits", self.frames[3])
        self.assert_change_is_seen(lambda: put(self.cube, "order", "name"), self.frames[0])

    def test_elements_that_no_frame_gave_and_their_mask_are_seen(self):
        write_fits(self.cube / "append/wide.fits", np.ones((SHAPE[0], SHAPE[1] + 2), DTYPE))
        mask = self.cube / "mask/xy/z000001.npy"
        plane = self.plane(1, "npy")
        for path in (mask, plane):
            path.read_bytes()
            self.assertFalse(self.is_read_anew(path), path)
        with open(plane, "r+b", buffering=0) as file:
            file.seek(-4, os.SEEK_END)
            file.write(struct.pack("=f", 3.0))
        self.assertEqual(np.load(plane)[-1, -1], 3)
        self.assertEqual(np.load(mask)[-1, -1], 1)
        self.assertEqual(np.load(mask)[0, -1], 0)

    def test_cards_are_seen(self):
        def header(path):
            return path.read_bytes()[:2880 * 2].decode("ascii", "replace")

        def edit(path, old, new):
            with open(path, "r+b", buffering=0) as file:
                file.seek(file.read(2880 * 2).index(old))
                file.write(new)

        plane, whole = self.plane(), self.cube / "cube.fits"
        frame, renamed = self.cube / "frames/f1.fits", self.cube / "frames/g.fits"
        for path, change, card in [
                (plane, lambda: edit(plane, b"'no 1'", b"'no 7'"), "'no 7'"),
                (plane, lambda: edit(frame, b"'no 7'", b"'no 8'"), "'no 8'"),
                (whole, lambda: put(self.cube, "header", "OBSERVER= 'me'\n"), "'me'"),
                (plane, lambda: os.rename(frame, renamed), "'g.fits"),
                (plane, lambda: os.rename(renamed, frame), "'f1.fits")]:
            self.assertNotIn(card, header(path))
            self.assertFalse(self.is_read_anew(path))
            change()
            self.assertIn(card, header(path))

    def test_cards_of_a_frame_are_seen_in_its_file(self):
        path = self.cube / "frames/f1.fits"
        for i in range(2, 6):
            path.read_bytes()
            with open(path, "r+b", buffering=0) as file:
                file.seek(file.read(2880).index(b"'no "))
                file.write(b"'no %d'" % i)
            self.assertIn(b"'no %d'" % i, path.read_bytes())


class Races(CachedMountTest):
    """Processes that poke, and others that open, read and close: who opens a file after a write has
    returned never sees what was before."""

    WRITERS, READERS = 2, 3
    SECONDS = 8 * mounted.SCALE

    def element(self, writer, z):
        return (17 * writer + 5) % SHAPE[0], (31 * z + writer) % SHAPE[1]

    def write(self, writer):
        """Counts up in each plane, through one view and another."""
        value = 0
        while not self.board[-1]:
            value += 1
            for z in range(DEPTH):
                y, x = self.element(writer, z)
                path, offset = [
                    (self.cube / f"slices/xy/z{z:06}.raw", (y * SHAPE[1] + x) * 4),
                    (self.cube / f"slices/z/x{x:06}/y{y:06}.raw", z * 4),
                    (self.cube / "cube.raw", ((z * SHAPE[0] + y) * SHAPE[1] + x) * 4),
                ][(value + z) % 3]
                with open(path, "r+b", buffering=0) as file:
                    os.pwrite(file.fileno(), struct.pack("=i", value), offset)
                self.board[writer * DEPTH + z] = value
                # Else no page would ever be kept.
                time.sleep(0.002 / mounted.SCALE)

    def read(self, reader):
        names = [f"slices/xy/z{z:06}.{extension}" for z in range(DEPTH)
                 for extension in ("npy", "raw")]
        # Opened by their inodes: looking up a name would tell the kernel of another mtime, by which
        # it drops all pages itself.
        inodes = [os.open(self.cube / name, os.O_PATH) for name in names]
        turn = reader
        while not self.board[-1]:
            turn += 1
            which = turn // 3 % len(names)
            name, z = names[which], which // 2
            least = [self.board[w * DEPTH + z] for w in range(self.WRITERS)]
            content = pathlib.Path(f"/proc/self/fd/{inodes[which]}").read_bytes()
            plane = np.frombuffer(content[-4 * SHAPE[0] * SHAPE[1]:], "i4").reshape(SHAPE)
            for w, value in enumerate(least):
                found = plane[self.element(w, z)]
                assert found >= value, f"{name}: {found}, after {value} was written"
        self.board[-2 - reader] = turn

    def test_no_reader_sees_what_was_before(self):
        for i in range(DEPTH):
            (self.cube / f"append/f{i}.npy").write_bytes(npy_bytes(np.zeros(SHAPE, "int32")))
        context = multiprocessing.get_context("fork")
        self.board = context.Array("q", self.WRITERS * DEPTH + self.READERS + 1, lock=False)
        processes = [context.Process(target=self.write, args=[i]) for i in range(self.WRITERS)]
        processes += [context.Process(target=self.read, args=[i]) for i in range(self.READERS)]

        def let_run():
            for process in processes:
                process.start()
            end = time.monotonic() + self.SECONDS
            while time.monotonic() < end and all(p.is_alive() for p in processes):
                time.sleep(0.05)
            self.board[-1] = 1
            for process in processes:
                process.join(mounted.PATIENCE)

        bytes_replied = self.replied(let_run)
        self.assertEqual([p.exitcode for p in processes], [0] * len(processes))
        read = sum(self.board[-1 - self.READERS:-1]) * 4 * SHAPE[0] * SHAPE[1]
        print(f"{read >> 20} MiB read, {bytes_replied >> 20} MiB of them from the daemon")
        self.assertLess(bytes_replied, read * 0.95, "pages were never kept")


if __name__ == "__main__":
    mounted.main()
