"""Every tool that copies files, run as the program that it is: into doors, over frames, onto views.

Each row of the tables below is a tool. It runs in a plain directory, too: what it leaves there, bytes,
mode, owner, and time if it sets one, is what it has to leave here.
"""
import errno
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
import typing
import unittest

import mounted
import numpy as np
from astropy.io import fits
from frames import (assert_same, fits_bytes, generator, npy_bytes, random_array, read_fits,
                    write_fits)
from growing import sync
from mounted import (Mounted, meta, run, shape_of, temporary_directory, wait_until)

SMALL = (40, 72)     # whole files of a few blocks of FITS
LARGE = (1000, 700)  # several requests; its second half is zeros, a hole
# Whether files whose reads are not cached can be mapped shared.
CAN_MAP = tuple(map(int, re.match(r"(\d+)\.(\d+)", os.uname().release).groups())) >= (6, 6)
MTIME = 1_234_567_891_123_456_789


class Tool(typing.NamedTuple):
    """A way to make the file $2 of the file $1."""
    name: str
    script: str            # bash's, or Python's, where these are `source` and `target`
    kind: str = "fits"     # of the source: fits, npy, raw, fz
    copies: bool = True    # passes bytes on as they are, also those that are no frame
    says: str = ""         # errno that it fails with, and leaves all as it was
    # What it says of a source that is no frame; some do not look at close().
    says_of_broken: tuple = ("EINVAL",)
    large: bool = True     # quick enough for large files
    mapped: bool = False   # stores through a shared mapping
    dated: bool = False    # writes the time of day into the file


def python(name, script, **more):
    return Tool(name, "#python\nimport os, sys\nsource, target = sys.argv[1:]\n" + script, **more)


def numpy(name, script, **more):
    more = {"kind": "npy", "copies": False, **more}
    return python(name, "import numpy as np\n" + script, **more)


def astropy(name, script, **more):
    more = {"copies": False, **more}
    return python(name, "from astropy.io import fits\n" + script, **more)


class Ran(typing.NamedTuple):
    tool: str
    code: int
    stderr: str

    def said(self, *words):
        """Whether it spoke of one of them: of an errno by its name, or these words themselves."""
        texts = [os.strerror(getattr(errno, word, 0)) if hasattr(errno, word) else word
                 for word in words]
        return any(text in self.stderr for text in texts)

    def __str__(self):
        return f"{self.tool}: ended with {self.code}: {self.stderr[-600:]}"


def use(tool, source, target):
    if tool.script.startswith("#python"):
        command = [sys.executable, "-c", tool.script]
    else:
        command = ["bash", "-e", "-o", "pipefail", "-c", "umask 022; " + tool.script, "bash"]
    result = run(*command, source, target, check=False, env=dict(os.environ, LC_ALL="C"),
                 stdin=subprocess.DEVNULL)
    return Ran(tool.name, result.returncode, result.stderr.decode(errors="replace"))


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


class State:
    """All of a cube that a failure must not change."""

    def __init__(self, cube, door="append"):
        self.door = cube / door
        self.facts = self.look(cube)

    def look(self, cube):
        names = os.listdir(cube / "frames")
        return {"shape": meta(cube, "shape"), "frames": meta(cube, "frames"),
                "generation": meta(cube, "generation"), "door": sorted(os.listdir(self.door)),
                "removed": sorted(os.listdir(cube / "removed")),
                "elements": digest(cube / "cube.raw") if names else "",
                "files": {name: digest(cube / "frames" / name) for name in names},
                "status": {name: tuple((cube / "frames" / name).stat())[:7] for name in names}}

    def still(self, test, cube, what=""):
        # What is left of a temporary name belongs to its tool, which may have been killed.
        for name in os.listdir(self.door):
            if name.startswith(".") and name not in self.facts["door"]:
                os.unlink(self.door / name)

        # The kernel tells of the last close after close() has returned.
        def settled():
            return sorted(os.listdir(self.door)) == self.facts["door"]
        if not settled():
            wait_until(settled, f"{what}: the listing is as before", 5)
        now = self.look(cube)
        for fact, value in self.facts.items():
            test.assertEqual(now[fact], value, f"{what}: {fact}")


class Table(unittest.TestCase):
    """One mount and one directory for all tests of a class, a fresh cube for each."""
    options = ()

    @classmethod
    def setUpClass(cls):
        cls.context = Mounted(options=cls.options)
        cls.m = cls.context.__enter__()
        cls.addClassCleanup(lambda: cls.context.__exit__(None, None, None))

    def setUp(self):
        self.cube = self.m.cube(self.id().rsplit(".", 1)[1])
        self.door = self.cube / "append"
        directory = temporary_directory()
        self.base = directory.__enter__()
        self.addCleanup(directory.__exit__, None, None, None)
        self.rng = generator()
        self.frames = []

    def frame(self, shape=SMALL, dtype="float32"):
        # cfitsio's compression makes other NaNs of NaNs and infinities.
        values = np.nan_to_num(random_array(self.rng, shape, dtype))
        if shape == LARGE:
            values[shape[0] // 2:] = 0
        return values

    def source(self, directory, name, frame, kind, broken=False):
        """A file that a tool is given; where it ends in zeros, it ends in a hole."""
        (self.base / directory).mkdir(exist_ok=True)
        path = self.base / directory / name
        if kind == "fz":
            image = path.with_suffix(".image")
            write_fits(image, frame)
            path.unlink(missing_ok=True)
            # Lossless: of floats only without quantization.
            run("fpack", "-g", "-q", "0", "-O", path, image)
            data = path.read_bytes()
            image.unlink()
        else:
            data = {"fits": fits_bytes(frame, ["OBJECT  = 'M 42    '"]), "npy": npy_bytes(frame),
                    "raw": frame.tobytes()}[kind]
        if broken:
            data = data[:-3000]
        with open(path, "wb") as file:
            file.write(data.rstrip(b"\0"))
            file.truncate(len(data))
        os.chmod(path, 0o640)
        if os.getuid() == 0:
            os.chown(path, 12, 34)
        os.utime(path, ns=(1_000_000_000, MTIME))
        return path

    def define(self, count=2, shape=SMALL, dtype="float32"):
        for i in range(count):
            self.frames.append(self.frame(shape, dtype))
            path = self.source("given", f"given{i}.fits", self.frames[-1], "fits")
            run("cp", path, self.door)

    def check_cube(self, what=""):
        nz, (ny, nx) = len(self.frames), self.frames[0].shape
        self.assertEqual(shape_of(self.cube), [nx, ny, nz], what)
        assert_same(np.load(self.cube / "cube.npy"), np.stack(self.frames), what)
        assert_same(read_fits(self.cube / f"slices/xy/z{nz - 1:06}.fits"), self.frames[-1], what)
        assert_same(np.load(self.cube / f"slices/yx/z{nz - 1}.npy"),
                    np.ascontiguousarray(self.frames[-1].T), what)

    def check_file(self, made, plain, tool):
        """The file is what the tool makes anywhere."""
        if not tool.dated:
            run("cmp", made, plain)
        found, expected = made.stat(), plain.stat()
        self.assertEqual(found.st_size, expected.st_size, tool.name)
        self.assertEqual(oct(found.st_mode), oct(expected.st_mode), tool.name)
        if tool.name != "shutil.move":  # that keeps the owner within a filesystem only
            self.assertEqual((found.st_uid, found.st_gid), (expected.st_uid, expected.st_gid),
                             tool.name)
        if expected.st_mtime_ns == MTIME:
            self.assertEqual(found.st_mtime_ns, MTIME, tool.name)


# ---- Into doors ----

HALVES = 'size=$(stat -c %s "$1"); half=$((size / 2 / 8 * 8)); '

INTO_DOORS = [
    Tool("cp", 'cp "$1" "$2"'),
    Tool("cp -p", 'cp -p "$1" "$2"'),
    Tool("cp -a", 'cp -a "$1" "$2"'),
    Tool("cp -r", 'mkdir "$1.d"; cp -p "$1" "$1.d/$(basename "$2")"; cp -rp "$1.d/." "$(dirname "$2")"'),
    Tool("cp --sparse=always", 'cp --sparse=always "$1" "$2"'),
    Tool("cp --sparse=never", 'cp --sparse=never "$1" "$2"'),
    Tool("cp --reflink=auto", 'cp --reflink=auto "$1" "$2"'),
    Tool("mv", 'mv "$1" "$2"'),
    Tool("install", 'install "$1" "$2"'),
    Tool("install -m 604 -p", 'install -m 604 -p "$1" "$2"'),
    Tool("rsync -a", 'rsync -a "$1" "$2"'),
    Tool("rsync -a --sparse", 'rsync -a --sparse "$1" "$2"'),
    Tool("rsync -a --inplace", 'rsync -a --inplace "$1" "$2"'),
    Tool("rsync -a --partial", 'rsync -a --partial "$1" "$2"'),
    Tool("rsync -a --preallocate", 'rsync -a --preallocate "$1" "$2"'),
    Tool("dd bs=1", 'dd if="$1" of="$2" bs=1', large=False),
    Tool("dd bs=512", 'dd if="$1" of="$2" bs=512'),
    Tool("dd bs=1M", 'dd if="$1" of="$2" bs=1M'),
    Tool("dd bs=1999 conv=fsync", 'dd if="$1" of="$2" bs=1999 conv=fsync'),
    Tool("dd bs=64k oflag=direct", 'dd if="$1" of="$2" bs=64k oflag=direct'),
    Tool("dd conv=sparse", 'dd if="$1" of="$2" bs=4k conv=sparse'),
    Tool("dd twice, one descriptor",
         HALVES + '{ dd if="$1" bs=8 count=$((half / 8)); dd if="$1" bs=8 skip=$((half / 8)); } '
         '>"$2"', large=False, says_of_broken=()),
    Tool("dd twice, oflag=append conv=notrunc, one descriptor",
         HALVES + '{ dd if="$1" bs=8 count=$((half / 8)) oflag=append conv=notrunc; '
         'dd if="$1" bs=8 skip=$((half / 8)) oflag=append conv=notrunc; } >>"$2"',
         large=False, says_of_broken=()),
    Tool("dd twice, seek, conv=notrunc, two opens",
         HALVES + 'dd if="$1" of="$2" bs=$half count=1; dd if="$1" of="$2" bs=$half skip=1 seek=1 '
         'conv=notrunc', says="EINVAL"),
    Tool("dd twice, oflag=append conv=notrunc, two opens",
         HALVES + 'dd if="$1" of="$2" bs=$half count=1 oflag=append conv=notrunc; '
         'dd if="$1" of="$2" bs=$half skip=1 oflag=append conv=notrunc', says="EINVAL"),
    Tool("cat >", 'cat "$1" > "$2"'),
    Tool("cat >>", 'cat "$1" >> "$2"'),
    Tool("cat | cat >", 'cat "$1" | cat > "$2"'),
    Tool("dash: cat >", 'dash -c "umask 022; cat \\"\\$0\\" > \\"\\$1\\"" "$1" "$2"',
         says_of_broken=()),
    Tool("tee", 'tee "$2" <"$1" | cmp - "$1"'),
    Tool("(head; cat) >", '(head -c 1000; cat) <"$1" > "$2"'),
    Tool("(head; tail) >", '(head -c 1000 "$1"; tail -c +1001 "$1") > "$2"'),
    Tool("{ head; tail; } >>", '{ head -c 5000 "$1"; tail -c +5001 "$1"; } >> "$2"',
         says_of_broken=()),
    Tool("exec 3>", 'exec 3>"$2"; head -c 3000 "$1" >&3; tail -c +3001 "$1" >&3; exec 3>&-',
         says_of_broken=()),
    Tool("tar x", 'cp -p "$1" "$1.d"; tar -C "$(dirname "$1")" --transform "s/.*/$(basename "$2")/" '
         '-cf - "$(basename "$1").d" | tar -C "$(dirname "$2")" -xf -'),
    Tool("tar x, archive made with --sparse",
         'cp -p --sparse=always "$1" "$1.d"; tar -C "$(dirname "$1")" --sparse --transform '
         '"s/.*/$(basename "$2")/" -cf - "$(basename "$1").d" | tar -C "$(dirname "$2")" -xf -'),
    Tool("gzip -dc >", 'gzip -c "$1" | gzip -dc > "$2"'),
    Tool("split", 'SHELL=/bin/bash split -b 1G --filter "cat > \\"$2\\"" "$1"'),
    Tool("truncate, cat 1<>", 'exec 3<>"$2"; truncate -s "$(stat -c %s "$1")" "$2"; cat "$1" >&3',
         says_of_broken=()),
    Tool("save by .goutputstream-", 't="$(dirname "$2")/.goutputstream-ABC123"; cat "$1" >"$t"; '
         'mv "$t" "$2"', says_of_broken=("to a subdirectory of itself",)),  # mv's word for EINVAL
    Tool("save by .NAME.XXXXXX", 't=$(mktemp "$(dirname "$2")/.$(basename "$2").XXXXXX"); '
         'cat "$1" >"$t"; mv "$t" "$2"', says_of_broken=("to a subdirectory of itself",)),
    Tool("save by NAME.tmp", 'cat "$1" >"$2.tmp"; mv "$2.tmp" "$2"'),
    python("python open().write", "open(target, 'wb').write(open(source, 'rb').read())",
           says_of_broken=()),
    python("python with open()", "with open(target, 'wb') as file:\n"
           "    file.write(open(source, 'rb').read())"),
    python("python write in pieces", "with open(target, 'wb', buffering=0) as file:\n"
           "    data = open(source, 'rb').read()\n"
           "    for at in range(0, len(data), 1234): file.write(data[at: at + 1234])"),
    python("pathlib write_bytes", "import pathlib\n"
           "pathlib.Path(target).write_bytes(pathlib.Path(source).read_bytes())"),
    python("shutil.copyfile", "import shutil\nshutil.copyfile(source, target)"),
    python("shutil.copy", "import shutil\nshutil.copy(source, target)"),
    python("shutil.copy2", "import shutil\nshutil.copy2(source, target)"),
    python("shutil.move", "import shutil\nshutil.move(source, target)"),
    python("shutil.copytree", "import shutil\nos.mkdir(source + '.d')\n"
           "shutil.copy2(source, os.path.join(source + '.d', os.path.basename(target)))\n"
           "shutil.copytree(source + '.d', os.path.dirname(target), dirs_exist_ok=True)"),
    python("os.sendfile", "size = os.stat(source).st_size\nwith open(target, 'wb') as file:\n"
           "    with open(source, 'rb') as data:\n"
           "        while os.sendfile(file.fileno(), data.fileno(), None, size) > 0: pass"),
    python("copy_file_range", "size = os.stat(source).st_size\nwith open(target, 'wb') as file:\n"
           "    with open(source, 'rb') as data:\n"
           "        while os.copy_file_range(data.fileno(), file.fileno(), size) > 0: pass",
           says="EXDEV"),
    numpy("numpy.save", "np.save(target, np.load(source))"),
    numpy("numpy.save to a file object", "with open(target, 'wb') as file:\n"
          "    np.save(file, np.load(source))"),
    numpy("ndarray.tofile", "np.load(source).tofile(target)", kind="npy-raw"),
    numpy("ndarray.tofile behind a header", "with open(target, 'wb') as file:\n"
          "    file.write(open(source, 'rb').read(128))\n    np.load(source).tofile(file)"),
    numpy("numpy open_memmap(mode='w+')", "data = np.load(source)\n"
          "made = np.lib.format.open_memmap(target, 'w+', data.dtype, data.shape)\n"
          "made[...] = data\nmade.flush()", says="EINVAL"),
    numpy("numpy.memmap(mode='w+')", "data = np.load(source)\n"
          "made = np.memmap(target, data.dtype, 'w+', shape=data.shape)\n"
          "made[...] = data\nmade.flush()", kind="npy-raw", mapped=True),
    astropy("astropy writeto", "with fits.open(source) as hdus: hdus.writeto(target)"),
    astropy("astropy writeto(checksum=True)",
            "with fits.open(source) as hdus: hdus.writeto(target, checksum=True)",
            dated=True),
    astropy("astropy writeto(overwrite=True)",
            "with fits.open(source) as hdus: hdus.writeto(target, overwrite=True)"),
    astropy("astropy mode='append'", "with fits.open(target, mode='append') as hdus:\n"
            "    hdus.append(fits.PrimaryHDU(fits.getdata(source)))"),
    astropy("astropy StreamingHDU", "data = fits.getdata(source)\n"
            "stream = fits.StreamingHDU(target, fits.getheader(source))\n"
            "stream.write(data[:10])\nstream.write(data[10:])\nstream.close()"),
    Tool("fitscopy", 'fitscopy "$1" "$2"', copies=False),
    Tool("funpack -O", 'funpack -O "$2" "$1"', kind="fz", copies=False, dated=True),
    Tool("funpack -S >", 'funpack -S "$1" > "$2"', kind="fz", copies=False, dated=True),
    Tool("fpack -O", 'fpack -g -q 0 -O "$2" "$1"', copies=False, dated=True),
    Tool("fpack -S >", 'fpack -g -q 0 -S "$1" > "$2"', copies=False, dated=True),
    python("fitsio write", "import fitsio\nfitsio.write(target, fitsio.read(source))", copies=False),
    python("fitsio write(clobber=True)",
           "import fitsio\nfitsio.write(target, fitsio.read(source), clobber=True)", copies=False),
]


class IntoDoors(Table):
    def name(self, tool, number):
        return f"f{number:03}." + {"fz": "fits", "npy-raw": "raw"}.get(tool.kind, tool.kind)

    def attempt(self, tool, number, frame, cube, broken=False):
        """Runs the tool in a plain directory and on the door; returns what it said at each."""
        kind = tool.kind.partition("-")[0]
        name = self.name(tool, number)
        (self.base / "plain").mkdir(exist_ok=True)
        plain = self.base / "plain" / name
        source = self.source("source-plain", name, frame, kind, broken)
        there = use(tool, source, plain)
        moved = not source.exists()
        source = self.source("source", name, frame, kind, broken)
        before = source.read_bytes(), tuple(source.stat())[:7]
        here = use(tool, source, cube / "append" / name)
        if here.code != 0 or not moved:
            self.assertEqual((source.read_bytes(), tuple(source.stat())[:7]), before,
                             f"{here}: the source has changed")
        else:
            self.assertFalse(source.exists(), f"{here}: the source is still there")
        return there, here, plain

    def taken(self, tool, number, frame, cube):
        there, here, plain = self.attempt(tool, number, frame, cube)
        if tool.says:
            return here
        self.assertEqual(there.code, 0, f"in a plain directory: {there}")
        self.assertEqual(here.code, 0, str(here))
        name = self.name(tool, number)
        self.assertIn(name, os.listdir(cube / "append"), str(here))
        self.frames.append(frame)
        self.check_cube(tool.name)
        self.check_file(cube / "append" / name, plain, tool)
        run("cmp", cube / "frames" / name, cube / "append" / name)
        return here

    def refused(self, state, tool, here, cube):
        self.assertNotEqual(here.code, 0, str(here))
        self.assertTrue(here.said(tool.says), str(here))
        state.still(self, cube, tool.name)

    def test_the_first_frame(self):
        for number, tool in enumerate(INTO_DOORS):
            if tool.kind == "npy-raw" or tool.copies and number % 3:
                continue  # the first frame cannot be raw
            with self.subTest(tool.name):
                self.frames = []
                cube = self.cube = self.m.cube(f"first{number}")
                state = State(cube)
                here = self.taken(tool, number, self.frame(), cube)
                if tool.says:
                    self.refused(state, tool, here, cube)

    def test_another_frame(self):
        self.define()
        names = {}
        for number, tool in enumerate(INTO_DOORS):
            if tool.mapped and not CAN_MAP:
                continue  # below: KnownFaultsWithoutSharedMappings
            with self.subTest(tool.name):
                state = State(self.cube)
                here = self.taken(tool, number, self.frame(), self.cube)
                if tool.says:
                    self.refused(state, tool, here, self.cube)
                else:
                    names[self.name(tool, number)] = digest(self.door / self.name(tool, number))
        self.assertEqual(os.listdir(self.door), ["given0.fits", "given1.fits", *names])
        status = {name: tuple((self.door / name).stat())[:7] for name in names}
        self.m.remount()
        self.check_cube("mounted again")
        for name, expected in names.items():
            self.assertEqual(digest(self.door / name), expected, name)
            found = (self.door / name).stat()
            self.assertEqual((found.st_mode, *found[4:7]), (status[name][0], *status[name][4:7]))

    def test_a_large_frame_that_ends_in_a_hole(self):
        for number, tool in enumerate(INTO_DOORS):
            if not tool.large or tool.says or tool.mapped and not CAN_MAP:
                continue
            with self.subTest(tool.name):
                if number % 10 == 0 or not self.frames:
                    self.frames = []
                    self.cube = self.m.cube(f"large{number}")
                    self.door = self.cube / "append"
                    self.define(1, LARGE)
                self.taken(tool, number, self.frame(LARGE), self.cube)

    def test_a_source_that_is_no_frame(self):
        self.define()
        for number, tool in enumerate(INTO_DOORS):
            if not tool.copies:
                continue
            with self.subTest(tool.name):
                state = State(self.cube)
                _, here, _ = self.attempt(tool, number, self.frame(), self.cube, broken=True)
                if tool.says_of_broken:
                    self.assertNotEqual(here.code, 0, str(here))
                    self.assertTrue(here.said(*tool.says_of_broken), str(here))
                state.still(self, self.cube, tool.name)
        self.check_cube()


# ---- Over frames ----

# What becomes of it: an errno, or
#   "place": the file takes the frame's place;   "end": it is another frame, the older one becomes
#   NAME.~1~;   "removed": it is another frame, the older one lies in removed/;
#   "changed": the frame itself, as a file in a plain directory
OVER_FRAMES = [
    (Tool("cp", 'cp "$1" "$2"'), "end"),
    (Tool("cp -a", 'cp -a "$1" "$2"'), "end"),
    (Tool("cp --remove-destination", 'cp --remove-destination "$1" "$2"'), "removed"),
    (Tool("mv", 'mv -f "$1" "$2"'), "removed"),
    (Tool("install", 'install "$1" "$2"'), "removed"),
    (Tool("rsync -a", 'rsync -a "$1" "$2"'), "place"),
    (Tool("rsync -a --inplace", 'rsync -a --inplace "$1" "$2"'), "place"),
    (Tool("cat >", 'cat "$1" > "$2"'), "end"),
    (Tool("tee", 'tee "$2" <"$1" >/dev/null'), "end"),
    (Tool("cat >>", 'cat "$1" >> "$2"'), "EFBIG"),
    (Tool("dd", 'dd if="$1" of="$2"'), "end"),
    (Tool("dd conv=notrunc", 'dd if="$1" of="$2" conv=notrunc'), "place"),
    (Tool("dd seek=7 conv=notrunc", 'dd if="$1" of="$2" seek=7 count=2 conv=notrunc'), "changed"),
    (Tool("dd beyond the end", 'dd if="$1" of="$2" oflag=append conv=notrunc'), "EFBIG"),
    (Tool("truncate", 'truncate -s 100 "$2"'), "EROFS"),
    (Tool("tar x", 'tar -C "$(dirname "$1")" -cf - "$(basename "$1")" | '
          'tar -C "$(dirname "$2")" -xf -'), "removed"),
    (Tool("tar x --overwrite", 'tar -C "$(dirname "$1")" -cf - "$(basename "$1")" | '
          'tar -C "$(dirname "$2")" --overwrite -xf -'), "end"),
    (Tool("save by .goutputstream-", 't="$(dirname "$2")/.goutputstream-ABC123"; cat "$1" >"$t"; '
          'mv "$t" "$2"'), "place"),
    (Tool("save by .NAME.XXXXXX", 't=$(mktemp "$(dirname "$2")/.$(basename "$2").XXXXXX"); '
          'cat "$1" >"$t"; mv "$t" "$2"'), "place"),
    (Tool("sed -i", """sed -i "s/^\\(.*OBJECT  = 'M 4\\)2/\\13/" "$2" """), "changed"),
    (python("python open('wb')", "with open(target, 'wb') as file:\n"
            "    file.write(open(source, 'rb').read())"), "end"),
    (python("python open('r+b')", "with open(target, 'r+b') as file:\n"
            "    file.seek(3000)\n    file.write(b'1234')"), "changed"),
    (python("shutil.copy2", "import shutil\nshutil.copy2(source, target)"), "end"),
    (numpy("numpy.save", "np.save(target, np.load(source))"), "end"),
    (numpy("ndarray.tofile", "np.load(source).tofile(target)", kind="npy-raw"), "end"),
    (numpy("numpy.load(mmap_mode='r+')", "made = np.load(target, mmap_mode='r+')\n"
           "made[3, 4] = 5\nmade.flush()", mapped=True), "changed"),
    (numpy("numpy.load(mmap_mode='r+') without flush()",
           "made = np.load(target, mmap_mode='r+')\nmade[3, 4] = 5\ndel made", mapped=True), "changed"),
    (astropy("astropy writeto(overwrite=True)",
             "with fits.open(source) as hdus: hdus.writeto(target, overwrite=True)"), "removed"),
    (astropy("astropy mode='update' of data", "with fits.open(target, 'update', memmap=False) as h:\n"
             "    h[0].data[3, 4] = 5"), "changed"),
    (astropy("astropy mode='update' of data, memmap",
             "with fits.open(target, 'update', memmap=True) as h: h[0].data[3, 4] = 5",
             mapped=True), "changed"),
    (astropy("fits.setval", "fits.setval(target, 'OBJECT', value='M 43')"), "changed"),
    (astropy("fits.setval of a new card", "fits.setval(target, 'OBSERVER', value='me')"), "changed"),
    (astropy("astropy mode='update', a longer header",
             "with fits.open(target, 'update', memmap=False) as h:\n"
             "    for i in range(60): h[0].header[f'KEY{i}'] = i"), "changed"),
    (python("fitsio update of a card", "import fitsio\nwith fitsio.FITS(target, 'rw') as h:\n"
            "    h[0].write_key('OBJECT', 'M 43')", copies=False), "changed"),
    (python("fitsio update of data", "import fitsio\nwith fitsio.FITS(target, 'rw') as h:\n"
            "    h[0].write(fitsio.read(source))", copies=False), "place"),
]


class OverFrames(Table):
    def test_each_tool(self):
        for number, (tool, becomes) in enumerate(OVER_FRAMES):
            with self.subTest(tool.name):
                self.each(number, tool, becomes)

    def each(self, number, tool, becomes):
        cube = self.m.cube(f"over{number}")
        if tool.mapped and not CAN_MAP:
            becomes = "ENODEV"
        frames = [self.frame() for _ in range(4)]
        suffix = {"npy-raw": "raw"}.get(tool.kind, tool.kind)
        kind = tool.kind.partition("-")[0]
        names = [f"f{i}.{suffix}" for i in range(3)]
        run("cp", self.source("first", "first.fits", self.frame(), "fits"), cube / "append")
        for name, frame in zip(names, frames):
            source = self.source("source", name, frame, suffix)
            run("cp", source, cube / "append")
        run("rm", cube / "frames/first.fits", cube / "removed/first.fits")
        source = self.source("source", names[1], frames[3], kind)
        (self.base / "plain").mkdir(exist_ok=True)
        plain = self.base / "plain" / names[1]
        run("cp", cube / "append" / names[1], plain)
        header = plain.read_bytes()
        given = source.read_bytes()
        state = State(cube)
        here = use(tool, source, cube / "append" / names[1])
        if becomes == "changed":
            self.assertEqual(use(tool, source, plain).code, 0)
            read = {"fits": read_fits, "npy": np.load}[kind]
            frames[1] = read(plain).astype(frames[1].dtype)
        order = {"end": [0, 1, 2, 3], "removed": [0, 2, 3], "place": [0, 3, 2]}.get(becomes, [0, 1, 2])
        assert_same(np.load(cube / "cube.npy"), np.stack([frames[i] for i in order]), str(here))
        if becomes in ("end", "removed", "place"):
            self.assertEqual(here.code, 0, str(here))
            self.assertEqual((cube / "append" / names[1]).read_bytes(),
                             given[128:] if kind != suffix else given)
            left = {0: names[0], 1: names[1] + ".~1~", 2: names[2], 3: names[1]}
            self.assertEqual(os.listdir(cube / "frames"), [left[i] for i in order])
            self.assertEqual(os.listdir(cube / "removed"), [left[1]] if becomes == "removed" else [])
            if becomes != "place":
                older = cube / ("removed" if becomes == "removed" else "frames") / left[1]
                self.assertEqual(older.read_bytes(), header)
        elif becomes == "changed":
            self.assertEqual(here.code, 0, str(here))
            run("cmp", plain, cube / "append" / names[1])
            self.assertNotEqual(plain.read_bytes(), header)
            self.assertEqual(os.listdir(cube / "frames"), names)
            if kind == "fits":
                shown = fits.getheader(cube / "slices/xy/z1.fits")
                wanted = fits.getheader(plain)
                self.assertLessEqual({(card.keyword, card.value) for card in wanted.cards},
                                     {(card.keyword, card.value) for card in shown.cards})
        else:
            self.assertNotEqual(here.code, 0, str(here))
            self.assertTrue(here.said(becomes), str(here))
            self.assertEqual(source.read_bytes(), given)
            state.still(self, cube, tool.name)
        for i in (0, 2):
            run("cmp", self.base / "source" / names[i], cube / "frames" / names[i])


class Rsync(Table):
    def sent(self, *options):
        """Names that rsync says that it sent or deleted, and how many files it counted as sent."""
        said = run("rsync", "-a", "--itemize-changes", "--stats", *options, f"{self.base}/in/",
                   f"{self.door}/").stdout.decode()
        # The times of a door are its own, so "./" may be told.
        told = [line.split(maxsplit=1) for line in said.splitlines()
                if line[:2] in (">f", "cd", "*d") or line.startswith(".f")]
        count = re.search(r"regular files transferred: (\d+)", said)[1]
        return [name for _, name in told], int(count)

    def fill(self, count, shape=SMALL):
        self.frames = [self.frame(shape) for _ in range(count)]
        self.names = [f"f{i:02}.fits" for i in range(count)]
        for name, frame in zip(self.names, self.frames):
            self.source("in", name, frame, "fits")

    def check(self):
        self.check_cube()
        self.assertEqual(sorted(os.listdir(self.door)), self.names)
        for name in self.names:
            run("cmp", self.base / "in" / name, self.door / name)

    def test_run_again_sends_nothing(self):
        self.fill(12)
        for options in ((), ("--inplace",), ("--partial",), ("--sparse",)):
            if options:
                self.cube = self.m.cube("again" + options[0])
                self.door = self.cube / "append"
            self.assertEqual(self.sent(*options), (sorted(self.names), 12))
            for turn in range(3):
                self.check_cube()
                self.assertEqual(self.sent(*options), ([], 0), f"{options}, turn {turn}")
                if turn == 1:
                    self.m.remount()
            self.assertEqual(self.sent("--checksum"), ([], 0), options)
            self.assertEqual(sorted(os.listdir(self.door)), sorted(self.names))

    def test_delete_takes_frames_out(self):
        self.fill(5)
        self.sent()
        (self.base / "in/f03.fits").unlink()
        self.assertEqual(self.sent("--delete"), (["f03.fits"], 0))
        removed = self.frames.pop(3)
        self.names.remove("f03.fits")
        self.check()
        self.assertEqual(os.listdir(self.cube / "removed"), ["f03.fits"])
        assert_same(read_fits(self.cube / "removed/f03.fits"), removed)
        self.assertEqual(self.sent("--delete"), ([], 0))
        self.check()

    def test_remove_source_files(self):
        self.fill(3)
        sources = [(self.base / "in" / name).read_bytes() for name in self.names]
        run("rsync", "-a", "--remove-source-files", f"{self.base}/in/", f"{self.door}/")
        self.check_cube()
        self.assertEqual(os.listdir(self.base / "in"), [])
        self.assertEqual([(self.door / name).read_bytes() for name in self.names], sources)

    def test_interrupted_and_run_again(self):
        self.define(1, LARGE)
        self.fill(1, LARGE)
        first = read_fits(self.door / "given0.fits")
        for number, how in ((signal.SIGTERM, "--partial"), (signal.SIGKILL, "--partial"),
                            (signal.SIGTERM, "--inplace"), (signal.SIGTERM, f"--temp-dir={self.base}")):
            with self.subTest(how, number=number):
                state = State(self.cube)
                with subprocess.Popen(["rsync", "-a", "--bwlimit=2000", how, f"{self.base}/in/",
                                       f"{self.door}/"], stderr=subprocess.PIPE,
                                      start_new_session=True) as copying:
                    time.sleep(0.4)
                    self.assertIsNone(copying.poll())
                    os.killpg(copying.pid, number)
                    copying.communicate()
                state.still(self, self.cube, how)
        self.assertEqual(self.sent("--partial"), (["f00.fits"], 1))
        run("cmp", self.base / "in/f00.fits", self.door / "f00.fits")
        assert_same(np.load(self.cube / "cube.npy"), np.stack([first, self.frames[0]]))

    def test_directories_for_unfinished_files_are_not_made(self):
        """rsync keeps what is whole, too, in a directory of its own; there it says so, and ends well."""
        self.define()
        self.source("in", "f0.fits", self.frame(), "fits")
        for options in (["--delay-updates"], ["--partial", "--partial-dir=.part", "--delay-updates"]):
            state = State(self.cube)
            result = run("rsync", "-a", *options, f"{self.base}/in/", f"{self.door}/", check=False)
            self.assertIn(b"Unable to create partial-dir", result.stderr)
            state.still(self, self.cube, options)


class Imcopy(Table):
    def test_an_end_that_comes_after_the_first_data(self):
        """As cfitsio writes it when cards were added to an image that is made."""
        frame = self.frame()
        source = self.source("source", "f.fits", frame, "fits")
        run("imcopy", source, self.door / "f.fits")
        self.frames.append(frame)
        self.check_cube()


class WithoutSharedMappings(Table):
    options = ("-o", "io=cached")

    def test_numpy_memmap_that_cannot_be_mapped(self):
        """numpy writes the last byte, then maps; that fails, and the zeros are no frame."""
        self.define()
        state = State(self.cube)
        for kind, suffix in (("f4", "raw"), ("u1", "npy")):
            tool = numpy("memmap", f"np.memmap(target, '{kind}', 'w+', shape=11520 // "
                         f"np.dtype('{kind}').itemsize)")
            here = use(tool, "", self.door / f"f.{suffix}")
            self.assertTrue(here.said("ENODEV", "EINVAL"), str(here))
            state.still(self, self.cube, "memmap")
        run("truncate", "-s", "11520", self.door / "zeros.raw")  # which is a frame
        self.frames.append(np.zeros(SMALL, "f4"))
        self.check_cube()


# ---- Onto views ----

class OnView(typing.NamedTuple):
    """A tool that writes the file $1, a view's with other elements, onto that view, $2."""
    tool: Tool
    # "taken"; "either": the elements are the new or the old ones, all of them, whatever it says;
    # "same": it ends well and nothing has changed; else errnos or words, one of which it must say
    becomes: str | tuple = "taken"
    part: typing.Callable = lambda old, new: new  # what the plane is then
    mapped: bool = False  # stores through a shared mapping


def stretch(old, new):
    """Elements 800 to 840 are the new ones."""
    plane = old.copy()
    plane.flat[800:840] = new.flat[800:840]
    return plane


def few(old, new):
    plane = old.copy()
    plane[3:7, 4:20] = new[3:7, 4:20]
    return plane


CROSSING = 'dd if="$1" of="$2" bs=8 count=1 seek=$(($(stat -c %s "$2") - 4)) oflag=seek_bytes '

IN_PLACE = [
    OnView(Tool("dd conv=notrunc", 'dd if="$1" of="$2" conv=notrunc')),
    OnView(Tool("dd bs=1999 conv=notrunc", 'dd if="$1" of="$2" bs=1999 conv=notrunc')),
    OnView(Tool("dd bs=1 conv=notrunc", 'dd if="$1" of="$2" bs=1 conv=notrunc')),
    OnView(Tool("dd seek conv=notrunc", 'dd if="$1" of="$2" bs=16 skip=200 seek=200 count=10 '
                'conv=notrunc', kind="raw"), part=stretch),
    OnView(Tool("dd bs=3 seek conv=notrunc", 'dd if="$1" of="$2" bs=3 skip=3200 seek=3200 count=160 '
                'iflag=skip_bytes oflag=seek_bytes conv=notrunc', kind="raw"),
           part=lambda old, new: np.concatenate(
               [old.flat[:800], new.flat[800:920], old.flat[920:]]).reshape(old.shape)),
    OnView(Tool("dd in two halves", HALVES + 'dd if="$1" of="$2" bs=$half skip=1 seek=1 '
                'conv=notrunc; dd if="$1" of="$2" bs=$half count=1 conv=notrunc')),
    OnView(Tool("cat 1<>", 'cat "$1" 1<>"$2"')),
    OnView(Tool("rsync --inplace", 'rsync --inplace --ignore-times "$1" "$2"')),
    OnView(python("python open('r+b')", "with open(target, 'r+b') as file:\n"
                  "    file.seek(3200)\n    data = open(source, 'rb').read()[3200:3360]\n"
                  "    file.write(data)", kind="raw"), part=stretch),
    OnView(python("python os.pwrite", "file = os.open(target, os.O_WRONLY)\n"
                  "data = open(source, 'rb').read()\n"
                  "for at in reversed(range(0, len(data), 1000)):\n"
                  "    assert os.pwrite(file, data[at: at + 1000], at) > 0\nos.close(file)")),
    OnView(numpy("numpy.load(mmap_mode='r+')", "made = np.load(target, mmap_mode='r+')\n"
                 "made[3:7, 4:20] = np.load(source)[3:7, 4:20]\nmade.flush()"), part=few, mapped=True),
    OnView(numpy("numpy.load(mmap_mode='r+') without flush()",
                 "made = np.load(target, mmap_mode='r+')\nmade[...] = np.load(source)\ndel made"),
           mapped=True),
    OnView(numpy("numpy.memmap(mode='r+')", "new = np.fromfile(source, 'f4').reshape(40, 72)\n"
                 "made = np.memmap(target, 'f4', 'r+', shape=new.shape)\n"
                 "made[3:7, 4:20] = new[3:7, 4:20]\nmade.flush()", kind="raw"), part=few, mapped=True),
    OnView(python("python mmap", "import mmap\nnew = open(source, 'rb').read()\n"
                  "with open(target, 'r+b') as file:\n    made = mmap.mmap(file.fileno(), 0)\n"
                  "made[3200:3360] = new[3200:3360]\nmade.close()", kind="raw"),
           part=stretch, mapped=True),
    OnView(astropy("astropy mode='update' of data",
                   "with fits.open(target, 'update', memmap=False) as hdus:\n"
                   "    hdus[0].data[3:7, 4:20] = fits.getdata(source)[3:7, 4:20]"), part=few),
    OnView(astropy("astropy mode='update' of data, memmap",
                   "with fits.open(target, 'update', memmap=True) as hdus:\n"
                   "    hdus[0].data[3:7, 4:20] = fits.getdata(source)[3:7, 4:20]"),
           part=few, mapped=True),
    OnView(astropy("astropy mode='update', other data",
                   "data = fits.getdata(source)\n"
                   "with fits.open(target, 'update', memmap=False) as hdus:\n"
                   "    hdus[0].data[...] = data")),
    OnView(python("fitsio update of data", "import fitsio\nwith fitsio.FITS(target, 'rw') as hdus:\n"
                  "    hdus[0].write(fitsio.read(source))", copies=False)),
]

STAGED = [
    OnView(Tool("cp", 'cp "$1" "$2"')),
    OnView(Tool("cp of .npy", 'cp "$1" "$2"', kind="npy")),
    OnView(Tool("cp of .raw", 'cp "$1" "$2"', kind="raw")),
    OnView(Tool("cp -f", 'cp -f "$1" "$2"')),
    OnView(Tool("cp --sparse=always", 'cp --sparse=always "$1" "$2"')),
    OnView(Tool("cp --reflink=auto", 'cp --reflink=auto "$1" "$2"')),
    OnView(Tool("cp -p", 'cp -p "$1" "$2"'), "either"),
    OnView(Tool("cp -a", 'cp -a "$1" "$2"'), "either"),
    OnView(Tool("cp --remove-destination", 'cp --remove-destination "$1" "$2"'), ("EPERM",)),
    OnView(Tool("mv", 'mv -f "$1" "$2"'), ("EPERM",)),
    OnView(Tool("install", 'install "$1" "$2"'), ("EPERM",)),
    OnView(Tool("rsync", 'rsync --ignore-times "$1" "$2"'), ("EPERM",)),
    OnView(Tool("rsync -a", 'rsync -a --ignore-times "$1" "$2"'), ("EPERM",)),
    OnView(Tool("dd", 'dd if="$1" of="$2"')),
    OnView(Tool("dd bs=1", 'dd if="$1" of="$2" bs=1')),
    OnView(Tool("dd bs=1M", 'dd if="$1" of="$2" bs=1M')),
    OnView(Tool("dd bs=1999 conv=fsync", 'dd if="$1" of="$2" bs=1999 conv=fsync')),
    OnView(Tool("dd conv=sparse", 'dd if="$1" of="$2" bs=4k conv=sparse')),
    OnView(Tool("dd seek without notrunc", 'dd if="$1" of="$2" bs=8 skip=2 seek=2')),
    OnView(Tool("cat >", 'cat "$1" > "$2"')),
    OnView(Tool("dash: cat >", 'dash -c "cat \\"\\$0\\" > \\"\\$1\\"" "$1" "$2"')),
    OnView(Tool("(head; cat) >", '(head -c 1000; cat) <"$1" > "$2"')),
    OnView(Tool("tee", 'tee "$2" <"$1" | cmp - "$1"')),
    OnView(Tool("gzip -dc >", 'gzip -c "$1" | gzip -dc > "$2"')),
    OnView(Tool("tar x", 'tar -C "$(dirname "$1")" -cf - "$(basename "$1")" | '
                'tar -C "$(dirname "$2")" -xf -'), ("EPERM", "EEXIST")),
    OnView(Tool("tar x --overwrite", 'tar -C "$(dirname "$1")" -cf - "$(basename "$1")" | '
                'tar -C "$(dirname "$2")" --overwrite -xf -'), "either"),
    OnView(Tool("save by temporary file and rename",
                't="$(dirname "$2")/.goutputstream-ABC123"; cat "$1" >"$t"; mv "$t" "$2"'), ("EPERM",)),
    OnView(Tool("mktemp", 'mktemp "$(dirname "$2")/.$(basename "$2").XXXXXX"'), ("EPERM",)),
    OnView(Tool("sed -i", 'sed -i "s/SIMPLE/simple/" "$2"'), ("EPERM",)),
    OnView(python("python open('wb')", "with open(target, 'wb') as file:\n"
                  "    file.write(open(source, 'rb').read())")),
    OnView(python("pathlib write_bytes", "import pathlib\n"
                  "pathlib.Path(target).write_bytes(pathlib.Path(source).read_bytes())")),
    OnView(python("shutil.copyfile", "import shutil\nshutil.copyfile(source, target)")),
    OnView(python("shutil.copy", "import shutil\nshutil.copy(source, target)"), "either"),
    OnView(python("shutil.copy2", "import shutil\nshutil.copy2(source, target)"), "either"),
    OnView(numpy("numpy.save", "np.save(target, np.load(source))")),
    OnView(numpy("numpy.save to a file object", "with open(target, 'wb') as file:\n"
                 "    np.save(file, np.load(source))")),
    OnView(numpy("ndarray.tofile", "np.fromfile(source, 'f4').tofile(target)", kind="raw")),
    OnView(numpy("numpy open_memmap(mode='w+')", "data = np.load(source)\n"
                 "made = np.lib.format.open_memmap(target, 'w+', data.dtype, data.shape)\n"
                 "made[...] = data\nmade.flush()"), ("EINVAL",)),
    OnView(numpy("numpy.memmap(mode='w+')", "data = np.fromfile(source, 'f4')\n"
                 "made = np.memmap(target, 'f4', 'w+', shape=data.shape)\n"
                 "made[...] = data\nmade.flush()", kind="raw"), "either"),
    OnView(astropy("astropy writeto(overwrite=True)",
                   "with fits.open(source) as hdus: hdus.writeto(target, overwrite=True)"), ("EPERM",)),
    OnView(astropy("astropy writeto to a file object",
                   "with fits.open(source) as hdus:\n"
                   "    with open(target, 'wb') as file: hdus.writeto(file)"), ("already exists",)),
    OnView(Tool("fitscopy over it", 'fitscopy "$1" "!$2"'), ("FITSIO status",)),
    OnView(python("fitsio write(clobber=True)",
                  "import fitsio\nfitsio.write(target, fitsio.read(source), clobber=True)"),
           ("EPERM", "FITSIO status")),
]

NOT_AT_ALL = [
    OnView(Tool("cat >>", 'cat "$1" >> "$2"'), ("EFBIG",)),
    OnView(Tool("dd beyond the end", 'dd if="$1" of="$2" bs=$(stat -c %s "$2") seek=1 conv=notrunc'),
           ("EFBIG",)),
    OnView(Tool("dd across the end", CROSSING + "conv=notrunc"), ("EFBIG",)),
    OnView(Tool("dd across the end of .raw", CROSSING + "conv=notrunc", kind="raw"), ("EFBIG",)),
    OnView(Tool("head >", 'head -c 9000 "$1" > "$2"'), ("EINVAL",)),
    OnView(Tool("cat > of nothing", ': > "$2" || true'), "same"),
    OnView(Tool("truncate", 'truncate -s 100 "$2"'), ("EPERM",)),
    OnView(Tool("truncate to nothing", 'truncate -s 0 "$2"'), ("EINVAL",)),
    OnView(Tool("truncate to more", 'truncate -s +1 "$2"'), ("EPERM",)),
    OnView(Tool("truncate to the same size", 'truncate -s +0 "$2"'), "same"),
    OnView(Tool("chmod", 'chmod 600 "$2"'), ("EPERM",)),
    OnView(Tool("chown", 'chown 12:34 "$2"'), ("EPERM",)),
    OnView(Tool("touch -d", 'touch -d 2001-01-01 "$2"'), ("EPERM",)),
    OnView(Tool("rm", 'rm -f "$2"'), ("EPERM",)),
    OnView(Tool("ln", 'ln "$2" "$2.link"'), ("EPERM",)),
    OnView(Tool("ln -s", 'ln -s "$1" "$2.link"'), ("EPERM",)),
    OnView(Tool("mknod", 'mknod "$(dirname "$2")/fifo" p'), ("EPERM",)),
    OnView(Tool("mkdir", 'mkdir "$(dirname "$2")/new"'), ("EPERM",)),
    OnView(Tool("mv away", 'mv "$2" "$(dirname "$2")/other.fits"'), ("EPERM",)),
    OnView(Tool("setfattr", 'setfattr -n user.a -v b "$2"'), ("ENOTSUP",)),
    OnView(astropy("astropy mode='update', a longer header",
                   "with fits.open(target, 'update') as hdus:\n"
                   "    for i in range(200): hdus[0].header[f'KEY{i}'] = i"), ("EPERM",)),
]


class OntoViews(Table):
    """Opened without O_TRUNC, a view is written in place; else its elements are replaced when it is
    closed, all or none."""
    can_map = CAN_MAP

    def setUp(self):
        super().setUp()
        self.fill()

    def fill(self, count=5, shape=SMALL, dtype="float32"):
        self.frames = [self.frame(shape, dtype) for _ in range(count)]
        for i, frame in enumerate(self.frames):
            run("cp", self.source("given", f"f{i}.fits", frame, "fits"), self.door)

    def fixed(self, view, elements):
        """The bytes of a view with other elements."""
        data, begin, order = bytearray(view.read_bytes()), 0, "="
        if view.suffix == ".npy":
            begin = 10 + int.from_bytes(data[8:10], "little")
        elif view.suffix == ".fits":
            end = next(at for at in range(0, len(data), 80) if data[at: at + 80] == b"END".ljust(80))
            begin, order = end // 2880 * 2880 + 2880, ">"
        bits = np.ascontiguousarray(elements)
        if order == ">" and bits.dtype.kind == "u" and bits.itemsize > 1:
            bits = bits ^ bits.dtype.type(1 << 8 * bits.itemsize - 1)
        data[begin: begin + bits.nbytes] = bits.astype(bits.dtype.newbyteorder(order)).tobytes()
        return bytes(data)

    def check(self, changed=(), what=""):
        """All views show self.frames; frames that nobody touched are as they came."""
        whole = np.stack(self.frames)
        nz, ny, nx = whole.shape
        self.assertEqual(shape_of(self.cube), [nx, ny, nz], what)
        assert_same(np.load(self.cube / "cube.npy"), whole, what)
        assert_same(np.load(self.cube / f"slices/zx/y{ny // 2}.npy"),
                    np.ascontiguousarray(whole[:, ny // 2].T), what)
        for z in range(nz):
            name = f"f{z}.fits"
            if z in changed:
                assert_same(np.load(self.cube / f"slices/yx/z{z}.npy"),
                            np.ascontiguousarray(whole[z].T), what)
                assert_same(read_fits(self.cube / f"slices/xy/z{z}.fits").astype(whole.dtype),
                            whole[z], what)
                assert_same(read_fits(self.cube / "frames" / name).astype(whole.dtype), whole[z], what)
                found, given = (self.cube / "frames" / name).stat(), \
                    (self.base / "given" / name).stat()
                self.assertEqual((found.st_size, found.st_mtime_ns // 10**9 > 0),
                                 (given.st_size, True), what)
            else:
                run("cmp", self.base / "given" / name, self.cube / "frames" / name)

    def each(self, rows):
        changed = set()
        (self.base / "plain").mkdir()
        for row in rows:
            with self.subTest(row.tool.name):
                self.one(row, changed)
        self.m.remount()
        self.check(changed, "mounted again")

    def one(self, row, changed):
        tool = row.tool
        view = self.cube / f"slices/xy/z000002.{tool.kind}"
        new, old = self.frame(), self.frames[2]
        plain, source = self.base / "plain" / view.name, self.base / view.name
        content = self.fixed(view, new)
        sync(self.cube)  # which notes that there were pokes
        state = State(self.cube)
        # What the row says that a tool does, it does elsewhere.
        if row.becomes == "taken":
            plain.write_bytes(view.read_bytes())
            source.write_bytes(content)
            there = use(tool, source, plain)
            self.assertEqual(there.code, 0, f"in a plain directory: {there}")
            if tool.copies or row.part is not OnView._field_defaults["part"]:
                self.assertEqual(plain.read_bytes(), self.fixed(view, row.part(old, new)), tool.name)
        source.write_bytes(content)
        here = use(tool, source, view)
        becomes = row.becomes
        if row.mapped and not self.can_map:
            becomes = ("ENODEV",)
        if becomes == "either":
            found = np.load(self.cube / "cube.npy")[2]
            if here.code == 0 or np.array_equal(found, new):
                changed.add(2)
                self.frames[2] = new
                self.check(changed, str(here))
                return
            self.assertTrue(any(here.said(name) for name in ("EPERM", "EINVAL", "ENODEV")), str(here))
        elif becomes == "taken":
            self.assertEqual(here.code, 0, str(here))
            changed.add(2)
            self.frames[2] = row.part(old, new)
            self.check(changed, str(here))
            if tool.copies:
                self.assertEqual(view.read_bytes(), self.fixed(view, self.frames[2]), str(here))
            return
        elif becomes == "same":
            self.assertEqual(here.code, 0, str(here))
        else:
            self.assertNotEqual(here.code, 0, str(here))
            self.assertTrue(here.said(*becomes), str(here))
        self.assertEqual(source.read_bytes(), content, str(here))
        state.still(self, self.cube, str(here))

    def test_in_place(self):
        self.each(IN_PLACE)

    def test_staged(self):
        self.each(STAGED)

    def test_what_views_do_not_take(self):
        self.each(NOT_AT_ALL)

    def test_other_views_of_the_same_elements(self):
        """Cut-outs, transposes, columns, the whole."""
        whole = np.stack(self.frames)
        changed = set()
        names = {"slices/yx/z1.npy": lambda a: a[1].T,
                 "slices/yx/z1.fits": lambda a: a[1].T, "slices/zx/y5.raw": lambda a: a[:, 5].T,
                 "slices/z/x3_y4.npy": lambda a: a[:, 4, 3], "slices/xz/y7.fits": lambda a: a[:, 7],
                 "slices/xy/x5..20_y2..9_z1.fits": lambda a: a[1, 2:9, 5:20],
                 "slices/xyz/z1..3.npy": lambda a: a[1:3], "cube.npy": lambda a: a,
                 "cube.fits": lambda a: a, "cube.raw": lambda a: a,
                 "slices/xy/last.raw": lambda a: a[4]}
        for name, part in names.items():
            for script in ('cp "$1" "$2"', 'dd if="$1" of="$2" conv=notrunc bs=4096'):
                with self.subTest(name, script=script):
                    elements = part(whole)
                    elements[...] = random_array(self.rng, elements.shape, "int16")
                    view = self.cube / name
                    source = self.base / f"new{view.suffix}"
                    source.write_bytes(self.fixed(view, elements))
                    here = use(Tool(name, script), source, view)
                    self.assertEqual(here.code, 0, str(here))
                    self.frames = list(whole.copy())
                    self.check(range(5), str(here))

    def test_unsigned_integers(self):
        self.cube = self.m.cube("unsigned")
        self.door = self.cube / "append"
        self.fill(3, dtype="uint16")
        for kind, script in (("fits", 'cp "$1" "$2"'), ("npy", 'cat "$1" >"$2"'),
                             ("raw", 'dd if="$1" of="$2" bs=7 conv=notrunc'),
                             ("fits", 'dd if="$1" of="$2" bs=7 conv=notrunc')):
            with self.subTest(kind, script=script):
                view = self.cube / f"slices/xy/z1.{kind}"
                self.frames[1] = self.frame(dtype="uint16")
                source = self.base / f"new.{kind}"
                source.write_bytes(self.fixed(view, self.frames[1]))
                here = use(Tool(kind, script), source, view)
                self.assertEqual(here.code, 0, str(here))
                self.check([1], str(here))

    def test_large_planes(self):
        self.cube = self.m.cube("large")
        self.door = self.cube / "append"
        self.fill(3, LARGE)
        for script in ('cp "$1" "$2"', 'cat "$1" >"$2"', 'cp --sparse=always "$1" "$2"',
                       'dd if="$1" of="$2" bs=1M', 'dd if="$1" of="$2" bs=99999 conv=notrunc'):
            with self.subTest(script):
                view = self.cube / "slices/xy/z000001.fits"
                self.frames[1] = self.frame(LARGE)
                source = self.base / "new.fits"
                source.write_bytes(self.fixed(view, self.frames[1]))
                here = use(Tool("large", script), source, view)
                self.assertEqual(here.code, 0, str(here))
                self.check([1], str(here))

    def test_wrong_shape_or_type(self):
        other = {"transposed": self.frame(SMALL[::-1]), "wider": self.frame((40, 73)),
                 "narrower": self.frame((40, 71)), "a line": self.frame((72,)),
                 "a cube": self.frame((2, 40, 72)), "int32": self.frame(dtype="int32"),
                 "float64": self.frame(dtype="float64")}
        contents = {"fits": {name: fits_bytes(array) for name, array in other.items()},
                    "npy": {name: npy_bytes(array) for name, array in other.items()},
                    "raw": {name: array.tobytes() for name, array in other.items()
                            if array.nbytes != 4 * 40 * 72}}
        for kind in contents:
            data = (self.cube / f"slices/xy/z2.{kind}").read_bytes()
            contents[kind].update({"half": data[:len(data) // 2], "text": b"no plane\n",
                                   "nothing": b""})
            if kind == "raw":  # the others may have something behind their elements
                contents[kind]["longer"] = data + b"12345678"
        tools = {"cp": 'cp "$1" "$2"', "cat >": 'cat "$1" > "$2"', "dd": 'dd if="$1" of="$2" bs=3000',
                 "tee": 'tee "$2" <"$1" >/dev/null',
                 "python": "#python\nimport sys\nwith open(sys.argv[2], 'wb') as file:\n"
                           "    file.write(open(sys.argv[1], 'rb').read())"}
        for kind, cases in contents.items():
            for turn, (what, data) in enumerate(cases.items()):
                name = list(tools)[turn % len(tools)]
                for name in {name, "cp"}:
                    with self.subTest(f"{kind}, {what}", tool=name):
                        state = State(self.cube)
                        source = self.base / f"wrong.{kind}"
                        source.write_bytes(data)
                        here = use(Tool(name, tools[name]), source, self.cube / f"slices/xy/z2.{kind}")
                        self.assertNotEqual(here.code, 0, str(here))
                        self.assertTrue(here.said("EINVAL", *(["EFBIG"] if len(data) > 11520 else [])),
                                        str(here))
                        state.still(self, self.cube, str(here))

    def test_another_type_that_has_all_values(self):
        for dtype in ("uint8", "int16", "float64"):
            with self.subTest(dtype):
                new = self.rng.integers(0, 200, SMALL).astype(dtype)
                view = self.cube / "slices/xy/z2.fits"
                source = self.base / "other.fits"
                source.write_bytes(fits_bytes(new))
                run("cp", source, view)
                self.frames[2] = new.astype("f4")
                self.check([2], dtype)

    def test_others_see_nothing_before_the_close(self):
        view = self.cube / "slices/xy/z000002.fits"
        others = [self.cube / name for name in
                  ("slices/xy/z2.npy", "slices/xy/z2.raw", "slices/yx/z2.fits", "cube.fits",
                   "cube.raw", "frames/f2.fits")]
        before = {path: (path.stat().st_size, digest(path)) for path in others}
        new = self.frame()
        content, old = self.fixed(view, new), view.read_bytes()
        with open(view, "rb", buffering=0) as reader:
            writer = os.open(view, os.O_WRONLY | os.O_TRUNC)
            try:
                for at in (0, len(content) // 2):
                    os.write(writer, content[at: at + len(content) // 2])
                    for path in others:
                        self.assertEqual((path.stat().st_size, digest(path)), before[path], path)
                    self.assertEqual(os.pread(reader.fileno(), len(old) + 1, 0), old)
                os.write(writer, content[len(content) // 2 * 2:])
            finally:
                os.close(writer)
            self.assertEqual(os.pread(reader.fileno(), len(old) + 1, 0), content)
        self.frames[2] = new
        self.check([2])

    def test_killed_in_the_middle(self):
        view = self.cube / "slices/xy/z000002.fits"
        content = self.fixed(view, self.frame())
        fifo = self.base / "fifo"
        os.mkfifo(fifo)
        state = State(self.cube)
        for command in (["cp", fifo, view], ["dd", f"if={fifo}", f"of={view}", "bs=512"],
                        ["bash", "-c", 'exec cat <"$0" >"$1"', fifo, view]):
            with self.subTest(command[0]):
                with subprocess.Popen(command, stderr=subprocess.DEVNULL) as copying:
                    feed = os.open(fifo, os.O_WRONLY)
                    try:
                        os.write(feed, content[:9000])
                        time.sleep(0.2)
                        self.assertIsNone(copying.poll(), "it has ended too early")
                        copying.kill()
                        copying.wait()
                    finally:
                        os.close(feed)
                state.still(self, self.cube, command[0])
        for script in ("file.write(open(source, 'rb').read()[:9000])\nos._exit(0)",
                       "file.write(open(source, 'rb').read()[:9000])\nos.kill(os.getpid(), 9)",
                       "file.write(open(source, 'rb').read()[:9000])\nraise SystemExit(1)"):
            with self.subTest(script):
                source = self.base / "new.fits"
                source.write_bytes(content)
                use(python("exits", "file = open(target, 'wb', buffering=0)\n" + script), source, view)
                state.still(self, self.cube, script)

    def test_a_mapping_outlives_a_copy_and_sees_no_torn_element(self):
        reader_program = """
import mmap, sys
import numpy as np
before, after = (np.fromfile(name, "u4") for name in sys.argv[2:4])
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
seen = np.frombuffer(mapped, "u4")
print("ready", flush=True)
stop = False
while True:
    now = seen.copy()
    torn = (now != before) & (now != after)
    if torn.any():
        sys.exit(f"torn: {now[torn][:3]} at {np.flatnonzero(torn)[:3]}")
    if stop:
        sys.exit(0 if (now == wanted).all() else "the end is neither all new nor all old")
    if sys.stdin.readable() and __import__("select").select([sys.stdin], [], [], 0)[0]:
        wanted = {"before": before, "after": after}[sys.stdin.readline().strip()]
        stop = True
"""
        states = [self.frames[2].view("u4"), self.frame().view("u4")]
        names = [self.base / "before", self.base / "after"]
        for name, state in zip(names, states):
            state.tofile(name)
        with subprocess.Popen([sys.executable, "-c", reader_program,
                               self.cube / "slices/xy/z000002.raw", *names], text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as reader:
            try:
                self.assertEqual(reader.stdout.readline(), "ready\n")
                for turn in range(mounted.scaled(60, 10)):
                    view = self.cube / f"slices/xy/z000002.{('fits', 'raw', 'npy')[turn % 3]}"
                    source = self.base / f"turn{view.suffix}"
                    source.write_bytes(self.fixed(view, states[(turn + 1) % 2].view("f4")))
                    run("cp", source, view)
                    if reader.poll() is not None:
                        self.fail(f"turn {turn}: {reader.communicate()[1]}")
                self.frames[2] = states[(turn + 1) % 2].view("f4")
                said = reader.communicate(["before", "after"][(turn + 1) % 2] + "\n",
                                          timeout=mounted.PATIENCE)[1]
            finally:
                if reader.poll() is None:
                    reader.kill()
        self.assertEqual(reader.returncode, 0, said)
        self.check([2])


class OntoViewsThroughTheCache(OntoViews):
    options = ("-o", "io=cached")
    can_map = False


if __name__ == "__main__":
    mounted.main()
