"""accretefs-check on stores that core made and that are then damaged; what is left is read back by
read_store.py."""
import hashlib
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import tarfile
import tempfile
import time
import unittest

import read_store

HERE = pathlib.Path(__file__).resolve().parent
MAKE_STORE = os.environ.get("MAKE_STORE", "make_store")
CHECK = os.environ.get("ACCRETEFS_CHECK", "accretefs-check")
SEED = int(os.environ.get("ACCRETE_SEED", "20260101"))
GOOD, DAMAGED, WRONG_USAGE, COULD_NOT_CHECK = range(4)


def check(store, *words, expect):
    result = subprocess.run([CHECK, store, *words], capture_output=True, text=True, check=False)
    if result.returncode != expect:
        raise AssertionError(f"{words} ended with {result.returncode} instead of {expect}:\n"
                             f"{result.stdout}{result.stderr}")
    return result.stdout


def hashes(directory):
    return {path.relative_to(directory): (hashlib.sha256(path.read_bytes()).hexdigest(),
                                          path.stat().st_mtime_ns)
            for path in sorted(directory.rglob("*")) if path.is_file()}


def flip(path, at, bit=0x10):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ bit]))


def frames_of(store, name):
    """{name: (state, bytes of its file, bytes of its elements)} of live and removed frames; a file
    that cannot be read is None."""
    cube = read_store.open_cube(store, name)
    found = {}
    for state in (read_store.LIVE, read_store.REMOVED):
        for frame, row in cube.frames_in(state).items():
            found[frame.decode()] = (state, cube.frame_file(row), cube.frame_words(row).tobytes())
    return found


class CheckStore(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory(prefix="accrete-check-")
        cls.directory = pathlib.Path(cls.temporary.name)
        cls.made = cls.directory / "made"
        cls.made.mkdir()
        subprocess.run([MAKE_STORE, cls.made / "store", cls.made / "expected", str(SEED),
                        cls.made / "live"], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def copy_of(self, name, state="store"):
        target = pathlib.Path(tempfile.mkdtemp(dir=self.directory))
        shutil.copy(self.made / state / "accretefs.store", target)
        shutil.copytree(self.made / state / name, target / name)
        return target

    def found(self, store, cube):
        """What is damaged: checking changes nothing."""
        before = hashes(store)
        said = check(store, expect=DAMAGED)
        self.assertEqual(hashes(store), before)
        self.assertIn(", damaged\n", said)
        lines = [line for line in said.splitlines() if ": damage: " in line]
        self.assertTrue(lines)
        for line in lines:
            self.assertTrue(line.startswith(f"cube {cube}: damage: "), line)
        return "\n".join(lines)

    def repair(self, store, cube, then=GOOD):
        """Repairs; afterwards core opens the cube as one that is not damaged."""
        said = check(store, "--repair", expect=DAMAGED)
        left = check(store, expect=then)
        self.assertEqual(left, said[-len(left):])  # it has checked once more
        with tempfile.TemporaryDirectory() as read:
            subprocess.run([MAKE_STORE, store, read], check=True)
        self.assertNotIn('"event":"damage"', (store / cube / "history").read_text())
        self.assertEqual(check(store, expect=then), left)
        return said

    def assert_frames(self, store, cube, want, lost=(), changed=()):
        """All frames are there with their files and elements, but those that are lost, and of those
        that are changed only the elements have to be."""
        have = frames_of(store, cube)
        self.assertEqual(set(have), set(want) - set(lost))
        for name, frame in have.items():
            if name not in changed:
                self.assertEqual(frame, want[name], name)
            else:
                self.assertEqual(frame[2], want[name][2], name)

    def place_of(self, store, name, row, byte=0):
        """Where in the brick file a byte of a frame's first element lies."""
        cube = read_store.open_cube(store, name)
        where = [int(w[0]) for w in cube.frame_coordinates(row)]
        box = next(b for b in cube.boxes.values()
                   if all(o <= w < o + n for o, w, n in zip(b.origin, where, b.extent)))
        cells = box.cells(cube.bricks, cube.definition.coding)
        index = ([(w - o) // b for w, o, b in zip(where, box.origin, box.brick)] +
                 [(w - o) % b for w, o, b in zip(where, box.origin, box.brick)])
        return box.offset + sum(i * stride for i, stride in zip(index, cells.strides)) + byte

    def row(self, store, cube, frame):
        cube = read_store.open_cube(store, cube)
        rows = {**cube.frames_in(read_store.LIVE), **cube.frames_in(read_store.REMOVED)}
        return rows[frame.encode()]

    # ---- What is good ----

    def test_stores_of_today_and_golden_ones_are_good(self):
        stores = [self.made / "store", self.made / "live"]
        for archive in sorted((HERE / "golden").glob("version-*.tar.xz")):
            root = pathlib.Path(tempfile.mkdtemp(dir=self.directory))
            with tarfile.open(archive) as tar:
                tar.extractall(root)
            stores += [root / "store", root / "live"]
        self.assertEqual(len(stores), 4)
        for store in stores:
            with self.subTest(store):
                before = hashes(store)
                said = check(store, expect=GOOD)
                self.assertEqual(hashes(store), before)
                self.assertEqual([line for line in said.splitlines()
                                  if not line.endswith(", good")], [])
                self.assertEqual(len(said.splitlines()), len(read_store.cube_names(store)))
                self.assertEqual(check(store, "--quiet", expect=GOOD), "")
                # Nothing is damaged, so nothing is repaired.
                check(store, "--repair", expect=GOOD)
                self.assertEqual(hashes(store), before)

    def test_the_summary_tells_frames_bytes_and_what_was_poked(self):
        store = self.copy_of("poked")
        cube = read_store.open_cube(store, "poked")
        said = check(store, "poked", expect=GOOD)
        live, removed = (cube.frames_in(state) for state in (read_store.LIVE, read_store.REMOVED))
        self.assertIn(f"cube poked: {len(live)} frames and {len(removed)} removed, ", said)
        poked = sum(cube.frame_poked(row).any() for row in [*live.values(), *removed.values()])
        self.assertIn(f"{poked} of ", said)

    def test_a_torn_tail_is_ordinary_recovery(self):
        store = self.copy_of("many", "live")
        journal = max((store / "many").glob("journal.*"))
        data = journal.read_bytes()
        scan = read_store.Journal(data, *struct.unpack_from("<QQ", data, 8))
        unmarked = sum(kind == read_store.DELTA
                       for kind, *_ in scan.records[scan.marked:])
        self.assertGreater(unmarked, 1)
        self.assertIn(f", {unmarked} records after the last mark, {unmarked} of them whole",
                      check(store, expect=GOOD))
        os.truncate(journal, len(data) - 9)
        before = hashes(store)
        self.assertIn(f", {unmarked} records after the last mark, {unmarked - 1} of them whole",
                      check(store, expect=GOOD))
        check(store, "--repair", expect=GOOD)
        self.assertEqual(hashes(store), before)

    # ---- Damage ----

    def test_a_flipped_bit_in_a_journal_before_a_mark(self):
        for cube in ("large", "kept"):
            want = frames_of(self.made / "store", cube)
            journal = max((self.made / "store" / cube).glob("journal.*")).name
            data = (self.made / "store" / cube / journal).read_bytes()
            scan = read_store.Journal(data, *struct.unpack_from("<QQ", data, 8))
            ends = [48, *(record[4] for record in scan.records)]
            # The last record that marks vouch for, so what comes before it is left.
            victim = max(i for i in range(scan.marked) if scan.records[i][0] == read_store.DELTA)
            with self.subTest(cube):
                store = self.copy_of(cube)
                flip(store / cube / journal, ends[victim] + 100)
                said = self.found(store, cube)
                self.assertIn(f"{journal} at {ends[victim]}: the journal is damaged before its last "
                              f"mark, at record {scan.records[victim][1]}", said)
                names = {f"journal.{n:06}" for n in (1, 2)} | {"checkpoint.000001"}
                kept = {n: (store / cube / n).read_bytes() for n in names
                        if (store / cube / n).exists()}
                self.repair(store, cube)
                for name, bytes in kept.items():
                    self.assertEqual((store / cube / f"{name}.damaged").read_bytes(), bytes)
                have = frames_of(store, cube)
                self.assertGreaterEqual(len(have), 1)
                for name, frame in have.items():
                    self.assertEqual(frame[2], want[name][2])

    def test_what_later_records_brought_is_named(self):
        store = self.copy_of("large")
        want = frames_of(store, "large")
        journal = store / "large" / "journal.000001"
        data = journal.read_bytes()
        scan = read_store.Journal(data, *struct.unpack_from("<QQ", data, 8))
        flip(journal, scan.records[0][4] + 40)  # the second record
        self.found(store, "large")
        said = self.repair(store, "large")
        have = frames_of(store, "large")
        named = re.search(r"of these frames: (.*)", said)
        if named:  # the damaged one itself may be readable but for a bit
            self.assertLessEqual(set(named[1].split(", ")), set(want))
            self.assertGreaterEqual(set(named[1].split(", ")) | set(have), set(want) - {"b"})
        self.assertIn("behind record 1 are lost", said)

    def test_a_damaged_newest_checkpoint_costs_nothing(self):
        want = frames_of(self.made / "store", "many")
        for how in ("flipped", "cut", "another version"):
            with self.subTest(how):
                store = self.copy_of("many")
                newest = max((store / "many").glob("checkpoint.*"))
                if how == "flipped":
                    flip(newest, 300)
                elif how == "cut":
                    os.truncate(newest, newest.stat().st_size - 8)
                else:
                    flip(newest, 7, 3)
                self.assertIn(newest.name, self.found(store, "many"))
                self.repair(store, "many")
                self.assert_frames(store, "many", want)

    def test_a_missing_newest_checkpoint_is_not_noticed_but_serves_as_well(self):
        """The older one and both journals lead as far: as when it had not been written yet."""
        want = frames_of(self.made / "store", "many")
        store = self.copy_of("many")
        max((store / "many").glob("checkpoint.*")).unlink()
        check(store, expect=GOOD)
        self.assert_frames(store, "many", want)

    def test_a_damaged_older_generation_is_told_and_put_away(self):
        for file in ("checkpoint", "journal"):
            store = self.copy_of("many")
            want = frames_of(store, "many")
            older = min((store / "many").glob(f"{file}.*"))
            flip(older, older.stat().st_size // 2)
            self.assertIn(older.name, self.found(store, "many"))
            self.repair(store, "many")
            self.assert_frames(store, "many", want)

    def test_without_a_whole_checkpoint_the_first_journal_will_do(self):
        for cube in ("large", "kept", "poked"):
            want = frames_of(self.made / "store", cube)
            for missing in (False, True):
                with self.subTest(cube=cube, missing=missing):
                    store = self.copy_of(cube)
                    checkpoint = store / cube / "checkpoint.000001"
                    if missing:
                        checkpoint.unlink()
                    else:
                        flip(checkpoint, 20)
                    self.assertIn("checkpoint.000001", self.found(store, cube))
                    self.repair(store, cube)
                    self.assert_frames(store, cube, want)

    def test_a_missing_journal_leaves_the_checkpoint(self):
        store = self.copy_of("many")
        newest = max((store / "many").glob("journal.*"))
        newest.unlink()
        self.assertIn(newest.name, self.found(store, "many"))
        self.repair(store, "many")
        want = frames_of(self.made / "store", "many")
        have = frames_of(store, "many")
        self.assertGreater(len(have), 10)
        for name, frame in have.items():
            self.assertEqual(frame[2], want[name][2])

    def test_a_damaged_header_of_a_later_journal(self):
        """Where no checkpoint has been written for it yet."""
        store = self.copy_of("many")
        want = frames_of(store, "many")
        max((store / "many").glob("checkpoint.*")).unlink()
        newest = max((store / "many").glob("journal.*"))
        flip(newest, 33)
        self.assertIn(f"{newest.name} at 0: the header of a journal is damaged",
                      self.found(store, "many"))
        with self.assertRaisesRegex(read_store.Damaged, "header"):
            read_store.open_cube(store, "many")
        self.assertIn(" are lost, of these frames: ", self.repair(store, "many"))
        have = frames_of(store, "many")
        self.assertGreater(len(have), 10)
        for name, frame in have.items():
            self.assertEqual(frame[2], want[name][2])

    def test_nothing_to_start_from(self):
        store = self.copy_of("many")
        for path in (store / "many").glob("checkpoint.*"):
            flip(path, 20)
        (store / "many" / "journal.000001").unlink(missing_ok=True)
        self.assertIn("checkpoint.000001 is damaged", self.found(store, "many"))
        before = hashes(store)
        check(store, "--repair", expect=COULD_NOT_CHECK)
        self.assertEqual(hashes(store), before)

    def test_elements_that_do_not_match_are_named_and_stay(self):
        store = self.copy_of("large")
        want = frames_of(store, "large")
        frame = sorted(want)[0]
        at = self.place_of(store, "large", self.row(store, "large", frame), 3)
        flip(store / "large" / "bricks", at)
        said = self.found(store, "large")
        self.assertRegex(said, rf"bricks at \d+: elements \d+\.\.\d+ of the frame do not match their "
                               rf"checksum \(frame {frame}\)$")
        self.assertEqual(said.count("\n"), 0)
        self.repair(store, "large", then=DAMAGED)
        cube = read_store.open_cube(store, "large")
        self.assertEqual(self.row(store, "large", frame).digest, (0, 0))
        have = {name.decode(): cube.frame_words(row).tobytes()
                for name, row in cube.frames_in(read_store.LIVE).items()}
        self.assertEqual(set(have), set(want))
        for name, elements in have.items():
            self.assertEqual(elements == want[name][2], name != frame, name)
        # Once more: it is named again, and nothing is left to be done.
        before = hashes(store)
        check(store, "--repair", expect=DAMAGED)
        self.assertEqual(hashes(store), before)

    def test_a_brick_file_that_was_cut_off(self):
        store = self.copy_of("large")
        want = frames_of(store, "large")
        size = (store / "large" / "bricks").stat().st_size
        os.truncate(store / "large" / "bricks", size // 2 // 4096 * 4096 - 100)
        said = self.found(store, "large")
        self.assertIn("reaches beyond the end of the file", said)
        self.repair(store, "large", then=DAMAGED)
        self.assertEqual((store / "large" / "bricks").stat().st_size, size)
        bad = set(re.findall(r"\(frame (\S+)\)", check(store, expect=DAMAGED)))
        self.assertTrue(bad)
        self.assertLess(bad, set(want))
        cube = read_store.open_cube(store, "large")
        for name, row in cube.frames_in(read_store.LIVE).items():
            if name.decode() not in bad:
                self.assertEqual(cube.frame_words(row).tobytes(), want[name.decode()][2])

    def test_texts_of_frames(self):
        """What is lost of a frame whose text is damaged, and that its elements are not."""
        cases = {
            ("kept", "name"): "its name", ("kept", "original"): "its file as it came is lost",
            ("large", "prefix"): "its headers are lost", ("large", "sums"): "its checksums",
            ("poked", "cards"): "changes of its cards are lost",
        }
        for (cube, text), sentence in cases.items():
            with self.subTest(cube=cube, text=text):
                store = self.copy_of(cube)
                want = frames_of(store, cube)
                rows = read_store.open_cube(store, cube).frames_in(read_store.LIVE)
                frame, row = next((name.decode(), row) for name, row in sorted(rows.items())
                                  if getattr(row, text)[1])
                flip(store / cube / "heap", getattr(row, text)[0])
                said = self.found(store, cube)
                self.assertIn(f"heap at {getattr(row, text)[0]}: the frame's ", said)
                said = self.repair(store, cube)
                if text == "name":
                    self.assertIn(f"it is called frame-{row.id}", said)
                    want[f"frame-{row.id}"] = want.pop(frame)
                else:
                    self.assertIn(f"frame {frame}: ", said)
                    self.assertIn(sentence, said)
                self.assert_frames(store, cube, want,
                                   changed={frame} if text in ("original", "prefix") else ())

    def test_a_heap_that_was_cut_off(self):
        store = self.copy_of("large")
        want = frames_of(store, "large")
        heap = store / "large" / "heap"
        os.truncate(heap, heap.stat().st_size // 2)
        self.assertIn("the heap file is shorter than its rows say", self.found(store, "large"))
        self.repair(store, "large")
        have = frames_of(store, "large")
        self.assertEqual(len(have), len(want))
        self.assertEqual(sorted(frame[2] for frame in have.values()),
                         sorted(frame[2] for frame in want.values()))

    def test_files_of_another_cube(self):
        for file in ("bricks", "heap", "journal.000001", "checkpoint.000001"):
            with self.subTest(file):
                store = self.copy_of("large")
                want = frames_of(store, "large")
                shutil.copy(self.made / "store" / "kept" / file, store / "large" / file)
                self.assertIn(file, self.found(store, "large"))
                if file == "checkpoint.000001":  # the first journal knows better
                    self.repair(store, "large")
                    self.assert_frames(store, "large", want)

    def test_files_that_are_missing(self):
        for file in ("bricks", "heap"):
            with self.subTest(file):
                store = self.copy_of("large")
                want = frames_of(store, "large")
                (store / "large" / file).unlink()
                self.assertIn(f"{file}: open {file}: No such file", self.found(store, "large"))
                self.repair(store, "large", then=DAMAGED if file == "bricks" else GOOD)
                self.assertEqual(len(frames_of_rows(store, "large")), len(want))

    # ---- Repair ----

    def test_a_repair_may_be_killed_at_any_time(self):
        want = frames_of(self.made / "store", "kept")
        frame = sorted(want)[0]
        row = self.row(self.made / "store", "kept", frame)
        turns, states, took = 10, set(), 0
        for turn in range(turns + 1):
            store = self.copy_of("kept")
            flip(store / "kept" / "checkpoint.000001", 20)
            flip(store / "kept" / "heap", row.prefix[0])
            begin = time.monotonic()
            with subprocess.Popen([CHECK, "--repair", store],
                                  stdout=subprocess.DEVNULL) as process:
                if turn > 0:
                    time.sleep(took * turn / turns)
                    process.send_signal(signal.SIGKILL)
                process.wait()
            took = took or time.monotonic() - begin
            states.add(tuple(sorted(p.name for p in (store / "kept").iterdir())))
            said = subprocess.run([CHECK, store], capture_output=True, text=True, check=False)
            self.assertIn(said.returncode, (GOOD, DAMAGED), said.stderr)
            if said.returncode == DAMAGED:
                self.repair(store, "kept")
            self.assert_frames(store, "kept", want, changed={frame})
        self.assertGreater(len(states), 1)
        print(f"killed in {len(states)} states", flush=True)

    # ---- Usage ----

    def test_what_cannot_be_checked(self):
        store = self.copy_of("kept")
        self.assertIn("", check(store, "nosuch", expect=COULD_NOT_CHECK))
        check(store / "kept", expect=COULD_NOT_CHECK)
        check(store / "none", expect=COULD_NOT_CHECK)
        self.assertFalse((store / "none").exists())
        (store / "accretefs.store").write_bytes(b"accretefs store, version 2\n")
        check(store, expect=COULD_NOT_CHECK)
        self.assertEqual(subprocess.run([CHECK], capture_output=True, check=False).returncode,
                         WRONG_USAGE)
        self.assertEqual(subprocess.run([CHECK, "--nonsense", store], capture_output=True,
                                        check=False).returncode, WRONG_USAGE)


def frames_of_rows(store, name):
    cube = read_store.open_cube(store, name)
    return [row for row in cube.frames.values() if row.state != read_store.GONE]


if __name__ == "__main__":
    unittest.main(verbosity=2)
