"""Outcomes as one table, in Markdown."""
import statistics

HEAD = ("work", "on", "measured against", "AccreteFS", "they", "limit", "ratio", "quartiles", "at least",
        "aim", "")


def duration(seconds):
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            break
    return f"{short(seconds * factor)} {unit}"


def short(value):
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cells(outcome):
    line = outcome.line
    speed = line.unit == "speed"
    mark = " ×" if line.unit in ("time", "speed") else f" {line.unit}"

    def bound(value):
        return "" if value is None else ("≥ " if speed else "≤ ") + f"{value:g}{mark}"

    if outcome.missing:
        return [outcome.name, outcome.how, line.against, outcome.missing, "", "", "", "", bound(line.least),
                bound(line.aim), "not measured"]

    def median(values):
        return duration(statistics.median(values)) if values else ""

    reached = outcome.reaches(line.least)
    verdict = {None: "", True: "ok", False: "MISSED"}[reached]
    if reached and outcome.reaches(line.aim):
        verdict = "aim"
    low, middle, high = (short(value) for value in outcome.ratio)
    kind = {"time": " of its time", "speed": " as fast"}.get(line.unit, "")
    return [outcome.name, outcome.how, line.against,
            "" if line.unit == "MiB" else median(outcome.ours), median(outcome.theirs),
            "" if (line.limit,) == line.theirs else median(outcome.limit), f"{middle}{mark}{kind}",
            f"{low}–{high}", bound(line.least), bound(line.aim), verdict]


def text(outcomes):
    rows = [HEAD, *map(cells, outcomes)]
    for above, row in reversed(list(zip(rows[1:], rows[2:]))):
        if above[0] == row[0]:
            row[0] = ""  # the same work goes on
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = ["| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)) + " |"
             for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
