"""What an append costs does not depend on what is there."""
import shutil
import statistics
import time
import unittest

import mounted
from frames import fits_bytes, generator, random_array
from mounted import Mounted, run, scaled, shape_of, temporary_directory

MEBI = 1 << 20


class Cost(unittest.TestCase):
    def test_time_bytes_and_memory(self):
        count = scaled(1500, 300)
        with Mounted() as m, temporary_directory() as base:
            cube = m.cube("c")
            frame = fits_bytes(random_array(generator(), (256, 512), "float32"))
            (base / "frame.fits").write_bytes(frame)
            times = []
            most_memory = 0
            for i in range(count):
                begin = time.perf_counter()
                shutil.copyfile(base / "frame.fits", cube / f"append/f{i:06}.fits")
                times.append(time.perf_counter() - begin)
                if i % 50 == 0:
                    most_memory = max(most_memory, m.anonymous_memory())
            self.assertEqual(shape_of(cube), [512, 256, count])
            first, last = (statistics.median(part) for part in (times[10:110], times[-100:]))
            print(f"append: first hundred {first * 1e3:.2f} ms, last hundred {last * 1e3:.2f} ms, "
                  f"ratio {last / first:.2f}")
            # Work that grew with the frames would make it some twenty times; the rest is noise.
            self.assertLess(last / first, 10)
            run("sync", cube / "meta")
            written = m.bytes_written() / (count * len(frame))
            print(f"written: {written:.3f} bytes for each byte of data")
            print(f"memory of its own: {most_memory / MEBI:.1f} MiB")
            if not mounted.SANITIZE:
                self.assertLessEqual(written, 1.1)
                self.assertLess(most_memory, 64 * MEBI)

    def test_reading_needs_no_memory(self):
        with Mounted() as m, temporary_directory() as base:
            cube = m.cube("c")
            run(mounted.program("ACCRETE_SIMULATE"), "--frames", scaled(200, 70), base / "in")
            run("cp", *(base / "in").iterdir(), cube / "append")
            for name in ("cube.fits", "cube.raw", "slices/zyx/x0...npy", "cube.txt"):
                run("dd", f"if={cube / name}", "of=/dev/null", "bs=1M", "count=200")
            for x in range(0, 512, 3):
                (cube / f"slices/zy/x{x}.raw").read_bytes()
            memory = m.anonymous_memory()
            print(f"memory of its own: {memory / MEBI:.1f} MiB")
            if not mounted.SANITIZE:
                self.assertLess(memory, 64 * MEBI)


if __name__ == "__main__":
    mounted.main()
