"""Index maps on disk, under GPT-NeoX's own names, and the checks that a published map needs.

    {prefix}_{name}_indexmap_{num_samples}ns_{seq_length}sl_{seed}s[_packedpi[_ac]]_{doc|sample|shuffle}_idx.npy

`name` is train_0, valid_0 … where the run's files were given as train-data-paths, each whole, and num_samples is 1.005
times its rows; it is train, valid or test where one data-path was split, and num_samples is the rows as they are.
The infix in brackets came in August 2024 and changes nothing in the content. The name holds no trace of the documents'
sizes, so a map of another corpus under the right name is possible: `verify_maps` compares every row start.
One published map is corrupt (seed 2's shuffle map has a run of 149.8 million zeros); loading refuses it.
"""

import os
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pythia_tools.core.errors import DataError
from pythia_tools.core.files import atomic_write
from pythia_tools.core.parallel import parallel_for
from pythia_tools.order.maps import IndexMaps

PARTS = ("doc", "sample", "shuffle")
NAME = re.compile(
    r"^(?P<stem>.+)_(?P<name>[a-z]+(?:_\d+)?)_indexmap_(?P<samples>\d+)ns_(?P<length>\d+)sl_(?P<seed>\d+)s"
    r"(?P<infix>(?:_packedpi(?:_ac)?)?)_(?P<part>doc|sample|shuffle)_idx\.npy$"
)
ZERO_RUN = 8
PARALLEL_ROWS = 1 << 16
"""Fewer rows are compared in one thread, which takes less than a millisecond."""
DAMAGED = (ValueError, TypeError, EOFError, OSError, OverflowError, SyntaxError, RecursionError, tokenize.TokenError)
"""What numpy raises on a file that is no npy: its header is parsed as Python."""


@dataclass(frozen=True)
class MapName:
    """What a map's file name says; `path(part)` is the file."""

    prefix: Path
    num_samples: int
    seq_length: int
    seed: int
    name: str = "train_0"
    infix: str = ""

    def path(self, part: str) -> Path:
        asked = f"{self.num_samples}ns_{self.seq_length}sl_{self.seed}s{self.infix}"
        return self.prefix.with_name(f"{self.prefix.name}_{self.name}_indexmap_{asked}_{part}_idx.npy")

    @property
    def paths(self) -> dict[str, Path]:
        return {part: self.path(part) for part in PARTS}


def find_maps(folder: str | os.PathLike[str], stem: str | None = None) -> list[MapName]:
    """The sets of maps in a folder (of data prefix `stem`, if given) of which a file exists, sorted by name."""
    found = set()
    for path in Path(folder).glob("*_idx.npy"):
        match = NAME.match(path.name)
        if match and stem in (None, match["stem"]):
            samples, length, seed = int(match["samples"]), int(match["length"]), int(match["seed"])
            found.add(MapName(Path(folder) / match["stem"], samples, length, seed, match["name"], match["infix"]))
    return sorted(found, key=lambda m: m.path("doc").name)


def save_maps(maps: IndexMaps, name: MapName) -> dict[str, Path]:
    """Write the three `.npy` files, each whole or absent."""
    for path, values in zip(name.paths.values(), maps, strict=True):
        save_part(path, values)
    return name.paths


def save_part(path: Path, values: np.ndarray) -> None:
    """Write one `.npy` file, whole or absent."""
    with atomic_write(path) as out:
        np.lib.format.write_array(out, values, version=(1, 0), allow_pickle=False)


def load_maps(name: MapName) -> IndexMaps:
    """Map the three files into memory; the shuffle map is walked once (about a second for 160 million rows).

    Raises: DataError when one is missing, not an npy, of the wrong type or shape, or the shuffle map is no permutation.
    """
    maps = IndexMaps(*(load_part(path, part) for part, path in name.paths.items()))
    check_rows(maps, name.path("shuffle"))
    verify_shuffle(maps.shuffle_idx, name.path("shuffle"))
    return maps


def check_rows(maps: IndexMaps, path: object) -> None:
    """Raises DataError when shuffle and sample map are not of one order."""
    rows, starts = len(maps.shuffle_idx), len(maps.sample_idx) - 1
    if rows != starts:
        raise DataError(f"{path}: {rows} rows, but the sample map starts {starts}; the files are of different orders")


def load_part(path: Path, part: str) -> np.ndarray:
    """One map, memory-mapped and checked for kind and shape; one of foreign byte order is read whole."""
    try:
        values = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such index map; build it with `pythia-tools data build-order`") from error
    except DAMAGED as error:
        raise DataError(f"{path}: not a readable npy file ({error}); it is truncated or damaged") from error
    shape_ok = values.ndim == 2 and values.shape[1] == 2 if part == "sample" else values.ndim == 1
    if values.dtype.kind not in "ui" or not shape_ok or not len(values):
        raise DataError(f"{path}: {values.dtype} of shape {values.shape} is not a {part} map")
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def zero_runs(shuffle_idx: np.ndarray, least: int = ZERO_RUN) -> list[tuple[int, int]]:
    """Stretches [a, b) of at least `least` zeros: a shuffle map holds one zero, a half-written one many."""
    edges = np.flatnonzero(np.diff(shuffle_idx == 0, prepend=False, append=False))
    return [(a, b) for a, b in edges.reshape(-1, 2).tolist() if b - a >= least]


def verify_shuffle(shuffle_idx: np.ndarray, path: object = "shuffle map") -> None:
    """Raises DataError unless the map is a permutation of its rows; names a run of zeros if that is the fault."""
    from pythia_tools.order.maps_kernels import is_permutation

    fault = is_permutation(shuffle_idx, np.zeros((len(shuffle_idx) + 63) // 64, dtype=np.uint64))
    if fault < 0:
        return
    if runs := zero_runs(shuffle_idx):
        what = f"entries {runs[0][0]} to {runs[0][1] - 1} are zero; the file is corrupt, build the map from its seed"
    else:
        rule = f"a shuffle map is a permutation of {len(shuffle_idx)} rows"
        what = f"entry {fault} ({shuffle_idx[fault]}) is out of range or a repeat; {rule}"
    raise DataError(f"{path}: {what}")


def verify_maps(maps: IndexMaps, sizes: np.ndarray, seq_length: int, name: object = "index maps") -> None:
    """Check maps against themselves, and every row start against the documents, all of them or a part.

    Cost: one pass over each map. Raises: DataError naming the first fault.
    """
    from pythia_tools.order.maps_kernels import count_documents

    verify_shuffle(maps.shuffle_idx, name)
    verify_starts(maps, sizes, seq_length, name)
    counts = np.zeros(len(sizes), dtype=np.int32)
    count_documents(maps.doc_idx, counts)
    held = counts[counts > 0]
    if held.min() != held.max():
        often, seldom = int(counts.argmax()), int(np.flatnonzero(counts == held.min())[0])
        times = f"document {often} is met {held.max()} times, document {seldom} {held.min()} times"
        raise DataError(f"{name}: {times}; an epoch holds each of its documents once, so the doc map is damaged")


def verify_starts(maps: IndexMaps, sizes: np.ndarray, seq_length: int, name: object) -> None:
    """Check that the documents exist and that every row starts where they say.

    Cost: one pass over doc and sample map, 50 ns per document, shared by the cores.
    Raises: DataError naming the first fault.
    """
    from pythia_tools.order.maps_kernels import sample_fault

    low, high = int(maps.doc_idx.min()), int(maps.doc_idx.max())
    if low < 0 or high >= len(sizes):
        raise DataError(f"{name}: the doc map has documents {low} to {high}, the store 0 to {len(sizes) - 1}")
    rows, lengths = len(maps.sample_idx) - 1, np.asarray(sizes)
    faults = [] if not maps.sample_idx[0].any() else [0]

    def compare(a: int, b: int) -> None:
        fault = sample_fault(lengths, maps.doc_idx, maps.sample_idx, seq_length, a, b)
        if fault >= 0:
            faults.append(fault)

    parallel_for(rows, compare, pieces=None if rows >= PARALLEL_ROWS else 1)
    if faults:
        what = f"row {min(faults)} of the sample map does not start where the documents say"
        raise DataError(
            f"{name}: {what}; the maps belong to other documents or another seq_length; build them again with "
            "`pythia-tools data build-order`"
        )
