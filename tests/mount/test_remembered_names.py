"""Names and attributes that the kernel remembers: no question twice, and never an answer of before."""
import collections
import mmap
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
import unittest

import mounted
import numpy as np
from astropy.io import fits
from frames import assert_same, fits_bytes, npy_bytes, read_fits
from mounted import Mounted, OneMountTest, put, scaled

NX, NY = 6, 4


def plane(value, nx=NX, ny=NY, kind="int32"):
    return np.full((ny, nx), value, kind)


class Asked:
    """Counts the requests that a daemon with -d was sent since the last look."""

    def __init__(self, m):
        self.m = m
        self.at = 0

    def __call__(self):
        with open(self.m.log, encoding="utf-8", errors="replace") as log:
            log.seek(self.at)
            text = log.read()
            self.at = log.tell()
        return collections.Counter(re.findall(r"opcode: (\w+)", text))


class Questions(unittest.TestCase):
    def setUp(self):
        context = Mounted(options=["-d"])
        self.m = context.__enter__()
        self.addCleanup(lambda: context.__exit__(None, None, None))
        self.cube = self.m.cube("m")
        for z in range(5):
            (self.cube / f"append/f{z}.fits").write_bytes(fits_bytes(plane(z)))
        put(self.cube, "formats", "fits npy raw")
        self.asked = Asked(self.m)
        # Descriptors, so that no step of the path is asked for.
        self.planes = os.open(self.cube / "slices/xy", os.O_PATH)
        self.rows = os.open(self.cube / "slices/xz", os.O_PATH)
        self.columns = os.open(self.cube / "slices/z/x1", os.O_PATH)
        for directory in (self.planes, self.rows, self.columns):
            self.addCleanup(os.close, directory)

    def lookups(self, directory, *names):
        self.asked()
        for name in names:
            os.stat(name, dir_fd=directory)
        return self.asked()["LOOKUP"]

    def test_a_name_is_asked_for_once(self):
        names = [f"z00000{z}.{kind}" for z in range(5) for kind in ("fits", "npy", "raw")]
        self.assertEqual(self.lookups(self.planes, *names), len(names))
        self.assertEqual(self.lookups(self.planes, *names), 0)
        # Planes are what they were, however many follow them.
        for z in range(5, 8):
            (self.cube / f"append/f{z}.fits").write_bytes(fits_bytes(plane(z)))
        os.utime(self.cube / "append/f5.fits", (1, 1))
        self.assertEqual(self.lookups(self.planes, *names), 0)

    def test_what_reaches_to_the_end_is_asked_for_after_growth(self):
        rows = ["y000002.fits", "y000002.npy"]
        self.assertEqual(self.lookups(self.rows, *rows), 2)
        self.assertEqual(self.lookups(self.rows, *rows), 0)
        columns = ["y000002.raw", "y000002.txt"]
        self.assertEqual(self.lookups(self.columns, *columns), 2)
        (self.cube / "append/next.fits").write_bytes(fits_bytes(plane(5)))
        self.assertEqual(self.lookups(self.rows, *rows), 2)
        self.assertEqual(self.lookups(self.columns, *columns), 0, "these are extended")
        self.assertEqual(os.stat("y000002.raw", dir_fd=self.columns).st_size, 6 * 4)

    def test_a_listing_with_attributes_answers_for_its_names(self):
        def scan():
            self.asked()
            with os.scandir(self.cube / "slices/xy") as entries:
                found = [(e.name, os.stat(e.name, dir_fd=self.planes).st_ino == e.inode())
                         for e in entries]
            self.assertEqual(len(found), 15)
            self.assertTrue(all(same for _, same in found))
            return self.asked()

        first = scan()
        self.assertGreater(first["READDIRPLUS"], 0)
        # Steps of the path at most.
        self.assertLess(first["LOOKUP"], 4)
        self.assertLess(scan()["LOOKUP"], 4)


    def test_attributes_of_frames_are_asked_for_once(self):
        frames = os.open(self.cube / "frames", os.O_PATH)
        self.addCleanup(os.close, frames)
        opened = [os.open(f"f{z}.fits", os.O_RDONLY, dir_fd=frames) for z in range(5)]
        for file in opened:
            os.fstat(file)
        self.asked()
        for file in opened:
            os.fstat(file)
        self.assertEqual(self.asked()["GETATTR"], 0)
        for z in range(5, 8):
            (self.cube / f"append/f{z}.fits").write_bytes(fits_bytes(plane(z)))
        self.asked()
        for file in opened:
            os.fstat(file)
        self.assertEqual(self.asked()["GETATTR"], 0, "frames that follow change none")
        os.chmod("f0.fits", 0o600, dir_fd=frames)
        self.asked()
        for file in opened:
            os.fstat(file)
            os.close(file)
        self.assertEqual(self.asked()["GETATTR"], 5)

    def test_an_empty_file_that_comes_in_is_not_asked_for(self):
        content = fits_bytes(plane(7))
        name = self.cube / "append/new.fits"
        with open(name, "xb", buffering=0) as file:
            self.asked()
            for _ in range(3):
                self.assertEqual(os.fstat(file.fileno()).st_size, 0)
            self.assertEqual(self.asked()["GETATTR"], 0)
            file.write(content[:100])
            self.assertEqual(os.fstat(file.fileno()).st_size, 100)
            file.write(content[100:])
        self.assertEqual(os.stat(name).st_size, len(content))

    def test_the_size_of_what_grows_is_asked_for_after_growth(self):
        os.stat("y000002.raw", dir_fd=self.columns)
        self.asked()
        for z in range(5, 8):
            for _ in range(5):
                self.assertEqual(os.stat("y000002.raw", dir_fd=self.columns).st_size, 4 * z)
            (self.cube / f"append/f{z}.fits").write_bytes(fits_bytes(plane(z)))
        # A second may have passed, too, after which the time of the last change is asked for.
        self.assertLess(self.asked()["GETATTR"], 3 * 5)


class Attributes(OneMountTest):
    """What the kernel was told of a file is so no more as soon as what changed it has returned."""

    def setUp(self):
        super().setUp()
        for z in range(3):
            (self.cube / f"append/f{z}.fits").write_bytes(fits_bytes(plane(z)))
        put(self.cube, "formats", "raw")

    def opened(self, name):
        file = os.open(self.cube / name, os.O_RDONLY)
        self.addCleanup(os.close, file)
        for _ in range(2):
            os.fstat(file)
        return file

    def test_mode_owner_and_times(self):
        file = self.opened("frames/f1.fits")
        os.chmod(self.cube / "append/f1.fits", 0o640)
        self.assertEqual(os.fstat(file).st_mode & 0o7777, 0o640)
        os.utime(self.cube / "append/f1.fits", ns=(5, 7_000_000_003))
        self.assertEqual(os.fstat(file).st_mtime_ns, 7_000_000_003)
        self.assertEqual(os.stat(self.cube / "frames/f1.fits").st_mtime_ns, 7_000_000_003)

    def test_removed_and_gone(self):
        file = self.opened("frames/f1.fits")
        os.unlink(self.cube / "append/f1.fits")
        self.assertEqual(os.fstat(file).st_nlink, 1)
        os.unlink(self.cube / "removed/f1.fits")
        self.assertEqual(os.fstat(file).st_nlink, 0)

    def test_written_anew(self):
        self.opened("frames/f1.fits")
        longer = fits_bytes(plane(9)) + fits_bytes(plane(8))
        with open(self.cube / "append/f1.fits", "wb") as file:
            file.write(longer)
            file.flush()
            os.fstat(file.fileno())
        for name in ("append/f1.fits", "frames/f1.fits"):
            self.assertEqual(os.stat(self.cube / name).st_size, len(longer))

    def test_replaced_by_one_that_was_renamed(self):
        file = self.opened("append/f1.fits")
        name = self.cube / "append/.f1.fits.abcdef"
        longer = fits_bytes(plane(9)) + fits_bytes(plane(8))
        name.write_bytes(longer)
        os.stat(name)
        os.rename(name, self.cube / "append/f1.fits")
        self.assertEqual(os.fstat(file).st_nlink, 0)
        self.assertEqual(os.stat(self.cube / "append/f1.fits").st_size, len(longer))

    def test_what_is_kept_of_it_is_no_more_than_its_frame(self):
        put(self.cube, "residue", "drop")
        content = fits_bytes(plane(9)) + b"something behind" * 1000
        with open(self.cube / "append/x.fits", "wb", buffering=0) as file:
            file.write(content)
            self.assertEqual(os.fstat(file.fileno()).st_size, len(content))
        self.assertEqual(os.stat(self.cube / "append/x.fits").st_size, len(fits_bytes(plane(9))))

    def test_replaced_through_another_door(self):
        put(self.cube, "samename", "replace")
        file = self.opened("frames/f1.fits")
        (self.cube / "prepend/f1.fits").write_bytes(fits_bytes(plane(9)))
        self.assertEqual(os.fstat(file).st_nlink, 0)

    def test_a_view_that_grows_and_one_whose_indexes_go(self):
        for count in range(4, 8):
            (self.cube / f"prepend/f{count}.fits").write_bytes(fits_bytes(plane(count)))
            (self.cube / f"append/g{count}.fits").write_bytes(fits_bytes(plane(count)))
            path = self.cube / "slices/z/x1_y1.raw"
            self.assertEqual(os.stat(path).st_size, 4 * (3 + 2 * (count - 3)))
        for count in range(4, 8):
            os.unlink(self.cube / f"append/g{count}.fits")
            self.assertEqual(os.stat(self.cube / "slices/z/x1_y1.raw").st_size, 4 * (14 - count))


class Meanings(OneMountTest):
    """A name means the new thing as soon as what changed it has returned."""

    def setUp(self):
        super().setUp()
        self.planes = []
        for z in range(4):
            self.door("append", z)
        put(self.cube, "formats", "fits npy raw txt")

    def door(self, door, value, name=None, **more):
        name = name or f"f{value}.fits"
        (self.cube / door / name).write_bytes(fits_bytes(plane(value, **more)))

    def remember(self, z=1):
        """Twice: the second time from what the kernel remembers."""
        for _ in range(2):
            for kind in ("fits", "npy", "raw", "txt"):
                os.stat(self.cube / f"slices/xy/z00000{z}.{kind}")
                os.stat(self.cube / f"mask/xy/z00000{z}.npy")
                os.stat(self.cube / f"slices/z/x0/y0.{kind}")
                os.stat(self.cube / f"slices/z/x0_y0.{kind}")
                os.stat(self.cube / f"cube.{kind}")

    def shows(self, expected):
        cube = np.array(expected)
        assert_same(np.load(self.cube / "cube.npy"), cube, "cube.npy")
        assert_same(np.fromfile(self.cube / "cube.raw", cube.dtype), cube.ravel(), "cube.raw")
        for name in ("x0/y0", "x0_y0"):
            assert_same(np.load(self.cube / f"slices/z/{name}.npy"), cube[:, 0, 0], name)
        for z, expected in enumerate(cube):
            name = self.cube / f"slices/xy/z00000{z}"
            assert_same(np.load(f"{name}.npy"), expected, name)
            assert_same(np.fromfile(f"{name}.raw", cube.dtype), expected.ravel(), name)
            assert_same(np.loadtxt(f"{name}.txt", dtype=cube.dtype), expected.ravel(), name)
            assert_same(read_fits(f"{name}.fits"), expected, name)
            self.assertEqual(np.load(self.cube / f"mask/xy/z00000{z}.npy").shape, expected.shape)
        for kind in ("fits", "npy", "raw", "txt"):
            with self.assertRaises(FileNotFoundError):
                os.stat(self.cube / f"slices/xy/z00000{len(cube)}.{kind}")

    def test_prepended(self):
        for value in range(10, 14):
            self.remember()
            self.door("prepend", value)
        self.shows([plane(v) for v in (13, 12, 11, 10, 0, 1, 2, 3)])

    def test_inserted(self):
        self.remember(2)
        self.door("insert/z/2", 20)
        self.shows([plane(v) for v in (0, 1, 20, 2, 3)])

    def test_removed_and_brought_back(self):
        self.remember(3)
        self.remember(1)
        os.unlink(self.cube / "append/f1.fits")
        self.shows([plane(v) for v in (0, 2, 3)])
        self.remember(1)
        os.rename(self.cube / "removed/f1.fits", self.cube / "append/f1.fits")
        self.shows([plane(v) for v in range(4)])

    def test_a_wider_frame(self):
        self.remember()
        self.door("append", 4, nx=NX + 2)
        wide = [np.pad(plane(v), ((0, 0), (0, 2))) for v in range(4)]
        self.shows([*wide, plane(4, nx=NX + 2)])

    def test_a_strip_at_the_side(self):
        self.remember()
        (self.cube / "append/x/strip.fits").write_bytes(fits_bytes(np.full((4, NY, 1), 9, "int32")))
        self.shows([np.pad(plane(v), ((0, 0), (0, 1)), constant_values=9) for v in range(4)])

    def test_replaced(self):
        self.remember()
        (self.cube / "append/.f1.fits.abcdef").write_bytes(fits_bytes(plane(30)))
        os.rename(self.cube / "append/.f1.fits.abcdef", self.cube / "append/f1.fits")
        self.shows([plane(v) for v in (0, 30, 2, 3)])

    def test_sorted(self):
        os.rename(self.cube / "frames/f0.fits", self.cube / "frames/g.fits")
        self.remember()
        put(self.cube, "order", "name")
        self.shows([plane(v) for v in (1, 2, 3, 0)])

    def test_all_gone_and_another(self):
        self.remember()
        for z in range(4):
            os.unlink(self.cube / f"append/f{z}.fits")
            os.unlink(self.cube / f"removed/f{z}.fits")
        with self.assertRaises(FileNotFoundError):
            os.stat(self.cube / "slices/xy/z000001.npy")
        other = np.arange(6, dtype="float64").reshape(2, 3)
        (self.cube / "append/a.npy").write_bytes(npy_bytes(other))
        assert_same(np.load(self.cube / "slices/xy/z000000.npy"), other)

    def test_what_shows_a_whole_axis_no_more_has_a_shorter_header(self):
        sections = ["TRIMSEC", "DATASEC", "BIASSEC", "CCDSEC", "DETSEC", "AMPSEC"]
        cube = self.m.cube("sections")
        put(cube, "formats", "fits")
        for z in range(36):
            header = fits.Header({k: f"[1:{NX},1:{NY}]" for k in sections})
            header.update({f"FILL{i}": i for i in range(z)})
            fits.writeto(cube / f"append/f{z:02}.fits", plane(z), header)
        names = [cube / f"slices/xy/x0..{NX}_z{z}.fits" for z in range(36)]
        before = [os.stat(name).st_size for name in names]
        kept = [open(name, "rb") for name in names]
        for file in kept:
            self.addCleanup(file.close)
        (cube / "append/wide.fits").write_bytes(fits_bytes(plane(9, nx=NX + 2)))
        after = []
        for z, name in enumerate(names):
            after.append(os.stat(name).st_size)
            self.assertEqual(len(name.read_bytes()), after[-1], name)
            self.assertNotIn("TRIMSEC", fits.getheader(name))
            assert_same(read_fits(name), plane(z), name)
        self.assertNotEqual(before, after, "one is a block shorter")
        for file, size in zip(kept, before):
            self.assertEqual(len(file.read()), size)

    def test_headers(self):
        def card(name, keyword):
            return fits.getheader(self.cube / name).get(keyword)

        names = ["slices/xy/z000001.fits", "slices/xz/y000001.fits", "cube.fits"]
        for text in ("OBSERVER= 'one'", "OBSERVER= 'two'"):
            self.remember()
            put(self.cube, "header", text + "\n")
            self.assertEqual([card(n, "OBSERVER") for n in names[1:]], [text[-4:-1]] * 2)
        # Cards of a plane, in place.
        self.remember()
        with open(self.cube / names[0], "r+b") as file:
            header = file.read(2880)
            file.seek(next(at for at in range(0, 2880, 80) if not header[at:at + 80].strip()))
            file.write(b"FILTER  = 'red     '".ljust(80))
        self.assertEqual(card(names[0], "FILTER"), "red")
        # A frame of another name, and one that lacks a card that the others share.
        self.remember()
        os.rename(self.cube / "frames/f1.fits", self.cube / "frames/new.fits")
        self.assertEqual(card(names[0], "ACRFRAME"), "new.fits")


READER = """
import mmap, os, struct, sys
path, counter, failures = sys.argv[1:4]
done = mmap.mmap(os.open(counter, os.O_RDWR), 8)
said = lambda: struct.unpack("q", done[:8])[0]
rounds = 0
while (least := said()) >= 0:
    with open(path, "rb", buffering=0) as file:
        found = struct.unpack("<i", file.read(132)[-4:])[0]
    rounds += 1
    if found < least:
        open(failures, "a").write(f"{found} after {least}\\n")
print(rounds)
"""


class Races(unittest.TestCase):
    def test_no_open_finds_less_than_the_last_copy_that_has_returned(self):
        """Frames count up as they are prepended; so plane 0 never shows less than was said."""
        with Mounted() as m:
            cube = m.cube("m")
            (cube / "append/f0.npy").write_bytes(npy_bytes(plane(0)))
            counter = m.base / "counter"
            failures = m.base / "failures"
            counter.write_bytes(bytes(8))
            done = mmap.mmap(os.open(counter, os.O_RDWR), 8)
            readers = [subprocess.Popen([sys.executable, "-c", READER,
                                         cube / f"slices/xy/{name}.npy", counter, failures],
                                        stdout=subprocess.PIPE)
                       for name in ("z000000", "z000000", "z0", "x0.._z0")]
            end = time.monotonic() + 6 * mounted.SCALE
            value = 0
            while time.monotonic() < end:
                value += 1
                (cube / f"prepend/f{value}.npy").write_bytes(npy_bytes(plane(value)))
                done[:8] = struct.pack("q", value)
                if value % 7 == 0:  # now and then names that stay believed for a while
                    time.sleep(0.02)
            done[:8] = struct.pack("q", -1)
            rounds = [int(reader.communicate(timeout=mounted.PATIENCE)[0]) for reader in readers]
            self.assertEqual([reader.returncode for reader in readers], [0] * len(readers))
            print(f"{value} frames, {rounds} opens")
            self.assertGreater(min(rounds), value // 10)
            self.assertFalse(failures.exists(), failures.exists() and failures.read_text())

    def test_listing_and_looking_while_the_cube_changes(self):
        """Nothing waits for whom waits for it, whoever has the lock of a directory of views."""
        with Mounted() as m:
            cube = m.cube("m")
            count = scaled(400, 50)
            np.save(m.base / "planes.npy", np.zeros((count, NY, NX), "int32"))
            shutil.copyfile(m.base / "planes.npy", cube / "append/planes.npy")
            stop = threading.Event()
            failed = []

            def repeat(action):
                def run_it():
                    rounds = 0
                    while not stop.is_set():
                        try:
                            action()
                        except FileNotFoundError:
                            pass
                        except Exception as error:
                            failed.append((action, error))
                        rounds += 1
                    if rounds == 0:
                        failed.append((action, "no time"))

                thread = threading.Thread(target=run_it)
                thread.start()
                return thread

            def scan():
                with os.scandir(cube / "slices/xy") as entries:
                    for entry in entries:
                        found = os.stat(entry.path)
                        if found.st_size != 128 + NX * NY * 4:
                            failed.append((entry.name, found))

            def sync():
                directory = os.open(cube / "slices/xy", os.O_RDONLY)
                try:
                    os.fsync(directory)
                finally:
                    os.close(directory)

            def misuse():
                for call in (lambda: os.unlink(cube / "slices/xy/z000000.npy"),
                             lambda: os.rename(cube / "slices/xy/z000000.npy",
                                               cube / "slices/xy/new.npy"),
                             lambda: open(cube / "slices/xy/new", "wb").close(),
                             lambda: os.mkdir(cube / "slices/xy/new")):
                    with self.assertRaises(PermissionError):
                        call()

            threads = [repeat(action) for action in (scan, scan, sync, misuse)]
            end = time.monotonic() + 5 * mounted.SCALE
            rounds = 0
            while time.monotonic() < end:
                rounds += 1
                (cube / "prepend/first.npy").write_bytes(npy_bytes(plane(rounds)))
                self.assertEqual(np.load(cube / "slices/xy/z000000.npy")[0, 0], rounds)
                os.unlink(cube / "prepend/first.npy")
                self.assertEqual(np.load(cube / "slices/xy/z000000.npy")[0, 0], 0)
                os.unlink(cube / "removed/first.npy")
            stop.set()
            for thread in threads:
                thread.join(mounted.PATIENCE)
                self.assertFalse(thread.is_alive(), "hung")
            print(f"{rounds} rounds")
            self.assertGreater(rounds, 2)
            self.assertEqual(failed, [])


SCANNER = """
import os, sys
while True:
    try:
        with os.scandir(sys.argv[1]) as entries:
            for entry in entries:
                os.stat(entry.path)
    except FileNotFoundError:
        pass
    except OSError:
        break
"""


class Ends(unittest.TestCase):
    def test_a_daemon_that_is_told_to_end_does_so_while_names_are_asked_for_and_revoked(self):
        for _ in range(scaled(5, 2)):
            with Mounted() as m:
                cube = m.cube("m")
                np.save(m.base / "planes.npy", np.zeros((300, NY, NX), "int32"))
                shutil.copyfile(m.base / "planes.npy", cube / "append/planes.npy")
                scanners = [subprocess.Popen([sys.executable, "-c", SCANNER, cube / "slices/xy"])
                            for _ in range(3)]

                def prepend():
                    value = 0
                    try:
                        while True:
                            value += 1
                            (cube / f"prepend/f{value}.npy").write_bytes(npy_bytes(plane(value)))
                    except OSError:
                        pass  # the mount is gone

                thread = threading.Thread(target=prepend)
                thread.start()
                time.sleep(0.5)
                m.process.terminate()
                try:
                    m.wait_for_end()
                finally:
                    m.unmount_dead()
                    for scanner in scanners:
                        scanner.kill()
                        scanner.wait()
                    thread.join(mounted.PATIENCE)
                self.assertFalse(thread.is_alive(), "hung")


class ManyNames(unittest.TestCase):
    def test_a_scan_of_more_than_the_kernel_is_to_hold(self):
        count = scaled(160_000, 3_000)
        with Mounted() as m:
            cube = m.cube("m")
            np.save(m.base / "planes.npy", np.zeros((count, 1, 2), "int16"))
            shutil.copyfile(m.base / "planes.npy", cube / "append/planes.npy")
            for _ in range(2):
                begin = time.monotonic()
                with os.scandir(cube / "slices/xy") as entries:
                    found = [(e.name, e.inode(), os.stat(e.path)) for e in entries]
                print(f"{count} planes in {time.monotonic() - begin:.2f} s, "
                      f"{m.anonymous_memory() >> 20} MiB")
                self.assertEqual([name for name, _, _ in found],
                                 [f"z{z:06}.npy" for z in range(count)])
                self.assertEqual({s.st_size for _, _, s in found}, {132})
                self.assertTrue(all(ino == s.st_ino for _, ino, s in found))
                self.assertEqual(len({s.st_ino for _, _, s in found}), count)
            if not mounted.SANITIZE:
                self.assertLess(m.anonymous_memory(), 160 << 20)
            # All that is remembered means something else.
            begin = time.monotonic()
            (cube / "prepend/first.npy").write_bytes(npy_bytes(np.full((1, 2), 7, "int16")))
            print(f"prepended in {time.monotonic() - begin:.2f} s")
            self.assertEqual(np.load(cube / "slices/xy/z000000.npy")[0, 0], 7)
            self.assertEqual(np.load(cube / f"slices/xy/z{count:06}.npy")[0, 0], 0)


if __name__ == "__main__":
    mounted.main()
