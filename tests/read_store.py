"""Reads a store at rest with numpy alone, after core/FORMAT.md: proof that others can.

    read_store.py STORE CUBE OUT.npy     writes the whole cube, pad included

Reads only; the store may be open elsewhere or have been cut off by a crash. Every checksum that the
format has is checked, but for the digests of whole files (XXH3-128).
"""
import dataclasses
import pathlib
import struct
import sys

import numpy as np

from xxh3 import xxh3_64

NOTE = b"accretefs store, version 1\n"
DTYPES = (None, "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
JOURNAL_HEADER, RECORD_HEADER, MARK_BODY, CHECKPOINT_HEADER = 48, 24, 48, 128
FRAME_ROW, BOX_ROW, RUN_ROW = 424, 240, 24
DELTA, MARK = 1, 2
LIVE = 1
SUM_CHUNK = 1 << 20


class Damaged(Exception):
    """The bytes are not what the format says."""


class Fields:
    """Little-endian fields, one after the other."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if self.at + n > len(self.data):
            raise Damaged("a table ends early")
        self.at += n
        return self.data[self.at - n:self.at]

    def get(self, layout):
        values = struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))
        return values[0] if len(values) == 1 else values

    def text(self):
        return self.take(self.get("I"))

    def at_end(self):
        return self.at == len(self.data)


@dataclasses.dataclass(frozen=True)
class Coding:
    """How elements lie in bytes."""
    type: str
    big_endian: bool
    sign_flipped: bool

    @staticmethod
    def make(number, flags):
        if not 1 <= number < len(DTYPES):
            raise Damaged(f"there is no element type {number}")
        return Coding(DTYPES[number], bool(flags & 1), bool(flags & 2))

    @property
    def size(self):
        return int(self.type[1])

    @property
    def words(self):
        """The elements as plain words, so that all bits survive."""
        return np.dtype((">" if self.big_endian else "<") + f"u{self.size}")

    def flip(self):
        return 1 << (8 * self.size - 1) if self.sign_flipped else 0

    def decode(self, words):
        native = words.astype(f"<u{self.size}", order="K")
        return native ^ native.dtype.type(self.flip())

    def encode(self, words):
        return (words ^ words.dtype.type(self.flip())).astype(self.words, order="K")


class Definition:
    def __init__(self, f):
        flags, number, coding, self.rank = f.get("BBBB")
        self.defined = bool(flags & 1)
        self.coding = Coding.make(number, coding)
        self.pad = f.take(8)
        self.pad_text, self.letters, self.grow, self.formats, self.header = (
            f.text() for _ in range(5))
        if self.defined and not (1 <= self.rank == len(self.letters) <= 8):
            raise Damaged("a definition contradicts itself")

    def pad_word(self):
        return np.frombuffer(self.pad[:self.coding.size], f"<u{self.coding.size}")[0]


class Box:
    def __init__(self, data):
        f = Fields(data)
        self.id, self.rank, self.layer_axis = f.get("QII")
        if not (1 <= self.rank <= 8 and self.layer_axis < self.rank):
            raise Damaged("a box of an impossible rank")
        self.origin, self.extent, self.brick = (
            f.get(layout)[:self.rank] for layout in ("8q", "8Q", "8Q"))
        self.slot_layers, self.written, self.offset, self.pitch = f.get("QQQQ")
        if 0 in self.extent + self.brick + (self.slot_layers,):
            raise Damaged("an empty box")
        self.grid = tuple(-(-e // b) for e, b in zip(self.extent, self.brick))

    def elements(self, bricks, coding):
        """The box as an array indexed by axis 0, 1, …, in the coding at rest, and a mask."""
        axes = [a for a in range(self.rank) if a != self.layer_axis]
        inner, stride = [0] * self.rank, coding.size
        for a in axes:
            inner[a], stride = stride, stride * self.brick[a]
        inner[self.layer_axis] = self.pitch
        outer, stride = [0] * self.rank, self.pitch * self.brick[self.layer_axis]
        for a in axes + [self.layer_axis]:
            outer[a], stride = stride, stride * self.grid[a]
        if self.offset + stride > len(bricks):
            raise Damaged("the brick file is shorter than its boxes say")
        # All bricks at once: grid indexes, then indexes inside a brick.
        grid = np.ndarray(self.grid + self.brick, coding.words, bricks, self.offset, outer + inner)
        pairs = [i for a in range(self.rank) for i in (a, self.rank + a)]
        whole = grid.transpose(pairs).reshape([g * b for g, b in zip(self.grid, self.brick)])
        layers = np.arange(self.extent[self.layer_axis]) // self.slot_layers
        written = np.array([self.written >> int(slot) & 1 for slot in layers], bool)
        return whole[tuple(slice(e) for e in self.extent)], written


class FrameRow:
    def __init__(self, data):
        f = Fields(data)
        self.id, self.state, self.format, number, flags, self.grow_axis, self.rank, file_rank = (
            f.get("QBBBBBBB"))
        f.take(1)
        if not (1 <= self.state <= 3 and self.grow_axis < self.rank <= 8):
            raise Damaged("a frame's row")
        self.coding = Coding.make(number, flags)
        self.fortran_order = bool(flags & 4)
        self.name = f.get("QQQ")
        self.name_hash = f.get("Q")
        self.prefix, self.suffix, self.runs, self.sums = (f.get("QQQ") for _ in range(4))
        self.first_sum = f.get("Q")
        self.digest = f.get("QQ")
        self.data_offset, self.data_bytes, self.least_bytes, self.full_bytes = f.get("QQQQ")
        self.mtime_ns, self.arrival_ns = f.get("qq")
        self.mode, self.uid, self.gid = f.get("III")
        f.take(4)
        self.first = f.get("8q")[:self.rank]
        self.extent = f.get("8Q")[:self.rank]
        self.file_shape = f.get("8Q")[:file_rank]

    def elements(self):
        """What the row says of its elements; they are looked at when it is news."""
        return self.state, self.first_sum, self.sums, self.runs, self.first, self.extent


class Journal:
    """One journal: its whole, chained records, and how many of them a mark vouches for."""

    def __init__(self, data, cube, generation):
        self.good = False
        if len(data) < JOURNAL_HEADER:
            return
        magic, uid, number, self.sequence, self.chain, stored = struct.unpack_from("<8s5Q", data)
        if magic[:7] == b"ACRJRNL" and magic != b"ACRJRNL1":
            raise Damaged("a journal of another version")
        if (magic, uid, number) != (b"ACRJRNL1", cube, generation):
            return
        if stored != xxh3_64(data[:40]):
            return
        self.good = True
        self.records, self.marked = [], 0
        identity = b"ACRMARK1" + struct.pack("<QQ", cube, generation)
        at, chain, sequence = JOURNAL_HEADER, self.chain, self.sequence
        while at + RECORD_HEADER <= len(data):
            length, kind, number, stored = struct.unpack_from("<IIQQ", data, at)
            body = data[at + RECORD_HEADER:at + RECORD_HEADER + length]
            end = (at + RECORD_HEADER + length + 7) // 8 * 8
            lead = struct.pack("<QIIQ", chain, kind, length, number)
            if (number != sequence + 1 or end > len(data) or kind not in (DELTA, MARK) or
                    stored != xxh3_64(body, xxh3_64(lead))):
                break
            self.records.append((kind, number, stored, body, end))
            if kind == MARK:
                covered = self.covered_by(data, at, identity)
                while (self.marked < len(self.records) and
                       self.records[self.marked][4] <= covered):
                    self.marked += 1
            at, chain, sequence = end, stored, number
        # A mark behind the end that vouches for more: what stood there is damaged.
        found = data.find(identity, at)
        while found >= 0:
            if self.covered_by(data, found - RECORD_HEADER, identity) > at:
                raise Damaged("the journal is damaged before its last mark")
            found = data.find(identity, found + 1)

    @staticmethod
    def covered_by(data, at, identity):
        """Up to where the mark whose record begins at `at` vouches; 0 when there is none."""
        body = data[at + RECORD_HEADER:at + RECORD_HEADER + MARK_BODY]
        if at % 8 != 0 or len(body) < MARK_BODY or not body.startswith(identity):
            return 0
        place, covered, stored = struct.unpack_from("<QQQ", body, 24)
        return covered if place == at and stored == xxh3_64(body[:40]) else 0


class Cube:
    """The state of a cube: definition, axes (lists of runs), boxes and frames by id."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.heap = (self.directory / "heap").read_bytes()
        size = (self.directory / "bricks").stat().st_size
        self.bricks = np.memmap(self.directory / "bricks", np.uint8, "r") if size else b""
        generations = sorted(int(path.suffix[1:]) for path in self.directory.glob("checkpoint.*")
                             if path.suffix[1:].isdigit())
        if not generations:
            raise Damaged("there is no checkpoint")
        self.damage = None  # why an older checkpoint had to serve
        self.lost_records = 0  # records behind the last mark that were not whole
        while True:
            try:
                self.load_checkpoint(generations[-1])
                break
            except Damaged as damage:
                self.damage = damage
                if len(generations) == 1:
                    raise
                generations.pop()
        self.replay(generations[-1])

    # ---- Structure ----

    def load_checkpoint(self, generation):
        data = (self.directory / f"checkpoint.{generation:06}").read_bytes()
        if data[:7] == b"ACRCKPT" and data[:8] != b"ACRCKPT1":
            raise Damaged("a checkpoint of another version")
        if len(data) < CHECKPOINT_HEADER + 8 or data[:8] != b"ACRCKPT1":
            raise Damaged("no checkpoint")
        if struct.unpack("<Q", data[-8:])[0] != xxh3_64(data[:-8]):
            raise Damaged("the checkpoint's checksum does not match")
        (self.uid, stored_generation, self.created_ns, self.generation, self.sequence, self.chain,
         definition, runs, boxes, frames) = struct.unpack_from("<QQqQQQQQQQ", data, 8)
        if stored_generation != generation:
            raise Damaged("the checkpoint is of another generation")
        f = Fields(data[CHECKPOINT_HEADER:-8])
        self.definition = Definition(Fields(f.take(definition)))
        self.axes = [[] for _ in range(self.rank())]
        for _ in range(runs):
            axis, first, length = f.get("QqQ")
            self.axes[axis].append((first, length))
        self.boxes = {box.id: box for box in (Box(f.take(BOX_ROW)) for _ in range(boxes))}
        self.frames = {row.id: row for row in (FrameRow(f.take(FRAME_ROW)) for _ in range(frames))}
        if not f.at_end() or list(self.frames) != list(range(1, frames + 1)):
            raise Damaged("the checkpoint's tables do not fill it")

    def replay(self, generation):
        path = self.directory / f"journal.{generation:06}"
        if not path.exists():
            raise Damaged("the checkpoint has no journal")
        first = generation
        while path.exists():
            journal = Journal(path.read_bytes(), self.uid, generation)
            fits = journal.good and (journal.sequence, journal.chain) == (self.sequence, self.chain)
            if not fits and generation == first:
                raise Damaged("the checkpoint's journal is damaged")
            if journal.good and journal.sequence > self.sequence:
                raise Damaged("the journal has lost records that had been on disk")
            if not fits or self.lost_records:
                return
            for i, (kind, number, chain, body, _) in enumerate(journal.records):
                if kind == DELTA and not self.apply(body, i < journal.marked):
                    self.lost_records = len(journal.records) - i
                    break
                self.sequence, self.chain = number, chain
            generation += 1
            path = self.directory / f"journal.{generation:06}"

    def apply(self, body, marked):
        """Applies a delta; False, and no change, when it is unmarked and its data are not there."""
        f = Fields(body)
        before = (self.definition, self.axes, self.boxes, self.frames)
        if f.get("B"):
            self.definition = Definition(f)
        self.axes = ([list(runs) for runs in self.axes] if self.rank() == len(self.axes)
                     else [[] for _ in range(self.rank())])
        self.boxes, self.frames = dict(self.boxes), dict(self.frames)
        for _ in range(f.get("I")):
            axis, erase, at, first, length = f.get("BBQqQ")
            runs = self.axes[axis]
            head, tail = cut(runs, at)
            if erase:
                if sum(n for _, n in tail) < length:
                    raise Damaged("an edit beyond an axis")
                self.axes[axis] = head + cut(tail, length)[1]
            else:
                self.axes[axis] = head + [(first, length)] + tail
        for _ in range(f.get("I")):
            box = Box(f.take(BOX_ROW))
            self.boxes[box.id] = box
        for _ in range(f.get("I")):
            self.boxes.pop(f.get("Q"), None)
        rows = [FrameRow(f.take(FRAME_ROW)) for _ in range(f.get("I"))]
        for row in rows:
            if row.id > len(self.frames) + 1:
                raise Damaged("a frame out of order")
            self.frames[row.id] = row
        if not f.at_end():
            raise Damaged("a record is longer than its delta")
        if not marked:
            try:
                for row in rows:
                    if row.state == LIVE:
                        old = before[-1].get(row.id)
                        self.check_frame(row, old is None or old.elements() != row.elements())
            except Damaged:
                self.definition, self.axes, self.boxes, self.frames = before
                return False
        self.generation += 1
        return True

    def rank(self):
        return self.definition.rank if self.definition.defined else 0

    # ---- Data ----

    def heap_text(self, ref):
        offset, length, stored = ref
        if length == 0:
            return b""
        text = self.heap[offset:offset + length]
        if len(text) != length or xxh3_64(text) != stored:
            raise Damaged("the heap is damaged")
        return text

    def gather(self, axes):
        """The elements at a product of coordinates (runs an axis) as words, by [axis 0, 1, …]."""
        d = self.definition
        where = [np.concatenate([np.arange(first, first + n) for first, n in runs])
                 for runs in axes]
        out = np.full([len(w) for w in where], d.pad_word())
        for box in self.boxes.values():
            inside = [np.nonzero((w >= low) & (w < low + n))[0]
                      for w, low, n in zip(where, box.origin, box.extent)]
            if any(len(i) == 0 for i in inside):
                continue
            elements, written = box.elements(self.bricks, d.coding)
            layer = where[box.layer_axis][inside[box.layer_axis]] - box.origin[box.layer_axis]
            inside[box.layer_axis] = inside[box.layer_axis][written[layer]]
            places = [w[i] - low for w, i, low in zip(where, inside, box.origin)]
            out[np.ix_(*inside)] = d.coding.decode(elements[np.ix_(*places)])
        return out

    def array(self):
        """The whole cube in numpy's order (axis 0 of the cube is the last index)."""
        if any(not runs for runs in self.axes) or not self.axes:
            raise Damaged("the cube is still undefined")
        return self.gather(self.axes).transpose().copy().view("<" + self.definition.coding.type)

    def frame_words(self, row):
        """A frame's elements in the order of its file."""
        axes = [[(first, n)] for first, n in zip(row.first, row.extent)]
        if row.runs[1]:
            f = Fields(self.heap_text(row.runs))
            axes = [[f.get("qQ") for _ in range(f.get("I"))] for _ in range(row.rank)]
        words = self.gather(axes)
        if list(words.shape) != list(row.extent):
            raise Damaged("a frame's runs contradict its extents")
        return words.ravel(order="C" if row.fortran_order else "F")

    def check_frame(self, row, with_elements=True):
        """All that a live frame's row refers to."""
        if xxh3_64(self.heap_text(row.name)) != row.name_hash:
            raise Damaged("a frame's name is not that of its hash")
        self.heap_text(row.prefix)
        self.heap_text(row.suffix)
        if not with_elements:
            return
        stream = self.definition.coding.encode(self.frame_words(row)).tobytes()
        sums = struct.pack(f"<{-(-len(stream) // SUM_CHUNK)}Q", *(
            xxh3_64(stream[at:at + SUM_CHUNK]) for at in range(0, len(stream), SUM_CHUNK)))
        single = len(sums) == 8
        if (self.heap_text(row.sums) != (b"" if single else sums) or
                row.first_sum != (struct.unpack("<Q", sums)[0] if single else xxh3_64(sums))):
            raise Damaged("a frame's elements are not those of its checksums")

    def live_frames(self):
        """{name: row}, names as bytes."""
        return {self.heap_text(row.name): row for row in self.frames.values() if row.state == LIVE}

    def frame_file(self, row):
        """The bytes of the file that the frame came as."""
        data = row.coding.encode(self.frame_words(row)).tobytes()
        return self.heap_text(row.prefix) + data + self.heap_text(row.suffix)


def cut(runs, at):
    """A list of runs before and from a logical index."""
    head = []
    for i, (first, length) in enumerate(runs):
        if at < length:
            front = [(first, at)] if at else []
            return head + front, [(first + at, length - at)] + runs[i + 1:]
        head.append((first, length))
        at -= length
    if at:
        raise Damaged("an edit beyond an axis")
    return head, []


def open_cube(store, name):
    store = pathlib.Path(store)
    note = (store / "accretefs.store").read_bytes()
    if note != NOTE:
        raise Damaged(f"a store of another version: {note!r}")
    return Cube(store / name)


def cube_names(store):
    return sorted(path.name for path in pathlib.Path(store).iterdir()
                  if not path.name.startswith(".") and path.is_dir() and
                  (any(path.glob("checkpoint.*")) or any(path.glob("journal.*"))))


def main(arguments):
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        np.save(arguments[2], open_cube(arguments[0], arguments[1]).array())
    except (Damaged, OSError) as error:
        print(f"read_store.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
