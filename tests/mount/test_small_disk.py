"""A full disk refuses what does not fit and keeps what is there."""
import errno
import os
import subprocess
import unittest

import mounted
import numpy as np
from frames import assert_same, generator, random_array, read_view, write_series
from mounted import (Mounted, errno_of, fails, last_error, run, shape_of, temporary_directory)


class SmallDisk(unittest.TestCase):
    def setUp(self):
        if os.geteuid() != 0:
            if os.environ.get("CI") == "true":
                self.fail("mounting a small tmpfs needs root")
            self.skipTest("mounting a small tmpfs needs root")

    def disk(self, base, size):
        """A tmpfs of some MiB, which is gone at the end of the test."""
        disk = base / "disk"
        disk.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", disk)
        self.addCleanup(subprocess.run, ["umount", "-l", disk], check=False,
                        stderr=subprocess.DEVNULL)
        return disk

    def test_sixty_four_mebibytes_hold_forty_and_more_frames_of_one(self):
        # 512 x 500 float32 and the header are less than 1 MiB, so that a frame is at most that.
        frames = random_array(generator(), (70, 500, 512), "float32")
        with temporary_directory() as base:
            (base / "in").mkdir()
            paths = write_series(base / "in", frames)
            disk = self.disk(base, 64)
            (disk / "store").mkdir()
            with Mounted(store=disk / "store") as m:
                cube = m.cube("c")
                taken = 0
                for path in paths:
                    if run("cp", path, cube / "append", check=False).returncode != 0:
                        break
                    taken += 1
                print(f"64 MiB hold {taken} frames of 1 MiB")
                self.assertGreaterEqual(taken, 41)
                self.assertLess(taken, 70)
                for path in paths[taken: taken + 3]:
                    fails("cp", path, cube / "append", because=errno.ENOSPC)
                self.assertTrue(last_error(cube))
                self.everything_is_there(cube, frames[:taken])
                self.assertEqual(len(os.listdir(cube / "append")), taken)
                m.remount()
                self.everything_is_there(cube, frames[:taken])
                fails("cp", paths[-1], cube / "append", because=errno.ENOSPC)
                m.kill()
                m.start()
                self.everything_is_there(cube, frames[:taken])
            run("umount", disk)

    def test_a_frame_larger_than_the_disk_takes_no_space(self):
        with temporary_directory() as base:
            (base / "in").mkdir()
            disk = self.disk(base, 64)
            small, = write_series(base / "in", random_array(generator(), (1, 512, 500), "uint8"))
            large, = write_series(base / "in", np.ones((1, 400, 512, 512), "uint8"), prefix="l")
            (disk / "store").mkdir()
            with Mounted(store=disk / "store") as m:
                cube = m.cube("c")
                run("cp", small, cube / "append")
                run("sync", cube / "meta")
                before = free(disk)
                for _ in range(5):
                    fails("cp", large, cube / "append", because=errno.ENOSPC)
                # Space is given back in the background.
                mounted.wait_until(lambda: before - free(disk) < 1 << 20, "space is free again")
                self.assertEqual(shape_of(cube), [500, 512, 1])
                self.assertEqual(errno_of(os.mkdir, m / "d"), "OK")
            run("umount", disk)

    def everything_is_there(self, cube, frames):
        self.assertEqual(shape_of(cube), [512, 500, len(frames)])
        assert_same(read_view(cube / "cube.npy", None, None), frames)


def free(disk):
    space = os.statvfs(disk)
    return space.f_bavail * space.f_frsize


if __name__ == "__main__":
    mounted.main()
