"""Calls that hold locks of the kernel while they come, all at once: removing and renaming views, which
is refused, beside pokes, syncs and removals, which wait until other programs see what they did. None
waits for ever."""
import multiprocessing
import os
import time
import unittest

import mounted
import numpy as np
from mounted import Mounted

SECONDS = 4.0 * mounted.SCALE
PATIENCE = 60


def again_and_again(action, number, counts):
    while True:
        try:
            action(counts[number])
        except OSError:
            pass  # refused, or another was faster
        counts[number] += 1


class LockedNamesTest(unittest.TestCase):
    def setUp(self):
        context = Mounted()
        self.m = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.cube = self.m.cube("c")
        self.frame = np.zeros((16, 16), np.float32)
        for i in range(4):
            np.save(self.cube / "append" / f"f{i}.npy", self.frame)
        self.view = self.cube / "slices" / "zx" / "y000000.npy"
        self.plane = self.cube / "slices" / "xy" / "z000000.fits"

    def all_go_on(self, *actions):
        counts = multiprocessing.Array("q", len(actions))
        workers = [multiprocessing.Process(target=again_and_again, args=(action, i, counts),
                                           daemon=True) for i, action in enumerate(actions)]
        for worker in workers:
            worker.start()
        try:
            time.sleep(SECONDS)
            before = list(counts)
            end = time.monotonic() + PATIENCE
            while any(now == then for now, then in zip(counts, before)):
                self.assertLess(time.monotonic(), end, f"hangs: {before}, then {list(counts)}")
                time.sleep(0.05)
        except AssertionError:
            self.m.kill()  # lets go of what waits
            raise
        finally:
            for worker in workers:
                worker.kill()
            for worker in workers:
                worker.join(PATIENCE)

    def poke(self, _):
        with open(self.view, "r+b", buffering=0) as file:
            for _ in range(20):
                os.pwrite(file.fileno(), b"\1\2\3\4", 128)

    def poke_and_sync(self, _):
        with open(self.view, "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"\1\2\3\4", 128)
            os.fsync(file.fileno())

    def edit_header(self, count):
        with open(self.plane, "r+b", buffering=0) as file:
            cards = file.read(5760)
            spare = cards.index(b" " * 80)
            at = cards.find(b"COUNT   =")
            os.pwrite(file.fileno(), f"COUNT   = {count:20}".ljust(80).encode(),
                      at if at >= 0 else spare // 80 * 80 + 80)
            os.fsync(file.fileno())

    def remove_view(self, _):
        os.unlink(self.view)

    def remove_plane(self, _):
        os.unlink(self.plane)

    def look(self, _):
        os.stat(self.view)

    def grow(self, count):
        np.save(self.cube / "append" / f"g{count}.npy", self.frame)

    def remove_frame(self, _):
        os.unlink(self.cube / "frames" / "f0.npy")
        os.rename(self.cube / "removed" / "f0.npy", self.cube / "frames" / "f0.npy")

    def change_door(self, count):
        os.chmod(self.cube / "append", 0o700 + count % 2)

    def rename_into_door(self, _):
        os.rename(self.view, self.cube / "append" / "x")

    def test_removals_of_a_view_that_is_poked(self):
        self.all_go_on(self.poke, self.remove_view, self.grow, self.look)

    def test_removals_of_a_view_that_is_synced(self):
        self.all_go_on(self.poke_and_sync, self.remove_view, self.grow, self.look)

    def test_removals_of_a_view_whose_header_is_edited(self):
        self.all_go_on(self.edit_header, self.remove_plane, self.grow, self.look)
        self.assertIn(b"COUNT   =", self.plane.read_bytes())

    def test_renames_into_a_door_where_frames_go(self):
        self.all_go_on(self.remove_frame, self.change_door, self.rename_into_door, self.grow,
                       self.look)


if __name__ == "__main__":
    unittest.main(verbosity=2)
