"""What must come of a bad input: an errno, one sentence, and nothing else."""
import collections
import contextlib
import hashlib
import json
import os
import pathlib
import re

import numpy as np
from frames import assert_same, fits_bytes
from mounted import PATIENCE, Mounted, errno_of, fails, last_error, meta, run, wait_until

Resources = collections.namedtuple("Resources", "private descriptors threads children")


def state_of(cube, doors=("append", "prepend", "frames", "removed", "slices")):
    """What a refusal must leave as it is."""
    raw = cube / "cube.raw"
    return {"shape": meta(cube, "shape"), "table": meta(cube, "frames"),
            "elements": hashlib.sha256(raw.read_bytes()).hexdigest() if raw.exists() else None,
            **{door: sorted(os.listdir(os.fsencode(cube / door))) for door in doors}}


def blocks_of(store):
    """Bytes of disk under a store, but for what its cubes tell of themselves."""
    return sum(path.lstat().st_blocks * 512 for path in pathlib.Path(store).rglob("*")
               if path.name != "history")


def events_of(cube):
    return [json.loads(line) for line in (cube / "history").read_text().splitlines()]


def resources_of(m: Mounted):
    """What the daemon has: bytes of memory of its own, open files, threads, processes."""
    proc = pathlib.Path(f"/proc/{m.pid}")
    rollup = (proc / "smaps_rollup").read_text()
    # Dirty pages of anonymous memory; those of mapped stores are the host's cache.
    private = int(re.search(r"^Anonymous: +(\d+) kB", rollup, re.M)[1]) * 1024
    children = [int(pid) for task in (proc / "task").iterdir()
                for pid in (task / "children").read_text().split()]
    states = [pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
              for pid in children]
    if "Z" in states:
        raise AssertionError("the daemon has a zombie")
    # Each thread of the session, of which there are more or less, has one of /dev/fuse.
    descriptors = [os.readlink(fd) for fd in (proc / "fd").iterdir() if fd.is_symlink()]
    return Resources(private, len([d for d in descriptors if d != "/dev/fuse"]),
                     len(os.listdir(proc / "task")), len(children))


class Refusals:
    """A cube without frames and one that has some, live and removed, of which each bad file is
    refused in turn. Each case is a subtest of `test`."""

    def __init__(self, test, m: Mounted, base: pathlib.Path):
        self.test = test
        self.m = m
        self.base = base
        self.cubes = [m.cube("undefined"), m.cube("defined")]
        door = self.cubes[1] / "append"
        self.frames = np.arange(3 * 35, dtype="float64").reshape(3, 5, 7)
        for i, frame in enumerate(self.frames):
            (door / f"f{i}.fits").write_bytes(fits_bytes(frame))
        os.unlink(door / "f1.fits")
        self.states = [state_of(cube) for cube in self.cubes]

    @contextlib.contextmanager
    def case(self, name):
        with self.test.subTest(name):
            try:
                yield
            except BaseException:
                # The next ones go by what there is now.
                if self.m.process.poll() is None:
                    self.states = [state_of(cube) for cube in self.cubes]
                    fresh = self.m / "fresh"
                    if fresh.exists():
                        fresh.rename(f"{fresh} {len(os.listdir(self.m.mnt))}")
                raise

    def write_source(self, content):
        source = self.base / "source"
        source.write_bytes(content)
        return source

    def refuse(self, name, content, because, part="", cubes=None):
        """cp of such a file fails with that errno and a sentence that has `part`."""
        source = self.write_source(content)
        for cube in self.cubes if cubes is None else cubes:
            with self.case(f"{cube.name}: {name}"):
                self.refuse_command(["cp", "--", source, cube / "append" / name], cube, name,
                                    because, part)

    def refuse_command(self, command, cube, name, because, part="", **more):
        before = len((cube / "history").read_bytes())
        if because is not None:
            fails(*command, because=because, **more)
        elif run(*command, check=False, **more).returncode == 0:
            raise AssertionError("it did not fail")
        return self.check_refused(cube, name, because, part, before)

    def check_refused(self, cube, name, because, part, history_before):
        """After a program that failed: the sentence, and that nothing else is left."""
        def told():
            with open(cube / "history", "rb") as file:
                file.seek(history_before)
                return [json.loads(line) for line in file.read().splitlines()]

        wait_until(lambda: told() and os.fsencode(name) not in os.listdir(os.fsencode(cube / "append")),
                   "the file is gone", patience=20)
        events = told()
        if len(events) != 1 or events[0]["event"] != "refuse":
            raise AssertionError(f"history tells {events}")
        event = events[0]
        sentence = event["sentence"]
        if because is not None and event["errno"] != because:
            raise AssertionError(f"history tells {event}, expected errno {because}")
        if event["name"] != os.fsencode(name).decode(errors="replace"):
            raise AssertionError(f"history tells of {event['name']!r}")
        if not 10 <= len(sentence) < 400 or "\n" in sentence or part not in sentence:
            raise AssertionError(f"the sentence is {sentence!r}, expected {part!r} in it")
        if last_error(cube) != sentence:
            raise AssertionError(f"last-error is {last_error(cube)!r}, history has {sentence!r}")
        self.check_same(cube, state_of(cube, ("append",)))
        return sentence

    def check_same(self, cube, found):
        expected = self.states[self.cubes.index(cube)]
        for what, value in found.items():
            if value != expected[what]:
                raise AssertionError(f"{what} of the {cube.name} cube: {value!r}, "
                                     f"was {expected[what]!r}")

    def check_unchanged(self):
        """All of both cubes."""
        for cube in self.cubes:
            self.check_same(cube, state_of(cube))
        if self.m.process.poll() is not None:
            raise AssertionError("the daemon died")

    def take(self, name, content, array=None):
        """cp of such a file makes a frame; it is thrown away again."""
        with self.case(name):
            self.take_one(name, content, array)

    def take_one(self, name, content, array):
        source = self.write_source(content)
        cube = self.m.cube("fresh")
        run("cp", "--", source, cube / "append" / name)
        for door in ("append", "frames"):
            if (cube / door / name).read_bytes() != content:
                raise AssertionError(f"{door}/{name!r} is not what came in")
        if array is not None:
            found = np.load(cube / "cube.npy")
            assert_same(found.reshape(array.shape), array)
        self.throw_away(cube, name)

    def throw_away(self, cube, name):
        os.unlink(cube / "frames" / name)
        os.unlink(cube / "removed" / name)
        self.remove_cube(cube)

    def remove_cube(self, cube):
        # A file that was refused is gone when the kernel has released it.
        wait_until(lambda: errno_of(os.rmdir, cube) == "OK", f"{cube} can be removed", PATIENCE)

    def survive(self, name, content):
        """Taken or refused, as its codec sees it: nothing else comes to harm."""
        with self.case(name):
            self.survive_one(name, content)

    def survive_one(self, name, content):
        source = self.write_source(content)
        cube = self.m.cube("fresh")
        result = run("cp", "--", source, cube / "append" / name, check=False)
        if result.returncode == 0:
            if (cube / "frames" / name).read_bytes() != content:
                raise AssertionError(f"frames/{name!r} is not what came in")
            run("cat", cube / "cube.npy")
            self.throw_away(cube, name)
        else:
            if events_of(cube)[-1]["errno"] not in (22, 27):  # EINVAL, EFBIG
                raise AssertionError(f"history tells {events_of(cube)}")
            self.remove_cube(cube)
