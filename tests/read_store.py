"""Reads a store at rest with numpy alone, after core/FORMAT.md: proof that others can.

    read_store.py STORE CUBE OUT.npy     writes the whole cube, pad included

Reads only; the store may be open elsewhere or have been cut off by a crash. Every checksum that the
format has is checked, but for the digests of whole files (XXH3-128) and of what was poked.
"""
import dataclasses
import math
import pathlib
import struct
import sys

import numpy as np

from xxh3 import xxh3_64

NOTE = b"accretefs store, version 1\n"
DTYPES = (None, "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
JOURNAL_HEADER, RECORD_HEADER, MARK_BODY, CHECKPOINT_HEADER = 48, 24, 48, 128
FRAME_ROW, BOX_ROW = 528, 264
DELTA, MARK = 1, 2
LIVE, REMOVED, GONE = 1, 2, 3
INSERT, HIDE, SHOW, DROP, MOVE = 1, 2, 3, 4, 5
DORMANT_RUN, USED_RUN = 1, 2
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
    def native(self):
        return np.dtype("<" + self.type)

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


@np.errstate(invalid="ignore")
def nearest(values, to, nan=0):
    """Values as the nearest ones of another type; `nan` is what integers have for NaN."""
    source = values.dtype
    if to == source:
        return values
    if to.kind == "f":
        if source.kind == "f" and to.itemsize < source.itemsize:
            most = np.finfo(to).max
            values = np.where(np.isfinite(values), values.clip(-most, most), values)
        return values.astype(to)
    low, high = np.iinfo(to).min, np.iinfo(to).max
    if source.kind != "f":
        bounds = np.iinfo(source)
        return values.clip(source.type(max(low, bounds.min)),
                           source.type(min(high, bounds.max))).astype(to)
    whole = np.rint(values)
    too_small, too_large = whole < low, whole >= source.type(2) ** int(high).bit_length()
    inside = ~(too_small | too_large | np.isnan(whole))
    out = np.full(values.shape, nan, to)
    out[inside] = whole[inside].astype(to)
    out[too_small], out[too_large] = low, high
    return out


@dataclasses.dataclass(frozen=True)
class Scaling:
    """value = zero + scale × element."""
    physical: str
    scale: float
    zero: float
    blank: int = None

    def values(self, elements, cube):
        """What elements stand for in a cube of that type; NaN for the blank ones, but where they
        stay integers."""
        blank = self.blank_of(elements.dtype)
        if self.is_plain(cube):
            return elements
        with np.errstate(all="ignore"):
            physical = np.dtype("<" + self.physical)
            values = nearest(elements, physical)
            if self.scale != 1:
                values = values * physical.type(self.scale)
            if self.zero != 0:
                values = values + physical.type(self.zero)
        if blank is None:
            return values
        return np.where(elements == blank, physical.type(np.nan), values)

    def elements(self, values, to):
        """Elements of type `to` for values of any type."""
        if self.is_plain(values.dtype):
            return nearest(values, to, self.blank_of(to) or 0)
        with np.errstate(all="ignore"):
            factor = np.float64(1) / np.float64(self.scale)
            values = nearest(values, np.dtype("<" + self.physical))
            quotients = (values.astype("<f8") - self.zero) * factor
            return nearest(quotients.astype(values.dtype), to, self.blank_of(to) or 0)

    def is_plain(self, cube):
        return self.scale == 1 and self.zero == 0 and cube.kind in "iu"

    def blank_of(self, type):
        """The element that stands for no value; None where the type has no such element."""
        bounds = np.iinfo(type) if type.kind != "f" else None
        has_it = bounds and self.blank is not None and bounds.min <= self.blank <= bounds.max
        return self.blank if has_it else None


class Definition:
    def __init__(self, f):
        (flags, number, coding, self.rank, self.ragged, self.same_name, self.rounding,
         header_axes) = f.get("8B")
        self.defined = bool(flags & 1)
        self.drops_residue = bool(flags & 2)
        self.sync_each_close = bool(flags & 4)
        self.coding = Coding.make(number, coding)
        self.pad = f.take(8)
        self.poked_ns = f.get("q")
        self.letters, self.formats = f.text(), f.text()
        self.settings = {name: f.text() for name in (
            "dtype", "letters", "pad", "grow", "formats", "order", "header", "hdu")}
        self.header_first, self.header_last = (
            [f.get("q") for _ in range(header_axes)] for _ in range(2))
        self.header_extent = [f.get("Q") for _ in range(header_axes)]
        if not (int(self.defined) <= self.rank == len(self.letters) <= 8):
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
        (self.slot_layers, self.written, self.kept, self.spent, self.offset, self.pitch,
         self.poked) = f.get("7Q")
        if 0 in self.extent + self.brick + (self.slot_layers,):
            raise Damaged("an empty box")
        if self.written & self.kept or (self.written | self.kept) & self.spent:
            raise Damaged("a slot in two states")
        self.grid = tuple(-(-e // b) for e, b in zip(self.extent, self.brick))
        length = self.pitch * self.brick[self.layer_axis] * math.prod(self.grid)
        self.end = self.offset + (length + 4095) // 4096 * 4096

    def check_within(self, bricks):
        if self.end > len(bricks):
            raise Damaged("the brick file is shorter than its boxes say")

    def layers(self, slots):
        """Which of its layers lie in slots of that mask."""
        numbers = np.arange(self.extent[self.layer_axis]) // self.slot_layers
        return np.array([slots >> int(slot) & 1 for slot in numbers], bool)

    def cells(self, bricks, coding):
        """Its bricks, in the coding at rest: an array indexed by axis 0, 1, … of the grid, then of a
        brick."""
        self.check_within(bricks)
        axes = [a for a in range(self.rank) if a != self.layer_axis]
        inner, stride = [0] * self.rank, coding.size
        for a in axes:
            inner[a], stride = stride, stride * self.brick[a]
        inner[self.layer_axis] = self.pitch
        outer, stride = [0] * self.rank, self.pitch * self.brick[self.layer_axis]
        for a in axes + [self.layer_axis]:
            outer[a], stride = stride, stride * self.grid[a]
        return np.ndarray(self.grid + self.brick, coding.words, bricks, self.offset, outer + inner)

    def places(self, indexes):
        """Where in cells() the product of its indexes on each axis lies."""
        product = np.ix_(*indexes)
        return (tuple(i // b for i, b in zip(product, self.brick)) +
                tuple(i % b for i, b in zip(product, self.brick)))

    def elements(self, bricks, coding):
        """The box as an array indexed by axis 0, 1, …, in the coding at rest."""
        return self.cells(bricks, coding)[self.places([np.arange(e) for e in self.extent])]


class Patch(Box):
    """A box of one slot that holds what was written where no frame gave an element."""

    def __init__(self, data):
        super().__init__(data)
        masks = self.written, self.kept, self.spent
        if self.slot_layers != self.extent[self.layer_axis] or masks != (1, 0, 0):
            raise Damaged("a patch of more than one written slot")


class FrameRow:
    def __init__(self, data):
        f = Fields(data)
        self.id, self.state, self.format, number, flags, self.grow_axis, self.rank, file_rank = (
            f.get("QBBBBBBB"))
        door = f.get("B")
        self.side, self.names_axis = door & 3, bool(door & 4)
        if not (1 <= self.state <= 3 and self.grow_axis < self.rank <= 8):
            raise Damaged("a frame's row")
        self.coding = Coding.make(number, flags)
        self.fortran_order = bool(flags & 4)
        self.packed = bool(flags & 8)
        self.name = f.get("QQQ")
        self.name_hash = f.get("Q")
        self.prefix, self.suffix, self.runs, self.sums = (f.get("QQQ") for _ in range(4))
        self.first_sum = f.get("Q")
        self.digest = f.get("QQ")
        self.data_offset, self.data_bytes, self.least_bytes, self.full_bytes = f.get("QQQQ")
        self.mtime_ns, self.arrival_ns = f.get("qq")
        self.mode, self.uid, self.gid = f.get("III")
        f.take(4)
        self.at = f.get("Q")
        self.first = f.get("8q")[:self.rank]
        self.extent = f.get("8Q")[:self.rank]
        self.file_shape = f.get("8Q")[:file_rank]
        self.original = f.get("QQQ")
        scale, zero, blank, physical, has_blank = f.get("ddqBB")
        f.take(6)
        self.scaling = None
        if physical:
            self.scaling = Scaling(Coding.make(physical, 0).type, scale, zero,
                                   blank if has_blank else None)
        self.header_offset, self.primary_bytes = f.get("QQ")
        self.cards = f.get("QQQ")

    def is_news(self, old):
        """Does it come with elements that `old`, its row before, did not have?"""
        def elements(row):
            return row.first_sum, row.sums, row.runs, row.first, row.extent
        return self.state == LIVE and (old is None or old.state == GONE or
                                       elements(old) != elements(self))


class Redo:
    """The new elements of a view, which may not have been stored yet."""

    def __init__(self, f):
        order = f.get(f"{f.get('B')}B")
        self.order = order if isinstance(order, tuple) else (order,)
        self.where = []
        for _ in range(f.get("B")):
            runs = [f.get("qQ") for _ in range(f.get("I"))]
            self.where.append(concatenated(np.arange(first, first + n) for first, n in runs))
        self.text = f.get("QQQ")

    def words(self, text, coding):
        """Its elements by [axis 0, 1, …], in the coding at rest; `text`: what it refers to."""
        others = set(range(len(self.where))) - set(self.order)
        axes = [*reversed(self.order), *others]
        extents = [len(self.where[a]) for a in axes]
        if (len(axes) != len(self.where) or any(len(self.where[a]) != 1 for a in others) or
                len(text) != math.prod(extents) * coding.size):
            raise Damaged("the elements of a replacement are not those of its view")
        return np.frombuffer(text, coding.words).reshape(extents).transpose(np.argsort(axes))


class Journal:
    """One journal: its whole, chained records, and how many of them a mark vouches for."""

    def __init__(self, data, cube, generation):
        self.good = False
        identity = b"ACRMARK1" + struct.pack("<QQ", cube, generation)
        self.has_mark = identity in data
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


class Axis:
    """The coordinates of an axis, in order, as pieces (first, length, dormant)."""

    def __init__(self, pieces=()):
        self.pieces = []
        for first, length, dormant in pieces:
            if length == 0:
                raise Damaged("an empty run")
            if self.pieces:
                before, count, state = self.pieces[-1]
                if before + count == first and state == dormant:
                    self.pieces[-1] = (before, count + length, state)
                    continue
            self.pieces.append((first, length, dormant))

    def coordinates(self):
        return concatenated(np.arange(first, first + n) for first, n, _ in self.pieces)

    def indexes(self):
        """The coordinates that have an index."""
        return concatenated(np.arange(first, first + n) for first, n, dormant in self.pieces
                            if not dormant)

    def cut(self, position):
        """Pieces before and from a position."""
        head, tail = [], []
        for first, length, dormant in self.pieces:
            left = min(max(position, 0), length)
            if left > 0:
                head.append((first, left, dormant))
            if left < length:
                tail.append((first + left, length - left, dormant))
            position -= length
        if position > 0:
            raise Damaged("a position beyond an axis")
        return head, tail

    def split(self, first, length):
        """The pieces, cut where a run of coordinates begins and ends; with each: is it within?"""
        found = []
        for start, n, dormant in self.pieces:
            inner = [at for at in (first, first + length) if start < at < start + n]
            ends = [start, *inner, start + n]
            found += [((low, high - low, dormant), first <= low < first + length)
                      for low, high in zip(ends, ends[1:])]
        return found

    def edited(self, kind, at, first, length):
        parts = self.split(first, length)
        inside = [piece for piece, is_in in parts if is_in]
        others = [piece for piece, is_in in parts if not is_in]
        if sum(n for _, n, _ in inside) != (0 if kind == INSERT else length):
            raise Damaged("an edit of coordinates that an axis has not, or has already")
        if kind == DROP:
            return Axis(others)
        if kind in (HIDE, SHOW):
            if any(dormant == (kind == HIDE) for _, _, dormant in inside):
                raise Damaged("a coordinate is hidden or shown twice")
            return Axis((start, n, dormant != is_in) for (start, n, dormant), is_in in parts)
        if kind == INSERT:
            inside = [(first, length, False)]
        elif kind != MOVE:
            raise Damaged(f"there is no edit {kind}")
        head, tail = Axis(others).cut(at)
        return Axis(head + inside + tail)

    def arranged(self, pieces):
        other = Axis(pieces)
        if Axis(sorted(self.pieces)).pieces != Axis(sorted(other.pieces)).pieces:
            raise Damaged("an arrangement has other coordinates than its axis")
        return other


class Cube:
    """The state of a cube: definition, axes, boxes, patches and frames by id."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.heap = (self.directory / "heap").read_bytes()
        size = (self.directory / "bricks").stat().st_size
        # Private: what is stored again stays in memory.
        self.bricks = np.memmap(self.directory / "bricks", np.uint8, "c") if size else b""
        generations = sorted(int(path.suffix[1:]) for path in self.directory.glob("checkpoint.*")
                             if path.suffix[1:].isdigit())
        if not generations:
            raise Damaged("there is no checkpoint")
        self.damage = None  # why an older checkpoint had to serve
        self.lost_records = 0  # records behind the last mark that were not whole
        self.stored_again = 0  # replacements that no mark vouches for
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
         definition, runs, boxes, frames, patches) = struct.unpack_from("<QQq8Q", data, 8)
        if stored_generation != generation:
            raise Damaged("the checkpoint is of another generation")
        f = Fields(data[CHECKPOINT_HEADER:-8])
        self.definition = Definition(Fields(f.take(definition)))
        pieces = [[] for _ in range(self.rank())]
        for _ in range(runs):
            axis, flags, first, length = f.get("IIqQ")
            if axis >= len(pieces) or flags not in (0, DORMANT_RUN, USED_RUN):
                raise Damaged("a run of an unknown axis or kind")
            if flags != USED_RUN:
                pieces[axis].append((first, length, flags == DORMANT_RUN))
        self.axes = [Axis(each) for each in pieces]
        self.boxes = {box.id: box for box in (Box(f.take(BOX_ROW)) for _ in range(boxes))}
        self.patches = {box.id: box for box in (Patch(f.take(BOX_ROW)) for _ in range(patches))}
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
            if not journal.good and journal.has_mark:
                raise Damaged("the header of a journal is damaged")
            if journal.good and journal.sequence > self.sequence:
                raise Damaged("the journal has lost records that had been on disk")
            if not fits or self.lost_records:
                break
            for i, (kind, number, chain, body, _) in enumerate(journal.records):
                if kind == DELTA and not self.apply(body, i < journal.marked):
                    self.lost_records = len(journal.records) - i
                    break
                self.sequence, self.chain = number, chain
            generation += 1
            path = self.directory / f"journal.{generation:06}"
        for box in [*self.boxes.values(), *self.patches.values()]:
            box.check_within(self.bricks)

    def apply(self, body, marked):
        """Applies a delta; False, and no change, when it is unmarked and its data are not there."""
        f = Fields(body)
        before = (self.definition, self.axes, self.boxes, self.patches, self.frames)
        if f.get("B"):
            self.definition = Definition(f)
        self.axes = (list(self.axes) if self.rank() == len(self.axes)
                     else [Axis() for _ in range(self.rank())])
        self.boxes, self.patches, self.frames = (
            dict(each) for each in (self.boxes, self.patches, self.frames))
        for _ in range(f.get("I")):
            kind, axis, at, first, length = f.get("BBQqQ")
            self.check_axis(axis)
            self.axes[axis] = self.axes[axis].edited(kind, at, first, length)
        for _ in range(f.get("I")):
            axis, count = f.get("BI")
            self.check_axis(axis)
            pieces = [f.get("BqQ") for _ in range(count)]
            self.axes[axis] = self.axes[axis].arranged(
                [(first, length, bool(dormant)) for dormant, first, length in pieces])
        new_boxes = []
        for kind, boxes in ((Box, self.boxes), (Patch, self.patches)):
            rows = [kind(f.take(BOX_ROW)) for _ in range(f.get("I"))]
            for _ in range(f.get("I")):
                boxes.pop(f.get("Q"), None)
            boxes.update((box.id, box) for box in rows)
            new_boxes += rows
        rows = [FrameRow(f.take(FRAME_ROW)) for _ in range(f.get("I"))]
        for row in rows:
            if row.id > len(self.frames) + 1:
                raise Damaged("a frame out of order")
            self.frames[row.id] = row
        redo = Redo(f) if f.get("B") else None
        if not f.at_end():
            raise Damaged("a record is longer than its delta")
        if not marked:
            try:
                for box in new_boxes:
                    box.check_within(self.bricks)
                for row in rows:
                    if row.state != GONE:
                        self.check_frame(row, row.is_news(before[-1].get(row.id)))
                if redo:
                    self.store_again(redo)
            except Damaged:
                self.definition, self.axes, self.boxes, self.patches, self.frames = before
                return False
        self.generation += 1
        return True

    def check_axis(self, axis):
        if axis >= len(self.axes):
            raise Damaged("an edit of an unknown axis")

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

    def pieces(self, boxes, where, state):
        """Of a product of coordinates, what lies in slots of that state: pairs of places in the
        product and in the cells of a box."""
        for box in boxes.values():
            inside = [np.nonzero((w >= low) & (w < low + n))[0]
                      for w, low, n in zip(where, box.origin, box.extent)]
            layers = where[box.layer_axis][inside[box.layer_axis]] - box.origin[box.layer_axis]
            inside[box.layer_axis] = inside[box.layer_axis][box.layers(getattr(box, state))[layers]]
            if all(len(i) for i in inside):
                indexes = [w[i] - low for w, i, low in zip(where, inside, box.origin)]
                yield np.ix_(*inside), box.cells(self.bricks, self.definition.coding), \
                    box.places(indexes)

    def gather(self, where, *sources):
        """The elements at a product of coordinates as words, by [axis 0, 1, …], and a mask: which
        lie in slots of the sources, pairs of boxes and a state; the others are pad. A source hides
        those before it."""
        out = np.full([len(w) for w in where], self.definition.pad_word())
        held = np.zeros(out.shape, np.uint8)
        for boxes, state in sources:
            for inside, cells, places in self.pieces(boxes, where, state):
                out[inside] = self.definition.coding.decode(cells[places])
                held[inside] = 1
        return out, held

    def store_again(self, redo):
        """Puts what a replacement that no mark vouches for brings where its view has data."""
        words = redo.words(self.heap_text(redo.text), self.definition.coding)
        if len(redo.where) != self.rank():
            raise Damaged("a replacement of another rank")
        held = np.zeros(words.shape, bool)
        for boxes in (self.boxes, self.patches):  # what a box hides of a patch stays as it is
            for inside, cells, places in self.pieces(boxes, redo.where, "written"):
                cells[places] = np.where(held[inside], cells[places], words[inside])
                held[inside] = True
        self.stored_again += 1

    def whole(self):
        if not self.definition.defined:
            raise Damaged("the cube is still undefined")
        return self.gather([axis.indexes() for axis in self.axes],
                           (self.patches, "written"), (self.boxes, "written"))

    def array(self):
        """The whole cube in numpy's order (axis 0 of the cube is the last index)."""
        return self.whole()[0].transpose().copy().view("<" + self.definition.coding.type)

    def mask(self):
        """1 where a live frame gave the element or it was written in place, else 0."""
        return self.whole()[1].transpose().copy()

    def frame_coordinates(self, row):
        """Those of the frame's indexes, for each axis."""
        runs = [[(first, n)] for first, n in zip(row.first, row.extent)]
        if row.runs[1]:
            f = Fields(self.heap_text(row.runs))
            runs = [[f.get("qQ") for _ in range(f.get("I"))] for _ in range(row.rank)]
        where = [concatenated(np.arange(first, first + n) for first, n in each) for each in runs]
        if tuple(len(w) for w in where) != row.extent:
            raise Damaged("a frame's runs contradict its extents")
        return where

    def frame_words(self, row):
        """The elements of a live or removed frame in the order of its file."""
        words, held = self.of_frame(row, {LIVE: "written", REMOVED: "kept"}[row.state])
        if not held.all():
            raise Damaged("a frame lacks elements")
        return words

    def frame_poked(self, row):
        """Which of these lie in poked slots, as booleans."""
        return self.of_frame(row, "poked")[1].astype(bool)

    def of_frame(self, row, state):
        return [each.ravel(order="C" if row.fortran_order else "F")
                for each in self.gather(self.frame_coordinates(row), (self.boxes, state))]

    def check_frame(self, row, with_elements=True):
        """All that the row of a live or removed frame refers to."""
        if xxh3_64(self.heap_text(row.name)) != row.name_hash:
            raise Damaged("a frame's name is not that of its hash")
        for ref in (row.prefix, row.suffix, row.original, row.cards):
            self.heap_text(ref)
        if (row.data_offset != row.prefix[1] or
                row.data_bytes != math.prod(row.extent) * row.coding.size or
                math.prod(row.extent) != math.prod(row.file_shape)):
            raise Damaged("a frame's lengths contradict each other")
        if (not row.primary_bytes <= row.header_offset <= row.data_offset or
                row.original[1] and (row.header_offset != row.primary_bytes or row.suffix[1])):
            raise Damaged("a frame's headers are not where its row says")
        if not with_elements:
            return
        stream = self.definition.coding.encode(self.frame_words(row)).tobytes()
        chunks = [stream[at:at + SUM_CHUNK] for at in range(0, len(stream), SUM_CHUNK)]
        sums = self.heap_text(row.sums) or struct.pack("<Q", row.first_sum)
        if (len(sums) != 8 * len(chunks) or (len(chunks) > 1) != bool(row.sums[1]) or
                row.sums[1] and row.first_sum != xxh3_64(sums)):
            raise Damaged("a frame's checksums are not those of its chunks")
        poked = self.frame_poked(row)
        step = SUM_CHUNK // self.definition.coding.size
        for i, (chunk, stored) in enumerate(zip(chunks, struct.unpack(f"<{len(chunks)}Q", sums))):
            if not poked[i * step:(i + 1) * step].any() and xxh3_64(chunk) != stored:
                raise Damaged("a frame's elements are not those of its checksums")

    def frames_in(self, state):
        """{name: row}, names as bytes."""
        return {self.heap_text(row.name): row for row in self.frames.values()
                if row.state == state}

    def frame_headers(self, row):
        """The header of the image, and that of the primary HDU where it is another."""
        text = self.heap_text(row.prefix)
        return text[row.header_offset:], text[:row.primary_bytes]

    def frame_file(self, row):
        """The bytes of the frame's file."""
        if row.original[1]:
            return self.heap_text(row.original)
        words = self.frame_words(row)
        values = words.view(self.definition.coding.native)
        if row.scaling:
            values = row.scaling.elements(values, row.coding.native)
        else:
            values = nearest(values, row.coding.native)
        data = row.coding.encode(values.view(f"<u{row.coding.size}")).tobytes()
        return self.heap_text(row.prefix) + data + self.heap_text(row.suffix)


def file_values(row, elements, cube):
    """What elements of a frame's file stand for in a cube of that type."""
    return row.scaling.values(elements, cube) if row.scaling else elements


def concatenated(ranges):
    return np.concatenate([np.arange(0), *ranges])


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
