"""Cubes larger than memory are made and sliced."""
import os
import pathlib
import unittest

import mounted
import numpy as np
from frames import assert_same, generator
from mounted import Mounted, scaled, shape_of, temporary_directory

MEBI = 1 << 20


def npy_header(shape, dtype):
    text = str({"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(shape)})
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def total_memory():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no MemTotal")


class Larger(unittest.TestCase):
    def test_a_cube_larger_than_the_daemon_may_allocate(self):
        # 2 GiB as one stream into a daemon that may have no more than a fraction of it.
        limit = None if mounted.SANITIZE else 384 * MEBI
        nz, ny, nx = scaled(2048, 128), 512, 512
        rng = generator()
        with Mounted(limit_data=limit) as m, temporary_directory() as base:
            cube = m.cube("big")
            block = rng.standard_normal((64, ny, nx)).astype(np.float32)
            # Plane z is block[z % 64] + z: known without keeping 2 GiB.
            def plane(z):
                return block[z % 64] + np.float32(z)

            path = cube / "append/big.npy"
            most = 0
            with open(path, "wb", buffering=0) as door:
                door.write(npy_header((nz, ny, nx), "<f4"))
                for z in range(nz):
                    door.write(plane(z).tobytes())
                    if z % 128 == 0:
                        most = max(most, m.anonymous_memory())
            self.assertEqual(shape_of(cube), [nx, ny, nz])
            for z in [0, nz - 1, *map(int, rng.integers(nz, size=10))]:
                assert_same(np.load(cube / f"slices/xy/z{z}.npy"), plane(z), f"plane {z}")
            for y, x in rng.integers(512, size=(10, 2)):
                expected = block[np.arange(nz) % 64, y, x] + np.arange(nz, dtype=np.float32)
                assert_same(np.load(cube / f"slices/z/y{y}_x{x}.npy"), expected, f"column {y} {x}")
            y = int(rng.integers(512))
            expected = (block[np.arange(nz) % 64, y]
                        + np.arange(nz, dtype=np.float32)[:, None]).T
            assert_same(np.load(cube / f"slices/zx/y{y}.npy"), np.ascontiguousarray(expected))
            most = max(most, m.anonymous_memory())
            print(f"{nz} MiB of cube, {most / MEBI:.1f} MiB of memory of its own")
            if not mounted.SANITIZE:
                self.assertLess(most, 64 * MEBI)
            del base

    def test_a_cube_larger_than_the_machine(self):
        # Written with holes: only some planes have values. Takes minutes, as the daemon still reads
        # all of it once, for the checksums.
        if os.environ.get("ACCRETE_TEST_LARGE") != "1":
            self.skipTest("takes minutes: set ACCRETE_TEST_LARGE=1")
        wanted = total_memory() * 5 // 4
        nx = ny = 4096
        plane_bytes = nx * ny * 4
        nz = wanted // plane_bytes
        with Mounted() as m:
            space = os.statvfs(m.store)
            if space.f_bavail * space.f_frsize < wanted:
                self.skipTest(f"needs {wanted >> 30} GiB of disk")
            cube = m.cube("huge")
            planes = {z: np.full((ny, nx), z + 1, np.float32) for z in (0, nz // 2, nz - 1)}
            header = npy_header((nz, ny, nx), "<f4")
            door = os.open(cube / "append/huge.npy", os.O_WRONLY | os.O_CREAT)
            os.write(door, header)
            for z, plane in planes.items():
                data = memoryview(plane).cast("B")
                done = 0
                while done < len(data):
                    done += os.pwrite(door, data[done:], len(header) + z * plane_bytes + done)
            os.close(door)
            self.assertEqual(shape_of(cube), [nx, ny, nz])
            for z in (0, 1, nz // 2, nz - 1):
                expected = planes.get(z, np.zeros((ny, nx), np.float32))
                assert_same(np.load(cube / f"slices/xy/z{z}.npy"), expected, f"plane {z}")
            column = np.zeros(nz, np.float32)
            for z in planes:
                column[z] = z + 1
            assert_same(np.load(cube / "slices/z/y17_x4000.npy"), column)
            memory = m.anonymous_memory()
            print(f"{nz * plane_bytes >> 30} GiB of cube on {total_memory() >> 30} GiB of memory, "
                  f"{memory / MEBI:.1f} MiB of memory of its own")
            self.assertLess(memory, 64 * MEBI)


if __name__ == "__main__":
    mounted.main()
