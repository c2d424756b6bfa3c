"""Small disks of their own, gone at the end of a `with` block."""
import contextlib
import os
import shutil
import subprocess
import unittest

from mounted import run, temporary_directory


def need_root(test):
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            test.fail("mounting a small disk needs root")
        test.skipTest("mounting a small disk needs root")


@contextlib.contextmanager
def disk(kind, mebibytes, options="defaults"):
    """A mounted filesystem: 'tmpfs', or in a file 'ext4', 'xfs'."""
    if kind != "tmpfs" and shutil.which(f"mkfs.{kind}") is None:
        if os.environ.get("CI") == "true":
            raise AssertionError(f"there is no mkfs.{kind}")
        raise unittest.SkipTest(f"there is no mkfs.{kind}")
    with temporary_directory() as base:
        place = base / "disk"
        place.mkdir()
        if kind == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", place)
        else:
            image = base / "image"
            image.touch()
            os.truncate(image, mebibytes << 20)
            # Root may use all of it.
            run(f"mkfs.{kind}", *(["-q", "-m", "0"] if kind == "ext4" else ["-q"]), image)
            run("mount", "-o", f"loop,{options}", image, place)  # the loop device goes with the mount
        try:
            yield place
        finally:
            if subprocess.run(["umount", place], check=False, capture_output=True).returncode != 0:
                run("umount", "-l", place)


def free_bytes(place):
    space = os.statvfs(place)
    return space.f_bavail * space.f_frsize


def fill_to_the_last_block(place, name="filler"):
    """Another program's file; its path."""
    path = place / name
    with open(path, "ab", buffering=0) as file:
        for size in (1 << 20, 64 << 10, 4096, 512):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\xaa" * size)
        os.fsync(file)
    return path
