"""Compressed frames, unpacked by a process of its own: what that process may do while the daemon
runs, and that its death is one refused frame."""
import errno
import gzip
import os
import pathlib
import signal
import struct
import threading
import unittest
import zlib

import numpy as np
from frames import generator, random_array
from mounted import (SANITIZE, Mounted, fails, last_error, run, scaled, shape_of,
                     temporary_directory, wait_until)

BLOCK = 2880


def header(*shape):
    cards = ["SIMPLE  =                    T", "BITPIX  =                    8",
             f"NAXIS   = {len(shape):20}"]
    cards += [f"{'NAXIS' + str(i + 1):8}= {n:20}" for i, n in enumerate(shape)]
    return "".join(c.ljust(80) for c in [*cards, "END"]).ljust(BLOCK).encode()


def plain(array):
    content = header(*reversed(array.shape)) + array.tobytes()
    return content + bytes(-len(content) % BLOCK)


def zeros(start, mebibytes):
    """A gzip file of some bytes and many zeros, made without having them all in memory."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    content, part = packer.compress(start), bytes(1 << 20)
    for _ in range(mebibytes):
        content += packer.compress(part)
    return content + packer.flush()


class Unpacking(unittest.TestCase):
    options = ()

    def setUp(self):
        context = temporary_directory()
        self.base = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        mount = Mounted(options=self.options)
        self.m = mount.__enter__()
        self.addCleanup(mount.__exit__, None, None, None)
        self.cube = self.m.cube("c")
        self.array = random_array(generator(), (40, 50), "uint8")
        self.number = 0

    def file(self, content, name):
        path = self.base / name
        path.write_bytes(content)
        return path

    def children(self):
        """The daemon's processes as (pid, state, name)."""
        found = []
        for task in pathlib.Path(f"/proc/{self.m.pid}/task").iterdir():
            for pid in (task / "children").read_text().split():
                text = pathlib.Path(f"/proc/{pid}/stat").read_text()
                name, state = text.split(" (")[1].rsplit(")", 1)
                found.append((int(pid), state.split()[0], name))
        return found

    def worker(self):
        (pid, _, name), = self.children()
        self.assertEqual(name, "accretefs-unpack"[:15])
        return pid

    def takes_the_next(self):
        before = shape_of(self.cube)[-1] if (self.cube / "meta/shape").read_text().strip() else 0
        self.number += 1
        name = f"next{self.number}.fits"
        run("cp", self.file(gzip.compress(plain(self.array)), name), self.cube / "append")
        self.assertEqual(shape_of(self.cube), [50, 40, before + 1])
        view = self.cube / f"slices/xy/z{before:06}.npy"
        np.testing.assert_array_equal(np.load(view), self.array)
        self.assertEqual([state for _, state, _ in self.children() if state == "Z"], [])

    def slow(self):
        """Takes seconds to unpack."""
        return self.file(zeros(header(1 << 20, scaled(3000)), scaled(3000)), "slow.fits")

    def while_unpacking(self, path, do, because):
        """Copies `path`, and calls do(pid) once it is being unpacked."""
        copies = []
        thread = threading.Thread(
            target=lambda: copies.append(fails("cp", path, self.cube / "append", because=because)))
        pid = self.worker()
        before = cpu_time(pid)
        thread.start()
        wait_until(lambda: cpu_time(pid) > before + 0.1, "the process has something to do")
        do(pid)
        thread.join()
        self.assertEqual(len(copies), 1)


def cpu_time(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Process(Unpacking):
    def test_has_no_privileges(self):
        self.takes_the_next()
        process = pathlib.Path(f"/proc/{self.worker()}")
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines()
                      if ":\t" in line)
        self.assertEqual(status["NoNewPrivs"], "1")
        self.assertEqual(status["Seccomp"], "2")
        limits = (process / "limits").read_text()
        self.assertRegex(limits, r"Max core file size +0 +0 ")
        if SANITIZE:
            return
        self.assertRegex(limits, r"Max file size +0 +0 ")
        self.assertRegex(limits, r"Max open files +4 +4 ")
        self.assertRegex(limits, r"Max processes +0 +0 ")
        self.assertRegex(limits, r"Max data size +\d+ +\d+ ")
        self.assertEqual(status["Threads"], "1")
        if os.geteuid() == 0:
            self.assertEqual(status["Uid"].split(), ["65534"] * 4)
            self.assertEqual(status["Gid"].split(), ["65534"] * 4)
            self.assertEqual(status["Groups"].split(), [])
            self.assertEqual(int(status["CapEff"], 16) | int(status["CapPrm"], 16), 0)
            self.assertEqual(sorted(os.listdir(process / "fd")), ["0", "1", "2"])
            names = [v.split(b"=")[0] for v in (process / "environ").read_bytes().split(b"\0") if v]
            self.assertEqual([n for n in names if not n.endswith(b"SAN_OPTIONS")], [])

    def test_ends_with_the_daemon(self):
        self.takes_the_next()
        pid = self.worker()
        os.kill(pid, signal.SIGSTOP)  # as one that is busy
        self.m.kill()
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the process has ended")

    def test_its_death_is_a_refused_frame(self):
        self.takes_the_next()
        slow = self.slow()
        for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGSYS):
            if SANITIZE and number == signal.SIGSEGV:
                continue  # is reported, not died of
            self.while_unpacking(slow, lambda pid: os.kill(pid, number), errno.EINVAL)
            self.assertEqual(last_error(self.cube).count("\n"), 0)
            self.assertIn("the file could not be unpacked: the unpacking process died "
                          f"(signal {number.value})", last_error(self.cube))
            self.assertEqual(self.children(), [])
            self.takes_the_next()

    def test_its_death_between_frames_is_nothing(self):
        for _ in range(3):
            self.takes_the_next()
            pid = self.worker()
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: all(child != pid or state == "Z"
                                   for child, state, _ in self.children()), "the process is dead")


class Bombs(Unpacking):
    options = ("-o", "max_frame=64M")

    def space(self):
        run("sync", self.cube / "meta")
        return int(run("du", "-s", "-B1", self.m.store).stdout.split()[0])

    def refused(self, content, because):
        path = self.file(content, "bomb.fits")
        fails("cp", path, self.cube / "append", because=because)

    def test_take_no_space(self):
        self.takes_the_next()
        before = self.space()
        size = 100
        large = zeros(header(1 << 20, size), size)
        self.refused(large, errno.EFBIG)
        self.assertIn("max_frame", last_error(self.cube))
        self.refused(gzip.compress(large), errno.EFBIG)
        wait_until(lambda: abs(self.space() - before) < 1 << 20, "space is free again")
        self.assertEqual(shape_of(self.cube), [50, 40, 1])
        self.takes_the_next()

    def test_packed_images_beyond_the_limit(self):
        self.takes_the_next()
        cards = [("ZIMAGE", "T"), ("ZBITPIX", 8), ("ZNAXIS", 2), ("ZNAXIS1", 1 << 20),
                 ("ZNAXIS2", 1 << 20), ("ZCMPTYPE", "'GZIP_1  '"), ("ZTILE1", 1 << 20),
                 ("ZTILE2", 1)]
        table = [("XTENSION", "'BINTABLE'"), ("BITPIX", 8), ("NAXIS", 2), ("NAXIS1", 8),
                 ("NAXIS2", 1 << 20), ("PCOUNT", 0), ("GCOUNT", 1), ("TFIELDS", 1),
                 ("TTYPE1", "'COMPRESSED_DATA'"), ("TFORM1", "'1PB'")]
        text = "".join(f"{k:8}= {v:>20}".ljust(80) if "'" not in str(v) else f"{k:8}= {v}".ljust(80)
                       for k, v in table + cards) + "END".ljust(80)
        content = header() + text.encode().ljust(-(-len(text) // BLOCK) * BLOCK)
        content += struct.pack(">ii", 0, 0) * (1 << 20)
        content += bytes(-len(content) % BLOCK)
        self.refused(content, errno.EFBIG)
        self.takes_the_next()


if __name__ == "__main__":
    import mounted
    mounted.main()
