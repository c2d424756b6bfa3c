"""Stores made by core, read back by read_store.py, which knows core/FORMAT.md only."""
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import unittest

import numpy as np

import read_store

HERE = pathlib.Path(__file__).resolve().parent
MAKE_STORE = os.environ.get("MAKE_STORE", "make_store")
SEED = int(os.environ.get("ACCRETE_SEED", "20260101"))


def make_store(directory, seed):
    subprocess.run([MAKE_STORE, directory / "store", directory / "expected", str(seed),
                    directory / "live"], check=True)


def files_below(directory):
    return {path.relative_to(directory): path.read_bytes()
            for path in directory.rglob("*") if path.is_file()}


class ReadStore(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory(prefix="accrete-read-store-")
        cls.directory = pathlib.Path(cls.temporary.name)
        make_store(cls.directory / "0", SEED)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def check_array(self, array, expected):
        want = np.load(expected)
        self.assertEqual(array.dtype, want.dtype)
        self.assertEqual(array.shape, want.shape)
        self.assertEqual(array.tobytes(), want.tobytes())

    def check_cube(self, cube, expected):
        """`expected`: cube.npy, mask.npy, and the frames' files in frames/ and removed/."""
        self.check_array(cube.array(), expected / "cube.npy")
        self.check_array(cube.mask(), expected / "mask.npy")
        for state, directory in ((read_store.LIVE, "frames"), (read_store.REMOVED, "removed")):
            files = {os.fsencode(path.name): path for path in (expected / directory).iterdir()}
            frames = cube.frames_in(state)
            self.assertEqual(sorted(frames), sorted(files))
            for name, row in frames.items():
                cube.check_frame(row)
                self.assertEqual(cube.frame_file(row), files[name].read_bytes(), name)
                self.check_values(cube, row)
        self.check_states(cube)

    def check_values(self, cube, row):
        """The frame's elements in the cube, but poked ones, are what its file's stand for."""
        file, header = cube.frame_file(row), cube.frame_headers(row)[0]
        begin = file.index(header) + len(header) if header else row.data_offset
        data = file[begin:begin + row.data_bytes]
        elements = row.coding.decode(np.frombuffer(data, row.coding.words)).view(row.coding.native)
        type, pad = cube.definition.coding.native, cube.definition.pad_word()
        values = read_store.file_values(row, elements, type)
        want = read_store.nearest(values, type, pad.view(type))
        if row.scaling and row.scaling.blank_of(elements.dtype) is not None:
            blank = elements == row.scaling.blank
            if row.scaling.is_plain(type):
                want[blank] = pad.view(type)
            else:
                self.assertTrue(np.isnan(values[blank]).all())
        have = cube.frame_words(row).view(type)
        came = ~cube.frame_poked(row)
        have, want = have[came], want[came]
        nans = np.isnan(want)
        self.assertTrue(np.isnan(have[nans]).all())
        self.assertEqual(have[~nans].tobytes(), want[~nans].tobytes())

    def check_states(self, cube):
        """What the frames' states mean for coordinates and slots."""
        live = [cube.frame_coordinates(row) for row in cube.frames_in(read_store.LIVE).values()]
        removed = [cube.frame_coordinates(row)
                   for row in cube.frames_in(read_store.REMOVED).values()]
        for a, axis in enumerate(cube.axes):
            shown, held = ({c for frame in frames for c in frame[a].tolist()}
                           for frames in (live, live + removed))
            self.assertEqual(len(axis.coordinates()), len(held))
            self.assertEqual(set(axis.coordinates().tolist()), held)
            self.assertEqual(set(axis.indexes().tolist()), shown)
        for patch in cube.patches.values():
            for axis, first, n in zip(cube.axes, patch.origin, patch.extent):
                self.assertTrue(np.isin(np.arange(first, first + n), axis.coordinates()).any())
        # Each slot is one frame's alone, so the frames' elements are all that such slots have.
        for state, frames in (("written", live), ("kept", removed)):
            self.assertEqual(sum(np.prod([len(w) for w in where]) for where in frames),
                             sum(box.layers(getattr(box, state)).sum() *
                                 np.prod(np.delete(box.extent, box.layer_axis))
                                 for box in cube.boxes.values()))

    def check_zeros(self, cube):
        """What the next frames may get, after an end in order."""
        unused = np.ones(len(cube.bricks), bool)
        for box in [*cube.boxes.values(), *cube.patches.values()]:
            unused[box.offset:box.end] = False
            free = box.layers(~(box.written | box.kept | box.spent))
            layers = np.moveaxis(box.elements(cube.bricks, cube.definition.coding),
                                 box.layer_axis, 0)
            self.assertFalse(layers[free].any())
        if len(unused):
            self.assertFalse(cube.bricks[unused].any())

    def check_store(self, store, expected):
        cubes = sorted(path.name for path in expected.iterdir())
        self.assertEqual(read_store.cube_names(store), sorted(cubes + ["empty"]))
        for name in cubes:
            with self.subTest(store=store.name, cube=name):
                cube = read_store.open_cube(store, name)
                self.assertEqual(cube.lost_records, 0)
                self.check_cube(cube, expected / name)
                self.assertEqual((store / name / "clean").exists(), store.name == "store")
                if store.name == "store":
                    self.check_zeros(cube)
        replaced = read_store.open_cube(store, "replaced")
        self.assertEqual(replaced.stored_again, int(store.name == "live"))
        empty = read_store.open_cube(store, "empty")
        self.assertFalse(empty.definition.defined)
        self.assertEqual(empty.definition.letters, b"xyf")
        settings = empty.definition.settings
        self.assertEqual((settings["letters"], settings["pad"], settings["hdu"]),
                         (b"xyf", b"7", b"SCI,2"))
        self.assertTrue(empty.definition.drops_residue)
        self.assertEqual(empty.definition.rounding, 1)
        self.assertEqual((empty.definition.header_first, empty.definition.header_last), ([], []))
        kept = read_store.open_cube(store, "kept").definition
        self.assertEqual(kept.settings["header"], b"OBJECT  = 'kept'".ljust(80))
        self.assertEqual((kept.header_first, kept.header_last, kept.header_extent),
                         ([0, 0, 0], [4, 3, 0], [5, 4, 1]))

    def copy_of(self, store, name):
        target = pathlib.Path(tempfile.mkdtemp(dir=self.directory))
        shutil.copy(store / "accretefs.store", target)
        shutil.copytree(store / name, target / name)
        return target

    def test_all_types_and_ranks_after_a_clean_close(self):
        self.check_store(self.directory / "0" / "store", self.directory / "0" / "expected")
        for turn in range(1, 3):
            directory = self.directory / str(turn)
            with self.subTest(seed=SEED + turn):
                make_store(directory, SEED + turn)
                self.check_store(directory / "store", directory / "expected")
            shutil.rmtree(directory)

    def test_a_store_copied_while_it_was_open(self):
        self.check_store(self.directory / "0" / "live", self.directory / "0" / "expected")

    def test_golden_stores_of_each_version_read_as_ever(self):
        archives = sorted((HERE / "golden").glob("version-*.tar.xz"))
        self.assertTrue(archives)
        for archive in archives:
            with self.subTest(archive=archive.name), tempfile.TemporaryDirectory() as directory:
                root = pathlib.Path(directory)
                with tarfile.open(archive) as tar:
                    tar.extractall(root)
                for name in ("store", "live"):
                    self.check_store(root / name, root / "expected")
                    # The program itself opens (and recovers) them too.
                    subprocess.run([MAKE_STORE, root / name, root / "read"], check=True)
                    self.assertEqual(files_below(root / "read"), files_below(root / "expected"))

    def test_the_command_line(self):
        out = self.directory / "out.npy"
        store = self.directory / "0" / "store"
        run = [sys.executable, HERE / "read_store.py", store]
        subprocess.run([*run, "large", out], check=True)
        self.assertEqual(np.load(out).shape, (4, 600, 700))
        failed = subprocess.run([*run, "empty", out], capture_output=True, text=True, check=False)
        self.assertEqual(failed.returncode, 1)
        self.assertIn("undefined", failed.stderr)

    def test_a_torn_last_record_costs_the_last_frame_only(self):
        # "many" holds a checkpoint and records behind it, which no mark vouches for in "live".
        want = np.load(self.directory / "0" / "expected" / "many" / "cube.npy")
        live = self.directory / "0" / "live"
        whole = max((live / "many").glob("journal.*")).stat().st_size
        for cut in (1, 8, 100, 700):
            store = self.copy_of(live, "many")
            journal = max((store / "many").glob("journal.*"))
            os.truncate(journal, whole - cut)
            array = read_store.open_cube(store, "many").array()
            self.assertEqual(array.tobytes(), want[:-1].tobytes(), cut)

    def test_a_record_whose_elements_did_not_reach_the_disk_ends_the_history(self):
        want = np.load(self.directory / "0" / "expected" / "many" / "cube.npy")
        store = self.copy_of(self.directory / "0" / "live", "many")
        cube = read_store.open_cube(store, "many")
        row = cube.frames[len(cube.frames) - 2]
        box = next(b for b in cube.boxes.values()
                   if b.origin[2] <= row.first[2] < b.origin[2] + b.extent[2])
        place = box.offset + (row.first[2] - box.origin[2]) * box.pitch
        with open(store / "many" / "bricks", "r+b") as bricks:
            bricks.seek(place)
            byte = bricks.read(1)[0]
            bricks.seek(place)
            bricks.write(bytes([byte ^ 1]))
        cube = read_store.open_cube(store, "many")
        self.assertEqual(cube.lost_records, 3)
        self.assertEqual(cube.array().tobytes(), want[:-3].tobytes())

    def test_a_record_whose_original_did_not_reach_the_disk_ends_the_history(self):
        want = np.load(self.directory / "0" / "expected" / "kept" / "cube.npy")
        store = self.copy_of(self.directory / "0" / "live", "kept")
        row = read_store.open_cube(store, "kept").frames[2]
        offset, length, _ = row.original
        self.assertEqual(length, row.full_bytes)
        with open(store / "kept" / "heap", "r+b") as heap:
            heap.seek(offset)
            heap.write(bytes(length))
        cube = read_store.open_cube(store, "kept")
        self.assertEqual(cube.lost_records, 2)
        self.assertEqual(cube.array().tobytes(), want[:1].tobytes())

    def test_a_replacement_whose_elements_did_not_reach_the_disk_is_none(self):
        store = self.copy_of(self.directory / "0" / "live", "replaced")
        journal = store / "replaced" / "journal.000001"
        data = journal.read_bytes()
        uid, generation = struct.unpack_from("<QQ", data, 8)
        body = read_store.Journal(data, uid, generation).records[-2][3]
        offset, length, _ = struct.unpack("<QQQ", body[-24:])
        self.assertEqual(length, 2 * 37 * 29 * 4)
        with open(store / "replaced" / "heap", "r+b") as heap:
            heap.seek(offset)
            heap.write(bytes(length))
        cube = read_store.open_cube(store, "replaced")
        self.assertEqual((cube.lost_records, cube.stored_again), (2, 0))
        journal.write_bytes(data[:data.rindex(body) - read_store.RECORD_HEADER])
        before = read_store.open_cube(store, "replaced")
        self.assertEqual(cube.array().tobytes(), before.array().tobytes())

    def test_what_stores_hold_of_pokes(self):
        """So that the other tests look at all that there can be."""
        cube = read_store.open_cube(self.directory / "0" / "store", "poked")
        row = cube.frames_in(read_store.REMOVED)[b"d"]
        self.assertTrue(cube.frame_poked(row).any())
        self.assertEqual(cube.heap_text(cube.frames_in(read_store.LIVE)[b"e"].cards),
                         b"OBJECT  = 'M 42'".ljust(80))
        def meets(patch, box):
            return all(max(o, p) < min(o + n, p + m) for o, n, p, m in zip(
                box.origin, box.extent, patch.origin, patch.extent))
        for state in ("written", "kept"):
            self.assertTrue(any(meets(patch, box) for patch in cube.patches.values()
                                for box in cube.boxes.values() if getattr(box, state)))
        many = read_store.open_cube(self.directory / "0" / "store", "many")
        many.load_checkpoint(2)
        self.assertTrue(many.patches)
        self.assertTrue(any(box.poked for box in many.boxes.values()))
        cubes = [read_store.open_cube(self.directory / "0" / "store", name)
                 for name in read_store.cube_names(self.directory / "0" / "store")]
        self.assertGreater(sum(len(cube.patches) > 0 for cube in cubes), 10)
        self.assertGreater(sum(cube.definition.poked_ns > 0 for cube in cubes), 20)

    def test_a_brick_file_that_is_too_short_is_damage(self):
        store = self.copy_of(self.directory / "0" / "live", "replaced")
        os.truncate(store / "replaced" / "bricks", 4096)
        with self.assertRaisesRegex(read_store.Damaged, "shorter"):
            read_store.open_cube(store, "replaced")
        failed = subprocess.run([MAKE_STORE, store, store / "read"], capture_output=True, text=True,
                                check=False)
        self.assertEqual(failed.returncode, 1)
        self.assertIn("shorter", failed.stderr)

    def test_damage_before_a_mark_is_told(self):
        store = self.copy_of(self.directory / "0" / "store", "large")
        journal = store / "large" / "journal.000001"
        data = bytearray(journal.read_bytes())
        for at in (50, 100, 1000, 2000):
            damaged = bytearray(data)
            damaged[at] ^= 0x10
            journal.write_bytes(damaged)
            with self.assertRaisesRegex(read_store.Damaged, "before its last mark"):
                read_store.open_cube(store, "large")

    def test_where_the_newest_checkpoint_is_damaged_the_older_one_leads_as_far(self):
        want = np.load(self.directory / "0" / "expected" / "many" / "cube.npy")
        store = self.copy_of(self.directory / "0" / "store", "many")
        older, newest = sorted((store / "many").glob("checkpoint.*"))
        data = newest.read_bytes()
        for damaged, sentence in ((data[:200] + b"?" + data[201:], "checksum"),
                                  (data[:7] + b"2" + data[8:], "another version"),
                                  (data[:100], "no checkpoint")):
            newest.write_bytes(damaged)
            cube = read_store.open_cube(store, "many")
            self.assertIn(sentence, str(cube.damage))
            self.assertEqual(cube.array().tobytes(), want.tobytes())
        older.unlink()
        with self.assertRaisesRegex(read_store.Damaged, "no checkpoint"):
            read_store.open_cube(store, "many")

    def test_a_store_of_another_version_is_refused(self):
        store = self.copy_of(self.directory / "0" / "store", "empty")
        (store / "accretefs.store").write_bytes(b"accretefs store, version 2\n")
        with self.assertRaisesRegex(read_store.Damaged, "another version"):
            read_store.open_cube(store, "empty")

    def test_the_example_of_the_format_paper_is_a_real_journal(self):
        text = (HERE.parent / "core" / "FORMAT.md").read_text(encoding="utf-8")
        example = text[text.index("## Example"):]
        data = bytearray(int(re.search(r"file is 0x([0-9a-f]+) bytes", example)[1], 16))
        for place, line in re.findall(r"^    ([0-9a-f]{4})  ((?:[0-9a-f]{2} )*[0-9a-f]{2})(?=  |$)",
                                      example, re.MULTILINE):
            listed, at = bytes.fromhex(line), int(place, 16)
            data[at:at + len(listed)] = listed
        uid, generation = struct.unpack_from("<QQ", data, 8)
        journal = read_store.Journal(bytes(data), uid, generation)
        self.assertTrue(journal.good)
        kinds = [record[0] for record in journal.records]
        self.assertEqual(kinds, [read_store.DELTA, read_store.MARK])
        self.assertEqual((journal.marked, journal.records[-1][4]), (1, len(data)))
        store = self.copy_of(self.directory / "0" / "store", "empty")
        cube = read_store.open_cube(store, "empty")
        cube.apply(journal.records[0][3], True)
        self.assertEqual([axis.pieces for axis in cube.axes], [[(0, 3, False)], [(0, 1, False)]])
        self.assertEqual((cube.definition.letters, cube.definition.formats), (b"xy", b"npy"))
        self.assertEqual(cube.boxes[1].extent, cube.frames[1].extent)
        self.assertEqual(cube.frames[1].file_shape, (3,))
        self.assertIsNone(cube.frames[1].scaling)
        self.assertEqual(len(data) % 8, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
