"""A daemon on a mount of its own, for the length of a `with` block.

The programs under test come from the environment, as CTest sets it:
  ACCRETEFS            path of the daemon
  ACCRETE_SIMULATE     path of accrete-simulate
  ACCRETE_SIGCLIP      path of accrete-sigclip
  ACCRETEFS_CHECK      path of accretefs-check
  ACCRETEFS_EXPORT     path of accretefs-export
  ACCRETE_SANITIZE     what the build was made with: "", "address,undefined" or "thread"
  ACCRETE_TEST_SCALE   factor for counts, below 1 for slow builds
"""
import contextlib
import errno
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

SANITIZE = os.environ.get("ACCRETE_SANITIZE", "")
SCALE = float(os.environ.get("ACCRETE_TEST_SCALE", "1"))
# How long anything may take before a test calls it hung.
PATIENCE = 300 if SANITIZE else 120


def program(variable):
    path = os.environ.get(variable)
    if not path:
        raise RuntimeError(f"set {variable} to the program under test, or run by ctest")
    return path


def scaled(count, least=1):
    """A count of frames or rounds, made smaller for slow builds."""
    return max(least, round(count * SCALE))


def is_mounted(path):
    # Not os.path.ismount: it says no when the daemon is dead.
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        return any(line.split()[4] == str(path) for line in lines)


def need_fuse():
    """Skips the test where there is no FUSE, but never in CI."""
    missing = None
    if not os.path.exists("/dev/fuse"):
        missing = "there is no /dev/fuse"
    elif not os.access("/dev/fuse", os.R_OK | os.W_OK):
        missing = "/dev/fuse may not be opened"
    elif shutil.which("fusermount3") is None:
        missing = "there is no fusermount3"
    if missing and os.environ.get("CI") == "true":
        raise AssertionError(missing)
    if missing:
        raise unittest.SkipTest(missing)


def wait_until(condition, what, patience=PATIENCE):
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"after {patience} s still waiting until {what}")
        time.sleep(0.005)


def is_of_cfitsio(report):
    """Whether all that a sanitizer found was done by cfitsio itself: its faults are why it has a
    process of its own."""
    innermost = [frame for frame in re.findall(r"^ *#[01] .*$", report, re.M)
                 if "interceptor" not in frame]
    traces = len(re.findall(r"^ *#0 ", report, re.M))
    return traces > 0 and len([f for f in innermost if "libcfitsio" in f]) >= traces


class Mounted:
    """A store and its mount. `store`: an existing one to mount again; else a fresh one. `daemon`: the
    variable that tells the program, which takes the command line of accretefs.

    Leaving the block unmounts, checks that the daemon ended well and that no sanitizer reported
    anything, and removes what was made here.
    """

    def __init__(self, store=None, options=(), limit_data=None, parent=None, daemon="ACCRETEFS"):
        need_fuse()
        self.daemon = program(daemon)
        self._stack = contextlib.ExitStack()
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="accrete-", dir=parent)).resolve()
        self.store = pathlib.Path(store) if store else self.base / "store"
        self.store.mkdir(exist_ok=True)
        self.mnt = self.base / "mnt"
        self.mnt.mkdir()
        self.log = self.base / "log"
        self.options = list(options)
        self.limit_data = limit_data
        self.process = None
        self._keep_log = True

    # ---- The daemon ----

    def environment(self):
        reports = self.base / "sanitizer"
        common = f"log_path={reports}:print_stacktrace=1"
        return dict(os.environ,
                    ASAN_OPTIONS=f"{common}:detect_leaks=1:abort_on_error=0",
                    UBSAN_OPTIONS=common,
                    TSAN_OPTIONS=f"{common}:second_deadlock_stack=1")

    def start(self):
        def limit():
            if self.limit_data:
                resource.setrlimit(resource.RLIMIT_DATA, (self.limit_data, self.limit_data))

        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.daemon, "-f", *self.options, self.store, self.mnt],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(),
                preexec_fn=limit)

        def ready():
            if self.process.poll() is not None:
                raise AssertionError(
                    f"the daemon ended with {self.process.returncode} instead of mounting:\n"
                    + self.log.read_text(errors="replace"))
            return is_mounted(self.mnt)

        wait_until(ready, "the daemon has mounted")
        return self

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        """Unmounts and waits for the end of the daemon."""
        run("fusermount3", "-u", self.mnt)
        self.wait_for_end()

    def wait_for_end(self):
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the daemon did not end after it was unmounted") from None
        finally:
            self.process, ended = None, self.process
        self.check_reports()
        if code != 0:
            raise AssertionError(f"the daemon (pid {ended.pid}) ended with {code}")

    def kill(self):
        """SIGKILL, and the dead mount taken away."""
        self._end()
        self.process = None
        self.unmount_dead()
        self.check_reports()

    def _end(self):
        self.process.kill()
        # A thread of it may wait for a lock of the kernel; for root this lets go of all that waits.
        subprocess.run(["umount", "-f", self.mnt], check=False, stderr=subprocess.DEVNULL)
        self.process.wait()

    def unmount_dead(self):
        while is_mounted(self.mnt):
            subprocess.run(["fusermount3", "-uz", self.mnt], check=True)

    def remount(self):
        try:
            self.stop()
        finally:
            self.start()

    def check_reports(self):
        texts = []
        for report in sorted(self.base.glob("sanitizer.*")):
            texts.append(report.read_text(errors="replace")[:20000])
            report.unlink()
        texts = [text for text in texts if not is_of_cfitsio(text)]
        if texts:
            raise AssertionError("a sanitizer reported:\n" + "\n".join(texts))

    # ---- The block ----

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self._clean_up()
            raise

    def __exit__(self, kind, error, traceback):
        try:
            if kind is None and self.process is not None:
                self.stop()
        finally:
            self._clean_up(show_log=kind is not None or sys.exc_info()[0] is not None)
        return False

    def _clean_up(self, show_log=True):
        if self.process is not None and self.process.poll() is None:
            subprocess.run(["fusermount3", "-uz", self.mnt], check=False,
                           stderr=subprocess.DEVNULL)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self._end()
        self.process = None
        self.unmount_dead()
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        for report in sorted(self.base.glob("sanitizer.*")):
            text += report.read_text(errors="replace")
        if show_log and text:
            print(f"---- log of the daemon ----\n{text[-20000:]}---- end ----", file=sys.stderr)
        if is_mounted(self.mnt):  # never delete through a mount
            raise AssertionError(f"{self.mnt} cannot be unmounted")
        shutil.rmtree(self.base)

    # ---- What tests look at ----

    def __truediv__(self, name):
        return self.mnt / name

    def cube(self, name):
        path = self.mnt / name
        path.mkdir()
        return path

    def anonymous_memory(self):
        """Bytes of memory of the daemon's own (not pages of mapped files)."""
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no RssAnon in /proc/PID/status")

    def bytes_written(self):
        """By write calls, and as dirtied pages of files: whichever is more."""
        text = pathlib.Path(f"/proc/{self.pid}/io").read_text()
        counts = dict(line.split(": ") for line in text.splitlines())
        return max(int(counts["wchar"]), int(counts["write_bytes"]))


class OneMountTest(unittest.TestCase):
    """One mount for all tests of a class, a fresh cube for each."""

    @classmethod
    def setUpClass(cls):
        cls.context = Mounted()
        cls.m = cls.context.__enter__()
        cls.addClassCleanup(lambda: cls.context.__exit__(None, None, None))

    def setUp(self):
        self.cube = self.m.cube(self.id().rsplit(".", 1)[1])


def meta(cube, name):
    return (cube / "meta" / name).read_text().rstrip("\n")


def put(cube, name, text):
    """Sets a property as a program does that looks at the result of write()."""
    file = os.open(cube / "meta" / name, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def shape_of(cube):
    return [int(n) for n in meta(cube, "shape").split()]


def last_error(cube):
    return (cube / "last-error").read_text().strip()


# ---- Running programs ----

def run(*command, check=True, **more):
    """Runs a program as a user would; fails with what it said."""
    result = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, timeout=PATIENCE, **more)
    if check and result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))[:500]}\nended with "
                             f"{result.returncode}: {result.stderr.decode(errors='replace')[:2000]}")
    return result


def shell(text, check=True, **more):
    return run("bash", "-c", text, check=check, **more)


def fails(*command, because, **more):
    """Runs a program that must fail with strerror(because) in what it says."""
    result = run(*command, check=False, env=dict(os.environ, LC_ALL="C"), **more)
    said = result.stderr.decode(errors="replace")
    if result.returncode == 0 or os.strerror(because) not in said:
        raise AssertionError(f"{' '.join(map(str, command))[:500]}\nended with {result.returncode}, "
                             f"expected {errno.errorcode[because]}; it said: {said[:2000]}")
    return said


def errno_of(function, *arguments, **more):
    """The errno that a call fails with, by name; 'OK' when it does not."""
    try:
        result = function(*arguments, **more)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    if isinstance(result, int) and not isinstance(result, bool) and function is os.open:
        os.close(result)
    return "OK"


# ---- Running tests ----

@contextlib.contextmanager
def temporary_directory(parent=None):
    path = pathlib.Path(tempfile.mkdtemp(prefix="accrete-", dir=parent)).resolve()
    try:
        yield path
    finally:
        shutil.rmtree(path)


def main():
    """unittest's main; ends with 77 when everything was skipped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # unmounts on the way
    outcome = unittest.main(module="__main__", exit=False, verbosity=2).result
    if not outcome.wasSuccessful():
        sys.exit(1)
    if outcome.testsRun == 0:
        sys.exit("no test was run")
    sys.exit(77 if len(outcome.skipped) == outcome.testsRun else 0)
