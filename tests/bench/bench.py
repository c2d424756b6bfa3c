#!/usr/bin/python3
"""Measures AccreteFS, its peers and the limits of the machine side by side, and prints one table.

README.md tells what is measured and how. Ends with 1 when an "at least" is missed, or
something could not be measured though it should.
"""
import argparse
import datetime
import json
import os
import pathlib
import signal
import sys
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
import measure
import rows  # registers the works
import table
from place import Place

PROGRAMS = {"ACCRETEFS": "accretefs", "ACCRETE_SIMULATE": "accrete-simulate",
            "ACCRETE_SIGCLIP": "accrete-sigclip", "BENCH_PASSTHROUGH": "tests/bench/bench-passthrough",
            "BENCH_READER": "tests/bench/bench-reader"}


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--build", type=pathlib.Path, default=HERE.parent.parent / "build-release",
                        help="directory of the build that is measured (build-release)")
    parser.add_argument("--directory", type=pathlib.Path, default="/var/tmp",
                        help="on the disk that is measured; up to 40 GiB are used (/var/tmp)")
    parser.add_argument("--rows", default="*", metavar="GLOB[,GLOB...]",
                        help="which works, by name, as --list shows them")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side works (5)")
    parser.add_argument("--scale", type=float, default=1, metavar="F",
                        help="part of the full sizes, for a trial: bounds mean little then (1)")
    parser.add_argument("--pin", action=argparse.BooleanOptionalAction,
                        help="all on one processor, or never; both where it matters unless given")
    parser.add_argument("--json", type=pathlib.Path, metavar="OUT", help="everything that was measured")
    parser.add_argument("--list", action="store_true", help="print the names of the works, and end")
    return parser.parse_args()


def ways(item, pin):
    """On which processors a work is measured."""
    if pin is not None:
        return ["pinned" if pin else "free"]
    return ["free", "pinned"] if item.pinned else ["free"]


def measure_all(items, place, options, outcomes, times):
    """Adds the outcomes of all lines, and the times behind them, as soon as they are there."""
    for item in items:
        for how in ways(item, options.pin):
            say(f"{item.name}, {how}")
            found, why = measure_one(item, how, place, options.rounds)
            times.setdefault(item.name, {})[how] = found
            outcomes += [measure.Outcome(item.name, item.title, how, line, found, why)
                         for line in item.lines]


def measure_one(item, how, place, rounds):
    """The times, and why there are none. What fails does not take the others with it."""
    if item.cold and not measure.can_drop_caches():
        return {}, "needs root to drop caches"
    try:
        with measure.processors(how):
            return measure.measure(item, place, rounds), ""
    except Exception:  # pylint: disable=broad-except
        traceback.print_exc()
        return {}, "failed"


def say(text):
    print(f"{datetime.datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


def machine(directory):
    """What the figures are of."""
    with open("/proc/cpuinfo", encoding="ascii") as lines:
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    filesystem = measure.output("stat", "-f", "-c", "%T", directory)
    return (f"{len(os.sched_getaffinity(0))} × {model}, {memory} GiB, Linux {os.uname().release}, "
            f"{filesystem}")


def main():
    options = parse_options()
    items = measure.chosen(options.rows)
    if options.list:
        print("\n".join(f"{item.name:<28} {item.title}" for item in items))
        return 0
    if not items:
        sys.exit(f"no work is called {options.rows}")
    for variable, name in PROGRAMS.items():
        os.environ.setdefault(variable, str(options.build / name))
    for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sent, lambda *_: sys.exit("interrupted"))  # unmounts on the way
    outcomes, times = [], {}
    try:
        with Place(options.directory, options.scale) as place:
            measure_all(items, place, options, outcomes, times)
    finally:
        report(outcomes, times, options)  # of an interrupted run, what there is
    return int(any(outcome.missing == "failed" or outcome.reaches(outcome.line.least) is False
                   for outcome in outcomes))


def report(outcomes, times, options):
    what = {"date": f"{datetime.date.today()}", "machine": machine(options.directory),
            "scale": options.scale, "rounds": options.rounds}
    print("\n".join(f"{name}: {value}" for name, value in what.items()), end="\n\n")
    print(table.text(outcomes))
    if options.json:
        lines = [outcome.as_json() for outcome in outcomes]
        options.json.write_text(json.dumps({**what, "lines": lines, "times": times}, indent=1) + "\n",
                                encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
