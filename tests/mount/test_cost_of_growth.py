"""One plane more costs what it brings, wherever it comes in."""
import unittest

import mounted
import numpy as np
from frames import assert_same, generator, npy_bytes, random_array
from mounted import Mounted, meta, run

SIDE, PLANES = 512, 96


class Cost(unittest.TestCase):
    def test_bytes_written_and_space_taken(self):
        rng = generator()
        cube = random_array(rng, (PLANES, SIDE, SIDE), "float32")
        doors = {
            "append": 0, "prepend": 0, "insert/z/20": 0, "prepend/z": 0, "append/z": 0,
            "append/y": 1, "prepend/y": 1, "insert/y/100": 1,
            "append/x": 2, "prepend/x": 2, "insert/x/7": 2,
        }
        with Mounted() as m:
            path = m.cube("c")
            for i, plane in enumerate(cube):
                (path / f"append/f{i}.npy").write_bytes(npy_bytes(plane))
            for number, (door, axis) in enumerate(doors.items()):
                shape = list(cube.shape)
                shape[axis] = 1
                new = random_array(rng, shape, "float32")
                run("sync", path / "meta")
                written, space = m.bytes_written(), int(meta(path, "bytes"))
                (path / door / f"new{number}.npy").write_bytes(npy_bytes(new))
                run("sync", path / "meta")
                written = (m.bytes_written() - written) / new.nbytes
                space = (int(meta(path, "bytes")) - space) / new.nbytes
                print(f"{door}: written {written:.3f}, space {space:.3f} of the new data")
                if not mounted.SANITIZE:
                    self.assertLessEqual(written, 1.2, door)
                self.assertLessEqual(space, 1.2, door)
                at = {"append": cube.shape[axis], "prepend": 0}.get(door.split("/")[0])
                if at is None:
                    at = int(door.split("/")[2])
                cube = np.insert(cube, [at], new, axis=axis)
            assert_same(np.load(path / "cube.npy"), cube)



if __name__ == "__main__":
    mounted.main()
