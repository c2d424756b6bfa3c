"""A copy of the cube made while it grows is a valid file of some moment."""
import subprocess
import threading
import unittest

import mounted
import numpy as np
from frames import assert_same, generator, random_array, read_fits, write_series
from mounted import Mounted, run, scaled, shape_of, temporary_directory


class CopyWhileGrowing(unittest.TestCase):
    def grow_and_copy(self, extension, check):
        frames = random_array(generator(), (scaled(600, 150), 60, 90), "int16")
        with Mounted() as m, temporary_directory() as base:
            cube = m.cube("c")
            (base / "in").mkdir()
            paths = write_series(base / "in", frames)
            run("cp", paths[0], cube / "append")
            errors = []

            def append():
                result = subprocess.run(["cp", *paths[1:], cube / "append"],
                                        stderr=subprocess.PIPE, check=False)
                errors.append(result.stderr)

            writer = threading.Thread(target=append)
            writer.start()
            extents = []
            try:
                while writer.is_alive() or not extents or extents[-1] != len(frames):
                    copy = base / f"copy.{extension}"
                    run("cp", cube / f"cube.{extension}", copy)
                    extents.append(check(copy, frames, len(extents)))
                    if not writer.is_alive() and extents[-1] != len(frames):
                        self.assertEqual(shape_of(cube)[2], len(frames))
            finally:
                writer.join()
            self.assertEqual(errors, [b""])
            self.assertEqual(extents, sorted(extents))
            print(f"{len(extents)} copies, {len(set(extents))} different extents")
            self.assertGreater(len(set(extents)), 2, "it did not grow meanwhile: test more frames")

    def test_fits(self):
        def check(copy, frames, turn):
            self.assertEqual(copy.stat().st_size % 2880, 0)
            data = read_fits(copy)
            assert_same(data, frames[: len(data)], f"copy {turn}")
            if turn % 5 == 0:
                self.assertIn(b"verification OK", run("fitsverify", "-q", copy).stdout)
            return len(data)

        self.grow_and_copy("fits", check)

    def test_npy(self):
        def check(copy, frames, turn):
            data = np.load(copy)
            assert_same(data, frames[: len(data)], f"copy {turn}")
            return len(data)

        self.grow_and_copy("npy", check)

    def test_raw_is_always_whole_frames_from_the_start(self):
        def check(copy, frames, turn):
            # The elements alone may grow while they are read, so the copy may end at any size that
            # the file had meanwhile; each was one of whole frames.
            data = np.fromfile(copy, np.int16)
            self.assertEqual(data.size % frames[0].size, 0)
            data = data.reshape(-1, *frames.shape[1:])
            assert_same(data, frames[: len(data)], f"copy {turn}")
            return len(data)

        self.grow_and_copy("raw", check)


if __name__ == "__main__":
    mounted.main()
