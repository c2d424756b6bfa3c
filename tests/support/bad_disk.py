"""A small ext4 on a disk that goes bad when it is told to: see one_file_disk.cc.

ONE_FILE_DISK is the path of that program, as CTest sets it. Needs root, for loop devices.
"""
import array
import fcntl
import os
import re
import struct
import subprocess

from mounted import program, run, wait_until

FS_IOC_FIEMAP = 0xC020660B


class BadDisk:
    """`base`: a directory to work in. Everything is taken away at the end of the test."""

    def __init__(self, test, base, mebibytes=64):
        self.directory = base / "one"
        self.mnt = base / "disk"
        image = base / "image"
        self.directory.mkdir()
        self.mnt.mkdir()
        with open(image, "wb") as file:
            file.truncate(mebibytes << 20)
        run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0", image)
        self._process = subprocess.Popen([program("ONE_FILE_DISK"), image, "/dev/null",
                                          self.directory])
        test.addCleanup(self._end)
        wait_until((self.directory / "disk").exists, "the disk is there")
        self._loop = run("losetup", "--find", "--show", self.directory / "disk").stdout.decode().strip()
        test.addCleanup(self._detach)
        test.addCleanup(subprocess.run, ["umount", "-l", self.mnt], check=False,
                        stderr=subprocess.DEVNULL)
        self.mount()

    def mount(self):
        # Blocks are given to a file when it is written, so that extents() knows them.
        run("mount", "-o", "nodelalloc", self._loop, self.mnt)

    def unmount(self):
        run("umount", self.mnt)

    def forget(self):
        """All that the kernel had in memory of files is gone, as when the power was."""
        self.unmount()
        self.mount()

    def command(self, text):
        # No loop device is in the way: it has a file of its own.
        with open(self.directory / "control", "wb", buffering=0) as control:
            control.write(text.encode())

    def failures(self):
        text = (self.directory / "control").read_text()
        return int(re.search(r"(\d+) failures", text)[1])

    def make_bad(self, kind, path, begin=0, length=None):
        """Reads or writes (`kind`) of these bytes of a file fail from now on."""
        pieces = extents(path)
        end = begin + length if length else 1 << 62
        for logical, physical, size in pieces:
            first, last = max(begin, logical), min(end, logical + size)
            if first < last:
                self.command(f"bad {kind} {physical + first - logical} {last - first}")

    def make_good(self):
        self.command("good")

    def _detach(self):
        run("losetup", "-d", self._loop, check=False)

    def _end(self):
        def is_unmounted():
            return subprocess.run(["umount", self.directory], check=False,
                                  stderr=subprocess.DEVNULL).returncode == 0

        try:
            wait_until(is_unmounted, "the loop device lets go of its disk", 20)
        except AssertionError:
            self._process.kill()
            subprocess.run(["umount", "-l", self.directory], check=False)
            raise
        finally:
            self._process.wait()


def extents(path):
    """(offset in the file, offset on the disk, bytes) of the pieces of a file, also of those that
    were not written out yet."""
    most = 512
    head = struct.pack("=QQIIII", 0, (1 << 64) - 1, 0, 0, most, 0)
    buffer = array.array("B", head + bytes(56 * most))
    with open(path, "rb") as file:
        fcntl.ioctl(file, FS_IOC_FIEMAP, buffer)
    count = struct.unpack_from("=I", buffer, 20)[0]
    if count == most:
        raise AssertionError(f"{path} lies in too many pieces")
    return [struct.unpack_from("=QQQ", buffer, 32 + 56 * i) for i in range(count)]


def need_root(test):
    """Skips the test where there is no root, but never in CI."""
    if os.geteuid() == 0:
        return
    if os.environ.get("CI") == "true":
        test.fail("loop devices need root")
    test.skipTest("loop devices need root")
