"""Where it is measured: a directory on the disk in question, mounts on it, and data made once."""
import contextlib
import mmap
import os
import pathlib
import shutil
import subprocess
import tempfile

from mounted import Mounted, program, run


class Place:
    """`scale`: what part of the full sizes is measured. Everything is taken away at the end of a
    `with` block."""

    def __init__(self, parent, scale):
        self.scale = scale
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="accrete-bench-", dir=parent)).resolve()
        self._made = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.directory)

    def scaled(self, count, least=1):
        return max(least, round(count * self.scale))

    def made(self, kind):
        """The one `kind(place)` of this run, for works that share data."""
        if kind not in self._made:
            self._made[kind] = kind(self)
        return self._made[kind]

    def made_path(self, name):
        """A new path below the directory."""
        return self.directory / name

    def made_directory(self, name):
        path = self.made_path(name)
        path.mkdir()
        return path

    # ---- Mounts ----

    def mount(self, store=None, io=None):
        """AccreteFS on a store that is kept, or one that goes with the mount."""
        if store is not None:
            store.mkdir(exist_ok=True)
        return Mounted(store, ["-o", f"io={io}"] if io else [], parent=self.directory)

    def passthrough(self, source, io="cached"):
        """A mount that shows the directory `source`, by FUSE and nothing else."""
        return Mounted(source, ["-o", f"io={io}"], parent=self.directory, daemon="BENCH_PASSTHROUGH")

    @contextlib.contextmanager
    def scratch(self):
        """An empty directory on the disk. Its files are emptied afterwards and removed with all else at
        the end: for minutes ext4 gives no removed inode to another file, and passes by each of them
        whenever one is made."""
        path = pathlib.Path(tempfile.mkdtemp(dir=self.directory))
        try:
            yield path
        finally:
            for file in path.rglob("*"):
                if file.is_file():
                    os.truncate(file, 0)


def sync_cube(cube):
    """All that the cube holds is on the disk."""
    run("sync", cube / "meta/shape")


def sync_disk(directory):
    run("sync", "-f", directory)


def read(paths, buffer=1 << 20):
    """Seconds to open, read and close each of the files, by bench-reader."""
    return _reader(paths, "read", str(buffer))


def warm(*paths):
    """Files, and those in directories, are in the page cache: right before they are read again, as
    some machines let go of what nobody has touched for a minute."""
    read([part for path in paths for part in ([path] if path.is_file() else path.rglob("*"))
          if part.is_file()])


def fetch_memory(size):
    """So many bytes of free memory are the machine's own. Some virtual ones give back to their host
    what is free, and wait for it when it is used again, longer than all that is measured takes."""
    most = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, max(mmap.PAGESIZE, min(size, most)), flags=private).close()


def stat(paths):
    """Seconds to ask for the attributes of each."""
    return _reader(paths, "stat")


def walk(directory):
    """Seconds to list a directory and ask for the attributes of each file as it comes."""
    return _reader([directory], "walk")


def _reader(paths, *work):
    listed = b"".join(os.fsencode(path) + b"\n" for path in paths)
    said = subprocess.run([program("BENCH_READER"), *work], input=listed, stdout=subprocess.PIPE,
                          check=True).stdout.split()
    seconds, total = float(said[0]), int(said[1])
    if total == 0:
        raise AssertionError(f"{paths[0]} and the others are empty")
    return seconds
