"""The main job: outliers along the growth axis."""
import numpy as np
from astropy.stats import sigma_clip
from frames import read_fits
from measure import Line, Stopwatch, work
from mounted import program, run
from place import read, sync_cube, warm

SIDE = 512
ROWS = 16  # of the cube that numpy clips at once


class Simulated:
    """1,000 frames of 512 × 512 float32 with cosmic rays: in a store, and in a flat file."""

    def __init__(self, place):
        self.depth = place.scaled(1000, 50)
        self.store = place.made_path("simulated-store")
        self.flat = place.made_path("simulated-flat")
        with place.scratch() as frames:
            run(program("ACCRETE_SIMULATE"), "--frames", self.depth, frames)
            names = sorted(path.name for path in frames.iterdir())
            with place.mount(self.store) as m:
                cube = m.cube("c")
                run("cp", *names, cube / "append", cwd=frames)
                sync_cube(cube)
            with open(self.flat, "wb") as file:
                for name in names:
                    read_fits(frames / name).tofile(file)

    def memmap(self):
        return np.memmap(self.flat, np.float32, "r", shape=(self.depth, SIDE, SIDE))


@work("find outliers beyond 5 sigma, 512×512×1000",
      Line("astropy's sigma_clip on a memmap", "accretefs", ("astropy",), "speed", 3, 10, "pread"),
      pinned=True, rounds=3, rehearse=False)
def find(place):
    made = place.made(Simulated)
    found = {}

    def astropy():
        """As many rows at once as fit the processor's caches: the fastest of several tried."""
        warm(made.flat)
        cube, total = made.memmap(), 0
        with Stopwatch() as watch:
            for y in range(0, SIDE, ROWS):
                rows = np.ascontiguousarray(cube[:, y:y + ROWS].transpose(1, 2, 0))
                clipped = sigma_clip(rows, sigma=5, maxiters=10, axis=2, copy=False)
                total += int(np.count_nonzero(clipped.mask))
        found["astropy"] = total
        return watch.seconds

    def pread():
        warm(made.flat)
        return read([made.flat])

    with place.mount(made.store) as m:
        def accretefs():
            warm(made.store / "c/bricks")
            with Stopwatch() as watch:
                said = run(program("ACCRETE_SIGCLIP"), "--dry-run", m / "c").stdout.decode()
            found["accretefs"] = len([line for line in said.splitlines() if not line.startswith("#")])
            return watch.seconds

        yield {"accretefs": accretefs, "astropy": astropy, "pread": pread}
    if abs(found["accretefs"] - found["astropy"]) > found["astropy"] // 100:
        raise AssertionError(f"they found {found} outliers")
