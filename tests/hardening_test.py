"""Programs of a release build are built so that a memory error is harder to make use of.

    hardening_test.py PROGRAM...
"""
import subprocess
import sys
import unittest

PROGRAMS = sys.argv[1:]


def readelf(*arguments):
    return subprocess.run(["readelf", "--wide", *arguments], check=True, capture_output=True,
                          text=True).stdout


class Hardening(unittest.TestCase):
    def each(self):
        self.assertTrue(PROGRAMS)
        for program in PROGRAMS:
            with self.subTest(program):
                yield program

    def test_position_independent(self):
        for program in self.each():
            self.assertIn("DYN (Position-Independent Executable file)",
                          readelf("--file-header", program))

    def test_addresses_of_functions_are_read_only(self):
        for program in self.each():
            self.assertIn("GNU_RELRO", readelf("--program-headers", program))
            self.assertRegex(readelf("--dynamic", program), r"FLAGS_1\).*\bNOW\b")

    def test_stack_is_not_executable(self):
        for program in self.each():
            stack, = [line for line in readelf("--program-headers", program).splitlines()
                      if "GNU_STACK" in line]
            self.assertRegex(stack, r"\bRW\b")

    def test_stack_and_copies_are_checked(self):
        for program in self.each():
            symbols = readelf("--dyn-syms", program)
            self.assertIn("__stack_chk_fail", symbols)
            self.assertRegex(symbols, r"__(memcpy|snprintf|fprintf|vsnprintf|memset|read|pread64)_chk")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
