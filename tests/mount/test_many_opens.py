"""The daemon's memory does not grow with the number of views that were ever opened."""
import subprocess
import sys
import unittest

import mounted
import numpy as np
from mounted import Mounted, scaled

SIDE = 1000  # each pixel's column is a view
READER = """
import os, sys
slices, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for pixel in range(first, last):
    x, y = pixel % 1000, pixel // 1000
    file = os.open(f"{slices}/z/x{x}_y{y}.raw", os.O_RDWR if pixel % 8 == 0 else os.O_RDONLY)
    if pixel % 64 == 0:
        assert os.pread(file, 64, 0) == bytes([x % 256, y % 256, 7]), pixel
    os.close(file)
"""


class ManyOpens(unittest.TestCase):
    def test_a_million_views(self):
        planes = np.empty((3, SIDE, SIDE), "u1")
        planes[0], planes[1], planes[2] = np.arange(SIDE), np.arange(SIDE)[:, None], 7
        opens = scaled(SIDE * SIDE)
        with Mounted() as m:
            cube = m.cube("c")
            np.save(cube / "append/f.npy", planes)
            begin = opens // 5  # more than the kernel is left with at any time
            self.open_all(cube, 0, begin)
            before = m.anonymous_memory()
            self.open_all(cube, begin, opens)
            if not mounted.SANITIZE:  # which keep what was freed
                self.assertLess(m.anonymous_memory(), before + (16 << 20))

    def open_all(self, cube, first, last):
        middle = (first + last) // 2
        readers = [subprocess.Popen([sys.executable, "-c", READER, cube / "slices", str(a), str(b)])
                   for a, b in ((first, middle), (middle, last))]
        self.assertEqual([reader.wait() for reader in readers], [0, 0])


if __name__ == "__main__":
    mounted.main()
