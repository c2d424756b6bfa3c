"""The layers of the tree: core knows nothing of FUSE, tools nothing of fs, nobody of the tests."""
import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
# What the files of a directory may include of the project; whatever else they include.
MAY_INCLUDE = {"core": {"core"}, "fs": {"fs", "core"}, "tools": {"tools", "core"},
               "tests": {"tests", "tools", "fs", "core"}}
FUSE = re.compile(r"^(fuse3?/|fuse(_|\.h))")


def includes(layer):
    for path in sorted((ROOT / layer).rglob("*")):
        if path.suffix in (".h", ".cc"):
            for name in INCLUDE.findall(path.read_text(encoding="utf-8")):
                yield path.relative_to(ROOT), name


class Layering(unittest.TestCase):
    def test_layers_include_only_what_is_below(self):
        for layer, allowed in MAY_INCLUDE.items():
            for path, name in includes(layer):
                top = name.split("/")[0]
                self.assertTrue(top not in MAY_INCLUDE or top in allowed, f"{path} includes {name}")
                self.assertNotIn("..", name.split("/"), f"{path} includes {name}")

    def test_only_fs_knows_fuse(self):
        for layer in ("core", "tools"):
            for path, name in includes(layer):
                self.assertFalse(FUSE.match(name), f"{path} includes {name}")

    def test_one_file_of_core_includes_cfitsio(self):
        users = {str(path) for path, name in includes("core") if name == "fitsio.h"}
        self.assertLessEqual(len(users), 1, users)

    def test_headers_are_included_by_their_path(self):
        for layer in MAY_INCLUDE:
            own = {p.name for p in (ROOT / layer).glob("*.h")}
            for path, name in includes(layer):
                self.assertFalse(name in own, f'{path} includes "{name}" without its directory')

    def test_there_is_something_to_look_at(self):
        for layer in ("core", "fs", "tools"):
            self.assertTrue(any(True for _ in includes(layer)), layer)

    def test_top_of_the_tree(self):
        allowed = {"fs", "core", "tools", "tests", "CMakeLists.txt", "CMakePresets.json",
                   "README.md", "LICENSE", "CHANGELOG.md"}
        for path in ROOT.iterdir():
            self.assertTrue(path.name in allowed or path.name.startswith((".", "build")), path.name)


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
