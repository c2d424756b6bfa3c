"""What is there after the daemon ended in any orderly way."""
import errno
import os
import signal
import subprocess
import unittest

import mounted
import numpy as np
from frames import assert_same, fits_bytes, generator, random_array, write_series
from mounted import Mounted, is_mounted, run, shape_of, temporary_directory


def fingerprint(root):
    """Every file below: its size, mode and content, and of frames and views the mtime."""
    found = {}
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            info = os.stat(path)
            telling = "/meta/" in path or name in ("history", "last-error")
            with open(path, "rb") as file:
                found[os.path.relpath(path, root)] = (
                    info.st_size, info.st_mode, None if telling else info.st_mtime_ns,
                    hash(file.read()))
    return found


class Restart(unittest.TestCase):
    def fill(self, m, names=("a", "b")):
        rng = generator()
        for name in names:
            cube = m.cube(name)
            with temporary_directory() as base:
                frames = random_array(rng, (70, 20, 30), "uint16")
                run("cp", "-p", *write_series(base, frames), cube / "append")
            yield cube, frames

    def test_everything_is_as_it_was(self):
        with Mounted() as m:
            cubes = list(self.fill(m))
            before = fingerprint(m.mnt)
            self.assertGreater(len(before), 200)
            for _ in range(2):
                m.remount()
                after = fingerprint(m.mnt)
                self.assertEqual(sorted(after), sorted(before))
                for name, facts in before.items():
                    if not name.endswith("meta/bytes"):
                        self.assertEqual(after[name], facts, name)
                for cube, frames in cubes:
                    assert_same(np.load(cube / "cube.npy"), frames)

    def test_space_taken_stays(self):
        def taken(cube):
            return int((cube / "meta/bytes").read_text())

        with Mounted() as m:
            (cube, _), = self.fill(m, ["a"])
            elements = 70 * 20 * 30 * 2
            before = taken(cube)
            self.assertGreater(before, elements)
            # The host's filesystem counts blocks of its own for the file, as writing back needs them.
            few = 64 << 10
            # What the series holds for frames to come goes back at the end.
            held = 57 * 20 * 30 * 2
            for _ in range(2):
                m.remount()
                after = taken(cube)
                self.assertGreater(after, elements)
                self.assertGreater(after, before - held - few)
                self.assertLess(after, before + few)
                before, held = after, 0

    def test_inode_numbers_stay(self):
        with Mounted() as m:
            list(self.fill(m, ["a"]))
            names = ["a", "a/append", "a/meta/shape", "a/frames/f00003.fits"]
            before = [(m / n).stat().st_ino for n in names]
            m.remount()
            self.assertEqual([(m / n).stat().st_ino for n in names], before)

    def test_growth_goes_on(self):
        rng = generator(1)
        frames = random_array(rng, (9, 20, 30), "float32")
        with Mounted() as m:
            cube = m.cube("c")
            for i, frame in enumerate(frames):
                (cube / f"append/f{i}.fits").write_bytes(fits_bytes(frame))
                m.remount()
                assert_same(np.load(cube / "cube.npy"), frames[: i + 1])

    def test_sigterm_ends_it_cleanly(self):
        for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(sign), Mounted() as m:
                (cube, frames), = self.fill(m, ["a"])
                m.process.send_signal(sign)
                m.wait_for_end()
                self.assertFalse(is_mounted(m.mnt))
                m.start()
                assert_same(np.load(cube / "cube.npy"), frames)

    def test_sync_and_fsync(self):
        with Mounted() as m:
            (cube, frames), = self.fill(m, ["a"])
            for name in ("append/f00000.fits", "frames/f00001.fits", "cube.fits",
                         "slices/xy/z1.npy", "append", "."):
                file = os.open(cube / name, os.O_RDONLY)
                os.fsync(file)
                os.close(file)
            run("sync", cube / "cube.fits")
            run("sync", cube / "meta")
            m.kill()
            m.start()
            assert_same(np.load(cube / "cube.npy"), frames)

    def test_an_open_file_delays_only_the_unmount(self):
        with Mounted() as m:
            (cube, frames), = self.fill(m, ["a"])
            with open(cube / "cube.raw", "rb") as file:
                result = run("fusermount3", "-u", m.mnt, check=False)
                self.assertNotEqual(result.returncode, 0)
                self.assertEqual(file.read(), frames.tobytes())
            m.stop()
            m.start()
            assert_same(np.load(cube / "cube.npy"), frames)

    def test_unmounted_in_the_middle_of_a_copy(self):
        with Mounted() as m:
            (cube, frames), = self.fill(m, ["a"])
            data = fits_bytes(frames[0])
            file = os.open(cube / "append/half.fits", os.O_WRONLY | os.O_CREAT)
            os.write(file, data[:3000])
            subprocess.run(["fusermount3", "-uz", m.mnt], check=True)
            os.close(file) if mounted.errno_of(os.write, file, data[3000:]) == "OK" \
                else mounted.errno_of(os.close, file)
            m.wait_for_end()
            m.start()
            self.assertIn(shape_of(cube)[2], (70, 71))
            assert_same(np.load(cube / "cube.npy")[:70], frames)

    def test_an_empty_store_and_an_empty_cube(self):
        with Mounted() as m:
            m.remount()
            self.assertEqual(os.listdir(m.mnt), [])
            m.cube("a")
            m.kill()
            m.start()
            self.assertEqual(os.listdir(m.mnt), ["a"])


def refused(*arguments):
    """What a daemon says that ends at once, with 1."""
    result = run(mounted.program("ACCRETEFS"), "-f", *arguments, check=False)
    assert result.returncode == 1, result
    said = result.stderr.decode()
    assert said.startswith("accretefs: ") and said.strip().count("\n") == 0, said
    return said


def mounts_on(path):
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        return sum(line.split()[4] == str(path) for line in lines)


class Second(unittest.TestCase):
    """Another daemon for what one has already."""

    def setUp(self):
        self.m = Mounted()
        self.m.__enter__()
        self.addCleanup(self.m.__exit__, None, None, None)
        directory = temporary_directory()
        self.base = directory.__enter__()
        self.addCleanup(directory.__exit__, None, None, None)
        self.frame = fits_bytes(random_array(generator(2), (20, 30), "int16"))
        (self.m.cube("c") / "append/a.fits").write_bytes(self.frame)

    def check_first(self, count=1):
        """It goes on."""
        self.assertIsNone(self.m.process.poll())
        self.assertEqual(mounts_on(self.m.mnt), 1)
        cube = self.m / "c"
        (cube / f"append/more{count}.fits").write_bytes(self.frame)
        self.assertEqual(shape_of(cube)[2], count + 1)
        self.assertEqual((cube / "frames/a.fits").read_bytes(), self.frame)

    def start_over_dead_mount(self):
        with open(self.m.log, "ab") as log:
            self.m.process = subprocess.Popen(
                [mounted.program("ACCRETEFS"), "-f", self.m.store, self.m.mnt],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.m.environment())

        def shows_the_cube():
            try:
                return os.listdir(self.m.mnt) == ["c"]
            except OSError:
                return False

        mounted.wait_until(shows_the_cube, "it is mounted")

    def test_on_the_same_store(self):
        elsewhere = self.base / "mnt"
        elsewhere.mkdir()
        link = self.base / "link"
        link.symlink_to(self.m.store)
        for store in (self.m.store, link, f"{self.m.store}/./"):
            self.assertIn("in use by another accretefs", refused(store, elsewhere))
        self.assertEqual(mounts_on(elsewhere), 0)
        self.check_first()

    def test_on_the_same_mount_point(self):
        self.assertIn("already", refused(self.m.store, self.m.mnt))
        other = self.base / "other"
        self.assertIn("already", refused(other, self.m.mnt))
        self.assertFalse(other.exists())
        self.check_first()

    def test_a_store_and_a_mount_point_inside_each_other(self):
        store = self.m.store
        inside = self.base / "store/mnt"
        inside.mkdir(parents=True)
        for what in ((inside.parent, inside), (inside, inside.parent), (inside, inside),
                     (inside.parent, f"{inside}/../mnt/")):
            self.assertIn("one inside the other", refused(*what))
        # A store in the mount of another one, or in its own.
        for nested in (self.m.mnt, self.m / "c", self.m / "c/append"):
            refused(nested, self.base)
        refused(store, self.m / "c")
        refused(store, self.m / "c/append")
        self.assertEqual(os.listdir(inside.parent), ["mnt"])
        self.check_first()

    def test_over_its_own_dead_mount(self):
        for turn in range(2):
            self.m.process.kill()
            self.m.process.wait()
            self.assertEqual(mounted.errno_of(os.listdir, self.m.mnt), "ENOTCONN")
            self.start_over_dead_mount()
            self.check_first(turn + 1)

    def test_over_a_dead_mount_of_another_store(self):
        self.m.process.kill()
        self.m.process.wait()
        other = self.base / "other"
        said = refused(other, self.m.mnt)
        self.assertIn(os.strerror(errno.ENOTCONN), said)
        self.assertFalse(other.exists())
        self.assertEqual(mounts_on(self.m.mnt), 1)
        self.assertEqual(mounted.errno_of(os.listdir, self.m.mnt), "ENOTCONN")
        # The store itself is free: it may be mounted elsewhere, the dead mount stays.
        self.start_over_dead_mount()
        self.check_first()

    def test_over_a_dead_mount_the_store_of_which_is_mounted_elsewhere(self):
        self.m.process.kill()
        self.m.process.wait()
        with Mounted(store=self.m.store) as again:
            self.assertEqual((again / "c/frames/a.fits").read_bytes(), self.frame)
            refused(self.m.store, again.mnt)
            self.assertEqual(shape_of(again / "c")[2], 1)
        self.m.process = None
        self.m.unmount_dead()
        self.m.start()
        self.check_first()

    def test_twice_at_once(self):
        """One of them has it, the other says so."""
        self.m.stop()
        places = [self.base / f"mnt{i}" for i in range(2)]
        for place in places:
            place.mkdir()
        both = [subprocess.Popen([mounted.program("ACCRETEFS"), "-f", self.m.store, place],
                                 stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=self.m.environment())
                for place in places]
        mounted.wait_until(lambda: any(p.poll() is not None for p in both), "one of them has ended")
        loser, winner = sorted(both, key=lambda p: p.poll() is None)
        place = places[both.index(winner)]
        self.assertEqual(loser.returncode, 1)
        self.assertIn(b"in use by another accretefs", loser.stderr.read())
        self.assertEqual((place / "c/frames/a.fits").read_bytes(), self.frame)
        run("fusermount3", "-u", place)
        self.assertEqual(winner.wait(mounted.PATIENCE), 0)
        for process in both:
            process.stderr.close()
        self.m.start()
        self.check_first()

    def test_what_is_no_store(self):
        full = self.base / "full"
        full.mkdir()
        (full / "letter").write_text("hello")
        elsewhere = self.base / "mnt"
        elsewhere.mkdir()
        self.assertIn("is no store", refused(full, elsewhere))
        self.assertEqual(os.listdir(full), ["letter"])
        file = self.base / "file"
        file.write_text("x")
        self.assertIn("directory", refused(self.m.store, file))
        refused(file, elsewhere)
        refused(self.m.store, self.base / "missing")
        newer = self.base / "newer"
        newer.mkdir()
        (newer / "accretefs.store").write_text("accretefs store, version 99\n")
        self.assertIn("newer version", refused(newer, elsewhere))
        self.assertEqual(mounts_on(elsewhere), 0)
        self.check_first()


if __name__ == "__main__":
    mounted.main()
