"""An element is never seen half changed: also by reads that begin within one, or whose memory lies so
that a page of it ends within one."""
import multiprocessing
import os
import time
import unittest

import mounted
import numpy as np
from mounted import Mounted

SECONDS = 2.0 * mounted.SCALE
PAGE = 4096


def poke(path, offset, count, stop, started):
    """Elements whose bytes are all equal become others like that, again and again."""
    file = os.open(path, os.O_WRONLY)
    number = 0
    while not stop.is_set():
        os.pwrite(file, bytes([255 * (number % 2)]) * count, offset)
        number += 1
        started.set()
    os.close(file)


class WholeElementsTest(unittest.TestCase):
    def read_beside_pokes(self, dtype):
        width = np.dtype(dtype).itemsize
        memory = np.zeros(4 * PAGE, np.uint8)
        aligned = -memory.ctypes.data % PAGE
        with Mounted() as m:
            cube = m.cube("c")
            for i in range(2):
                np.save(cube / "append" / f"{i}.npy", np.zeros((64, 1024), dtype))
            path = cube / "cube.raw"
            first = 3 * PAGE  # of the bytes that are read; elements in their middle are poked
            stop, started = multiprocessing.Event(), multiprocessing.Event()
            poker = multiprocessing.Process(
                target=poke, args=(path, first + PAGE - 256, 512, stop, started))
            poker.start()
            file = os.open(path, os.O_RDONLY)
            try:
                self.assertTrue(started.wait(60))
                for within, skew in ((0, 0), (width - 1, 0), (0, width - 1), (1, 1)):
                    target = memory[aligned + skew:][:2 * PAGE]
                    end = time.monotonic() + SECONDS
                    values = set()
                    while time.monotonic() < end:
                        self.assertEqual(os.preadv(file, [target], first + within), 2 * PAGE)
                        skip = -within % width
                        whole = target[skip:skip + (2 * PAGE - skip) // width * width]
                        values |= set(np.unique(whole.copy().view(dtype)).tolist())
                    both = {0, 2**(8 * width) - 1}
                    self.assertEqual(values, both, f"from byte {within}, into byte {skew}")
            finally:
                os.close(file)
                stop.set()
                poker.join(60)
                self.assertEqual(poker.exitcode, 0)

    def test_of_eight_bytes(self):
        self.read_beside_pokes("<u8")

    def test_of_two_bytes(self):
        self.read_beside_pokes("<u2")


if __name__ == "__main__":
    unittest.main(verbosity=2)
