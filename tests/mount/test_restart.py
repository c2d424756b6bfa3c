"""What is there after the daemon ended in any orderly way."""
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
            before = taken(cube)
            self.assertGreater(before, 70 * 20 * 30 * 2)
            m.remount()
            # The host's filesystem counts blocks of its own for the file, as writing back needs them.
            self.assertLess(abs(taken(cube) - before), 64 << 10)

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


if __name__ == "__main__":
    mounted.main()
