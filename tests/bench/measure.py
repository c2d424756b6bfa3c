"""Works that are measured, side by side in interleaved rounds.

A work is a generator function of a Place that prepares, yields its sides, and cleans up. A side does
the work once, in its own way, and returns the seconds that it took, or several by name: {"": seconds,
"and sync": seconds} gives the times "SIDE" and "SIDE and sync". Lines of the table compare the times of
sides.
"""
import contextlib
import dataclasses
import fnmatch
import importlib.util
import os
import random
import statistics
import subprocess
import sys
import time


@dataclasses.dataclass(frozen=True)
class Line:
    """AccreteFS's time `ours` against the sum of the times `theirs`.

    `unit`: "time", ours / theirs, at most `least`; "speed", theirs / ours, at least `least`; "s" and
    "MiB", ours itself, at most `least`. `least` and `aim` are None where a line only tells. `limit`: the
    time of the least that the machine has to do for this.
    """
    against: str
    ours: str
    theirs: tuple = ()
    unit: str = "time"
    least: float | None = None
    aim: float | None = None
    limit: str | None = None


@dataclasses.dataclass(frozen=True)
class Work:
    name: str        # MODULE.FUNCTION, what --rows chooses by
    title: str
    prepare: object  # the generator function
    lines: tuple
    pinned: bool     # whether it is measured on one processor, too
    cold: bool       # whether it drops caches, which needs root
    rounds: int      # most of them, where one takes long
    rehearse: bool   # whether a first round is not counted


WORKS = []


def work(title, *lines, pinned=False, cold=False, rounds=1000, rehearse=True):
    def register(prepare):
        name = f"{prepare.__module__.rpartition('.')[2]}.{prepare.__name__}"
        WORKS.append(Work(name, title, prepare, lines, pinned, cold, rounds, rehearse))
        return prepare

    return register


def chosen(patterns):
    return [w for w in WORKS if any(fnmatch.fnmatch(w.name, p) for p in patterns.split(","))]


def present(sides):
    """Without those whose first word is a library that is not installed."""
    return {name: side for name, side in sides.items() if has(name.split()[0])}


def has(library):
    return importlib.util.find_spec(library) is not None


# ---- One work ----

def measure(item, place, rounds):
    """The times of each side, a list by name."""
    rounds = min(rounds, item.rounds)
    times = {}
    with contextlib.contextmanager(item.prepare)(place) as sides:
        for number in range(-int(item.rehearse), rounds):
            for name, seconds in one_round(sides, number).items():
                if number >= 0:
                    times.setdefault(name, []).append(seconds)
    return times


def one_round(sides, number):
    """The sides in an order of this round, so that none always comes after the same one."""
    names = list(sides)
    random.Random(number).shuffle(names)
    times = {}
    for name in names:
        os.sync()  # what others left to be written is not in its way
        taken = sides[name]()
        for part, seconds in (taken if isinstance(taken, dict) else {"": taken}).items():
            times[f"{name} {part}".strip()] = seconds
    return times


@contextlib.contextmanager
def processors(how):
    """For this process and those that it starts: "pinned" to one, or "free"."""
    before = os.sched_getaffinity(0)
    if how == "pinned":
        os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Stopwatch:
    """with Stopwatch() as watch: ...; then watch.seconds."""

    def __enter__(self):
        self._begin = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self._begin


def timed(function, *arguments):
    with Stopwatch() as watch:
        function(*arguments)
    return watch.seconds


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode().strip()


# ---- Cold ----

def can_drop_caches():
    return os.geteuid() == 0 and os.access("/proc/sys/vm/drop_caches", os.W_OK)


def drop_caches(*files):
    """`files` are what is read next: that they are out of memory is looked at. Pages that a process
    has mapped stay, so nothing may have them mapped."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3\n")
    for path in files:
        resident = int(output("fincore", "-nb", "-o", "RES", path))
        if resident > max(path.stat().st_size // 20, 1 << 20):
            sys.exit(f"{path} is still in memory after its caches were dropped")


# ---- Lines ----

def quartiles(values):
    """The lower quartile, the median, the upper one."""
    if len(values) == 1:
        return [values[0]] * 3
    return statistics.quantiles(values, n=4, method="inclusive")


@dataclasses.dataclass
class Outcome:
    """A line, measured. Ratios are made round by round, of what ran side by side."""
    work: str
    name: str
    how: str  # pinned or free
    line: Line
    times: dict
    missing: str = ""  # why it was not measured

    def __post_init__(self):
        line = self.line
        needed = [line.ours, *line.theirs]
        lacking = [side for side in needed if side not in self.times]
        if lacking and not self.missing:
            self.missing = f"no {lacking[0]}"
        if self.missing:
            return
        self.ours = self.times[line.ours]
        self.theirs = [sum(parts) for parts in zip(*(self.times[side] for side in line.theirs))]
        self.limit = self.times.get(line.limit)
        if line.unit == "time":
            ratios = [a / b for a, b in zip(self.ours, self.theirs)]
        elif line.unit == "speed":
            ratios = [b / a for a, b in zip(self.ours, self.theirs)]
        else:
            ratios = self.ours
        self.ratio = quartiles(ratios)

    def reaches(self, bound):
        """None where there is nothing to reach."""
        if self.missing or bound is None:
            return None
        return self.ratio[1] >= bound if self.line.unit == "speed" else self.ratio[1] <= bound

    def as_json(self):
        line = dataclasses.asdict(self.line)
        found = {} if self.missing else {"ratio": self.ratio, "least reached": self.reaches(line["least"]),
                                         "aim reached": self.reaches(line["aim"])}
        return {"work": self.work, "title": self.name, "processors": self.how, **line,
                "missing": self.missing, **found}
