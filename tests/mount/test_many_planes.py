"""A cube of a hundred thousand planes."""
import os
import time
import unittest

import mounted
import numpy as np
from frames import assert_same, npy_bytes
from mounted import Mounted, run, scaled, shape_of


class ManyPlanes(unittest.TestCase):
    def test_growing_listing_and_mounting(self):
        count = scaled(100_000, 5_000)
        header = len(npy_bytes(np.zeros((3, 5), "int16"))) - 30
        with Mounted() as m:
            cube = m.cube("many")
            begin = time.monotonic()
            door = os.open(cube / "append", os.O_PATH)
            head = npy_bytes(np.zeros((3, 5), "int16"))[:header]
            for z in range(count):
                file = os.open(f"f{z}.npy", os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=door)
                os.write(file, head + plane(z).tobytes())
                os.close(file)
            os.close(door)
            print(f"{count} appends in {time.monotonic() - begin:.1f} s")
            self.assertEqual(shape_of(cube), [5, 3, count])

            begin = time.monotonic()
            names = run("ls", cube / "slices/xy").stdout.decode().split()
            listed = time.monotonic() - begin
            self.assertEqual(names, [f"z{z:06}.npy" for z in range(count)])
            print(f"ls of {count} planes in {listed:.2f} s")
            begin = time.monotonic()
            self.assertEqual(len(os.listdir(cube / "frames")), count)
            print(f"list of {count} frames in {time.monotonic() - begin:.2f} s")
            self.assertEqual(len((cube / "meta/frames").read_text().splitlines()), count + 1)

            m.stop()
            begin = time.monotonic()
            m.start()
            self.assertEqual(shape_of(cube), [5, 3, count])
            remounted = time.monotonic() - begin
            print(f"mounted in {remounted:.2f} s")
            for z in (0, 1, count // 2, count - 1):
                assert_same(np.load(cube / f"slices/xy/z{z:06}.npy"), plane(z))
                self.assertEqual((cube / f"frames/f{z}.npy").read_bytes(),
                                 npy_bytes(plane(z)))
            column = np.load(cube / "slices/z/y2_x4.npy")
            assert_same(column, np.array([plane(z)[2, 4] for z in range(count)]))
            if not mounted.SANITIZE:
                self.assertLess(listed, 5)
                self.assertLess(remounted, 1)
                self.assertLess(m.anonymous_memory(), 64 << 20)


def plane(z):
    return (np.arange(15, dtype=np.int64) * 7919 + z * 31).astype(np.int16).reshape(3, 5)


if __name__ == "__main__":
    mounted.main()
