"""How fast orders are, side by side with a plain item-by-item reader and numpy's own shuffles.

    python scripts/benchmarks/order.py                       # everything but the largest maps, about a minute
    python scripts/benchmarks/order.py --maps 134000000      # a Pile's worth of documents: 7 GiB for the reference
    python scripts/benchmarks/order.py --only gather preshuffled cold

Each measurement runs in a process of its own, so that peak memory is its own. Times are the best of --repeat, after one
warm-up call (which compiles, or loads what was compiled before); files are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

PARTS = ("maps", "gather", "preshuffled", "cold", "scan")
LENGTH = 2048
BATCH = 1024


# ---- the reference: what the usual reader does, written plainly


def reference_maps(
    sizes: np.ndarray, length: int, seed: int, num_samples: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index maps with numpy's shuffles and a walk over documents as compiled helpers do it."""
    from numba import njit

    @njit
    def walk(sizes, doc_idx, length, rows, out):  # type: ignore[no-untyped-def]
        slot, offset = 0, 0
        out[0, 0], out[0, 1] = 0, 0
        for k in range(1, rows + 1):
            remaining = length + 1
            while remaining != 0:
                here = sizes[doc_idx[slot]] - offset
                remaining -= here
                if remaining <= 0:
                    offset += remaining + here - 1
                    remaining = 0
                else:
                    slot += 1
                    offset = 0
            out[k, 0], out[k, 1] = slot, offset

    rng = np.random.RandomState(seed)
    tokens = int(np.sum(sizes, dtype=np.int64))
    epochs = 1
    while (epochs * tokens - 1) // length < num_samples:
        epochs += 1
    doc_idx = np.mgrid[0:epochs, 0 : len(sizes)][1]
    doc_idx[:] = np.arange(len(sizes))
    doc_idx = doc_idx.reshape(-1).astype(np.int32)
    rng.shuffle(doc_idx)
    rows = (epochs * tokens - 1) // length
    sample_idx = np.zeros((rows + 1, 2), dtype=np.int32)
    walk(sizes, doc_idx, length, rows, sample_idx)
    shuffle_idx = np.arange(rows, dtype=np.uint32)
    rng.shuffle(shuffle_idx)
    return doc_idx, sample_idx, shuffle_idx


class ItemReader:
    """One row at a time: three look-ups, a slice of the map per document, a concatenation, int64."""

    def __init__(self, prefix: Path, maps: Any = None):
        head = np.fromfile(prefix.with_suffix(".idx"), dtype=np.uint8)
        count = int(head[18:26].view(np.uint64)[0])
        self.sizes = head[34 : 34 + 4 * count].view(np.int32)
        self.pointers = head[34 + 4 * count : 34 + 12 * count].view(np.int64)
        self.buffer = memoryview(np.memmap(prefix.with_suffix(".bin"), mode="r"))
        self.maps = maps

    def get(self, document: int, offset: int = 0, length: int | None = None) -> np.ndarray:
        length = int(self.sizes[document]) - offset if length is None else length
        return np.frombuffer(
            self.buffer, dtype=np.uint16, count=length, offset=int(self.pointers[document]) + 2 * offset
        )

    def __getitem__(self, i: int) -> np.ndarray:
        if self.maps is None:
            return self.get(i)
        s = self.maps.shuffle_idx[i]
        (d0, o0), (d1, o1) = self.maps.sample_idx[s], self.maps.sample_idx[s + 1]
        if d0 == d1:
            return np.array(self.get(self.maps.doc_idx[d0], o0, o1 - o0 + 1), dtype=np.int64)
        parts = [self.get(self.maps.doc_idx[d0], o0)]
        parts += [self.get(self.maps.doc_idx[d]) for d in range(d0 + 1, d1)]
        parts.append(self.get(self.maps.doc_idx[d1], 0, o1 + 1))
        return np.array(np.concatenate(parts), dtype=np.int64)

    def batch(self, indices: range | np.ndarray) -> np.ndarray:
        return np.stack([self[int(i)] for i in indices])


# ---- measurements: each prints one JSON line when called in a process of its own


def best(work: Callable[[], Any], repeat: int) -> tuple[float, float]:
    """(wall, CPU) seconds, each the least of `repeat` calls; CPU seconds hold on a machine that others use too."""
    work()
    walls, cpus = [], []
    for _ in range(repeat):
        start, cpu = time.perf_counter(), cpu_seconds()
        work()
        walls.append(time.perf_counter() - start)
        cpus.append(cpu_seconds() - cpu)
    return min(walls), min(cpus)


def cpu_seconds() -> float:
    """CPU time of this process and of the children it has waited for."""
    return sum(
        u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def rates(count: float, times: tuple[float, float]) -> list[float]:
    """Per second and per CPU second."""
    return [count / t for t in times]


def drain(batches: Iterable[Any]) -> None:
    """Consume batches as training does: one at a time, none kept."""
    for _ in batches:
        pass


def measure_maps(which: str, documents: int, repeat: int) -> dict[str, Any]:
    from pythia_tools.order import build_index_maps

    # Half as many tokens as are asked for and a little more, so that the order takes two epochs, as the deduplicated
    # Pile's does.
    sizes = np.random.default_rng(0).integers(1, 3092, documents, dtype=np.int32)
    num_samples = int(sizes.sum(dtype=np.int64) * 1.45 / LENGTH)
    build = build_index_maps if which == "ours" else reference_maps
    small = np.full(50, 3000, dtype=np.int32)
    build(small, LENGTH, 1234, 100)
    times = []
    for _ in range(repeat):
        start, cpu = time.perf_counter(), time.process_time()
        maps = build(sizes, LENGTH, 1234, num_samples)
        times.append((time.perf_counter() - start, time.process_time() - cpu))
    import hashlib

    digest = hashlib.sha256(
        b"".join(hashlib.sha256(m.reshape(-1).view(np.uint8).data).digest() for m in maps)
    ).hexdigest()
    wall, cpu = min(times)
    return {
        "seconds": wall, "cpu": cpu, "GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "digest": digest[:12]
    }


def store_of(folder: Path, mean: int, tokens: int) -> Path:
    from pythia_tools.order import MapName, build_index_maps, save_maps
    from pythia_tools.tokens import StoreWriter

    rng = np.random.default_rng(mean)
    sizes = rng.integers(1, 2 * mean, tokens // mean)
    with StoreWriter(folder / "docs") as out:
        out.add_documents(rng.integers(2, 50_000, sizes.sum(), dtype=np.uint16), sizes)
    samples = int(sizes.sum() * 0.9 / LENGTH)
    save_maps(build_index_maps(sizes, LENGTH, 1234, samples), MapName(folder / "docs", samples, LENGTH, 1234))
    return folder / "docs"


def measure_gather(folder: str, repeat: int) -> dict[str, Any]:
    from pythia_tools.order import find_maps, load_maps, load_order

    prefix = Path(folder) / "docs"
    order = load_order(prefix)
    reader = ItemReader(prefix, load_maps(find_maps(prefix.parent)[0]))
    steps = list(range(min(order.steps, 40)))
    assert (order.batch(1) == reader.batch(range(BATCH, 2 * BATCH))).all()
    ours = best(lambda: drain(order.batch(t) for t in steps), repeat)
    theirs = best(lambda: drain(reader.batch(range(t * BATCH, (t + 1) * BATCH)) for t in steps[:8]), repeat)
    out = np.empty((BATCH, LENGTH + 1), dtype=np.uint16)
    other = np.ones_like(out)
    copy = best(lambda: drain(np.copyto(out, other) for _ in steps), repeat)
    rows = len(steps) * BATCH
    return {
        "ours": rates(rows, ours), "reference": rates(min(8, len(steps)) * BATCH, theirs), "copy": rates(rows, copy)
    }


def preshuffled_of(folder: Path, rows: int) -> Path:
    from pythia_tools.tokens import StoreWriter

    rng = np.random.default_rng(1)
    with StoreWriter(folder / "rows") as out:
        for _ in range(rows // BATCH):
            out.add_documents(rng.integers(2, 50_000, BATCH * (LENGTH + 1), dtype=np.uint16), [LENGTH + 1] * BATCH)
    return folder / "rows"


def measure_preshuffled(folder: str, repeat: int) -> dict[str, Any]:
    from pythia_tools.order import load_order

    order = load_order(Path(folder) / "rows")
    reader = ItemReader(Path(folder) / "rows")
    steps = range(order.steps)
    assert (order.batch(2) == reader.batch(range(2 * BATCH, 3 * BATCH))).all()
    ours = best(lambda: drain(order.batch(t) for t in steps), repeat)
    theirs = best(lambda: drain(reader.batch(range(t * BATCH, (t + 1) * BATCH)) for t in steps), repeat)
    return {"ours": rates(order.n_rows, ours), "reference": rates(order.n_rows, theirs)}


def measure_scan(folder: str, repeat: int) -> dict[str, Any]:
    from pythia_tools.counts import seen
    from pythia_tools.order import load_order

    order = load_order(Path(folder) / "rows")
    needle = order.rows(7, 8)[0, 5:10].tolist()
    return {"ours": rates(order.n_rows * order.row_tokens, best(lambda: seen(order, needle), repeat))}


COLD = {
    "ours": "import pythia_tools as pt; pt.load_order({0!r}).batch(3)",
    "reference": "import sys; sys.path.insert(0, {1!r}); from order import ItemReader; from pathlib import Path; "
    "ItemReader(Path({0!r})).batch(range(3072, 4096))",
    "bare numpy": "import numpy",
}


def cold_start(folder: Path, prefix: str, repeat: int) -> dict[str, tuple[float, float]]:
    times = {}
    for name, code in COLD.items():
        command = [sys.executable, "-c", code.format(str(folder / prefix), str(Path(__file__).parent))]
        times[name] = best(lambda command=command: subprocess.run(command, check=True), repeat)  # type: ignore[misc]
    return times


# ---- the table


def apart(function: str, *arguments: Any) -> dict[str, Any]:
    """Call one of this script's measurements in a fresh process."""
    here = str(Path(__file__).parent)
    code = f"import json, sys; sys.path.insert(0, {here!r}); import order; print(json.dumps(order.{function}(*{list(arguments)!r})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def say(what: str, ours: str, reference: str, ratio: str) -> None:
    print(f"{what:44}  {ours:>33}  {reference:>33}  {ratio:>16}", flush=True)


def say_rows(what: str, m: dict[str, Any]) -> None:
    texts = [f"{m[k][0]:,.0f} rows/s ({m[k][1]:,.0f} cpu)" for k in ("ours", "reference")]
    say(what, *texts, ratios(m["ours"], m["reference"]))


def ratios(more: list[float] | tuple[float, float], less: list[float] | tuple[float, float]) -> str:
    return f"{more[0] / less[0]:.1f}x ({more[1] / less[1]:.1f}x cpu)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--maps", nargs="+", type=int, default=[2_000_000], metavar="N", help="documents of the maps (default 2000000)"
    )
    parser.add_argument(
        "--means", nargs="+", type=int, default=[500, 1600], metavar="N", help="mean document lengths for gathering"
    )
    parser.add_argument(
        "--tokens", type=int, default=200_000_000, help="tokens of the stores that rows are gathered from"
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", help="where stores are written (default: a temporary folder)")
    args = parser.parse_args()
    say("", "pythia_tools", "reference", "ratio")
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        if "maps" in args.only:
            for documents in args.maps:
                ours, theirs = (apart("measure_maps", which, documents, args.repeat) for which in ("ours", "reference"))
                assert ours["digest"] == theirs["digest"], "the maps differ"
                texts = [f"{m['seconds']:.2f} s ({m['cpu']:.2f} cpu), {m['GiB']:.2f} GiB" for m in (ours, theirs)]
                pair = [(m["seconds"], m["cpu"]) for m in (theirs, ours)]
                say(f"index maps, {documents:,} documents, 2 epochs", *texts, ratios(*pair))
        for mean in args.means if "gather" in args.only else ():
            store_of(folder, mean, args.tokens)
            m = apart("measure_gather", str(folder), args.repeat)
            say_rows(f"gather 1,024 rows, documents of {mean}", m)
            say("  a copy of as many bytes", f"{m['copy'][0]:,.0f} rows/s ({m['copy'][1]:,.0f} cpu)", "", "")
            for path in folder.glob("docs*"):
                path.unlink()
        if set(args.only) & {"preshuffled", "cold", "scan"}:
            preshuffled_of(folder, 64 * BATCH)
        if "preshuffled" in args.only:
            m = apart("measure_preshuffled", str(folder), args.repeat)
            say_rows("preshuffled batches", m)
        if "scan" in args.only:
            m = apart("measure_scan", str(folder), args.repeat)
            say("scan for five tokens", f"{m['ours'][0] / 1e9:.2f} Gtokens/s ({m['ours'][1] / 1e9:.2f} cpu)", "", "")
        if "cold" in args.only:
            t = cold_start(folder, "rows", args.repeat)
            texts = {k: f"{wall:.3f} s ({cpu:.3f} cpu)" for k, (wall, cpu) in t.items()}
            say(
                "first batch, cold process, imports included", texts["ours"], texts["reference"],
                ratios(t["reference"], t["ours"])
            )
            say("  of which Python and numpy alone", texts["bare numpy"], "", "")


if __name__ == "__main__":
    main()
