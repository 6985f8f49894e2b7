"""The store of curves: surprisal of many tokens over many checkpoints, small on disk, and never read whole.

    FOLDER/curves.json            last: runs with their steps, files and chance levels; its presence means complete
    FOLDER/places-DIGEST.parquet  row, position and token id of every curve, by row and position
    FOLDER/RUN-DIGEST.chunks      up to GROUP checkpoints of one run, a chunk after the other, and where each begins

A chunk holds whole rows, about CHUNK tokens of them, at the checkpoints of its file: float16, the low bytes before the
high ones, zstd, with a checksum. So a token's curve is one chunk of each of its run's files, and one step is one file.
Surprisal is in bits (−log₂ p); float16 keeps it to .05 %. A value that the model gave as NaN is NaN.

Cost: about 1.3 bytes per value for curves as noisy as a language model's, 2 at most; a token's curve is read in a
millisecond or two. Writing holds the values of one group of checkpoints, whatever their number; files of a killed
writing are found and kept.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from pythia_tools.core import files
from pythia_tools.core.errors import DataError, RequestError, unknown

FORMAT = 1
GROUP = 32
"""Checkpoints in a file: what writing holds in memory at a time."""
CHUNK = 2048
"""Tokens in a chunk, at least, but for the last: rows are kept whole."""
LEVEL = 3
MANIFEST = "curves.json"


@dataclass(frozen=True)
class StoredRun:
    """One run's curves: its identity, its checkpoints in order, and the files they are in.

    chance: bits of a guess among the ids that compete, log₂ of their number.
    """

    suite: str
    model: str
    params: int | None
    branch: str
    seed: int | None
    steps: tuple[int, ...]
    tokens: tuple[int | None, ...]
    chance: float
    files: tuple[str, ...]

    @property
    def identity(self) -> dict[str, object]:
        """The identity columns of a table, at the run's last checkpoint."""
        return {"suite": self.suite, "model": self.model, "params": self.params, "branch": self.branch,
                "seed": self.seed, "step": self.steps[-1], "tokens": self.tokens[-1]}


@dataclass(frozen=True, eq=False)
class CurveStore:
    """A finished store. Runs are named by their model; a store of one run needs no name.

    places: row, position, token of every curve; curves are numbered in its order.
    """

    folder: Path
    runs: tuple[StoredRun, ...]
    places: pd.DataFrame

    def __len__(self) -> int:
        return len(self.places)

    def run(self, model: str | None = None) -> StoredRun:
        """The run of this name, or the only one. Raises RequestError when there are several or none of that name."""
        if model is None and len(self.runs) == 1:
            return self.runs[0]
        known = {run.model: run for run in self.runs}
        if model is None:
            raise RequestError(f"{self.folder} holds {len(known)} runs ({', '.join(known)}); say which one")
        if model not in known:
            raise unknown("run", model, known)
        return known[model]

    def token(self, row: int, position: int, model: str | None = None) -> np.ndarray:
        """(steps,) float32 bits: the curve of one token. Raises RequestError for a place that is not in the store."""
        first, stop = self._span(row)
        at = first + int(np.searchsorted(self._positions[first:stop], position))
        if at == stop or self._positions[at] != position:
            raise RequestError(f"row {row} has no position {position} in this store; it has "
                               f"{self._positions[first:stop].tolist()[:20]}")
        return self._read(self.run(model), at, at + 1)[0]

    def row(self, row: int, model: str | None = None) -> np.ndarray:
        """(positions, steps) float32 bits of one row. Raises RequestError for a row that is not in the store."""
        return self._read(self.run(model), *self._span(row))

    def step(self, step: int, model: str | None = None) -> np.ndarray:
        """(tokens,) float32 bits of all tokens at one checkpoint; reads one file, chunk by chunk."""
        run = self.run(model)
        if step not in run.steps:
            raise unknown("step", step, run.steps)
        group, within = divmod(run.steps.index(step), GROUP)
        out = np.empty(len(self), dtype=np.float32)
        for number, (a, b) in enumerate(pairwise(self._cuts)):
            out[a:b] = self._file(run, group).chunk(number, b - a, slice(None))[:, within]
        return out

    def chunks(self, model: str | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """(which curves, (n, steps) float32 bits) of all curves in order, a few thousand at a time."""
        run = self.run(model)
        for a, b in pairwise(self._cuts):
            yield slice(a, b), self._read(run, a, b)

    @cached_property
    def _positions(self) -> np.ndarray:
        return self.places["position"].to_numpy()

    @cached_property
    def _rows(self) -> np.ndarray:
        return self.places["row"].to_numpy()

    @cached_property
    def _cuts(self) -> np.ndarray:
        return chunk_cuts(self._rows)

    @cached_property
    def _opened(self) -> dict[str, _ChunkFile]:
        return {}

    def _span(self, row: int) -> tuple[int, int]:
        first, stop = np.searchsorted(self._rows, [row, row + 1]).tolist()
        if first == stop:
            raise RequestError(f"row {row} is not in this store; it holds {len(np.unique(self._rows))} rows, from "
                               f"{self._rows.min()} to {self._rows.max()}")
        return first, stop

    def _read(self, run: StoredRun, first: int, stop: int) -> np.ndarray:
        """(stop − first, steps) float32 of curves that lie in one chunk."""
        number = int(np.searchsorted(self._cuts, first, side="right")) - 1
        start, end = self._cuts[number : number + 2].tolist()
        own = slice(first - start, stop - start)
        parts = [self._file(run, g).chunk(number, end - start, own) for g in range(len(run.files))]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def _file(self, run: StoredRun, group: int) -> _ChunkFile:
        name = run.files[group]
        if name not in self._opened:
            steps = min(GROUP, len(run.steps) - group * GROUP)
            self._opened[name] = _ChunkFile(self.folder / name, len(self._cuts) - 1, steps)
        return self._opened[name]


class _ChunkFile:
    """A file of chunks, opened: at its end stand where each begins and its checksum."""

    def __init__(self, path: Path, chunks: int, steps: int):
        self.path, self.steps = path, steps
        size, tail = path.stat().st_size if path.is_file() else 0, 8 * (2 * chunks + 1)
        if size < tail:
            raise DataError(f"{path}: missing or cut short; delete its folder and measure again")
        ends = np.fromfile(path, dtype="<i8", offset=size - tail)
        self.begins, self.sums = ends[: chunks + 1], ends[chunks + 1 :]
        if self.begins[-1] != size - tail:
            raise DataError(f"{path}: damaged; delete its folder and measure again")

    def chunk(self, number: int, tokens: int, own: slice) -> np.ndarray:
        """(n, steps) float16 of some of a chunk's tokens. Raises DataError when the bytes are not those written."""
        begin, end = self.begins[number : number + 2].tolist()
        with open(self.path, "rb") as handle:
            handle.seek(begin)
            packed = handle.read(end - begin)
        if zlib.crc32(packed) != self.sums[number]:
            raise DataError(f"{self.path}: chunk {number} is damaged; delete its folder and measure again")
        low, high = np.frombuffer(
            _codec().decompress(packed, 2 * tokens * self.steps, asbytes=True), dtype=np.uint8
        ).reshape(2, tokens, self.steps)[:, own]
        return (low | high.astype("<u2") << 8).view("<f2")


def open_store(folder: str | os.PathLike[str]) -> CurveStore:
    """Open a finished store. Raises RequestError when there is none, DataError for a damaged or newer one."""
    path = Path(folder)
    if not (path / MANIFEST).is_file():
        raise RequestError(f"{path} holds no finished store of curves; run the same command again, it resumes")
    told = files.read_json(path / MANIFEST)
    if told.get("format") != FORMAT:
        raise DataError(f"{path}: format {told.get('format')} of curves, this version reads {FORMAT}; measure again")
    runs = tuple(
        StoredRun(**{**run, "steps": tuple(run["steps"]), "tokens": tuple(run["tokens"]), "files": tuple(run["files"])})
        for run in told["runs"]
    )
    try:
        places = pd.read_parquet(path / told["places"])
    except (OSError, ValueError) as error:
        raise DataError(f"{path / told['places']}: cannot be read ({error}); delete it and measure again") from error
    return CurveStore(path, runs, places)


def chunk_cuts(rows: np.ndarray) -> np.ndarray:
    """Where chunks begin and the last one ends: at rows, after at least CHUNK tokens. rows (n,): that of each curve."""
    begins = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]]) if len(rows) else np.empty(0, dtype=np.int64)
    cuts = [0]
    for begin in begins.tolist():
        if begin - cuts[-1] >= CHUNK:
            cuts.append(begin)
    return np.array([*cuts, len(rows)] if len(rows) else [0], dtype=np.int64)


class CurveWriter:
    """Writes a store, a group of checkpoints at a time; `finish` makes it one. A store that the folder holds already
    stays readable until then, and is replaced.

    places: row, position, token of every curve, sorted by row and position, as `CurveStore.places`.
    """

    def __init__(self, folder: str | os.PathLike[str], places: pd.DataFrame):
        self.folder = Path(folder)
        self.places = places.astype({"row": np.int64, "position": np.int32, "token": np.int32})
        rows, ahead = self.places["row"].to_numpy(), np.diff(self.places["row"].to_numpy())
        if not ((ahead > 0) | ((ahead == 0) & (np.diff(self.places["position"].to_numpy()) > 0))).all():
            raise RequestError("places must be sorted by row and position, each once")
        self._cuts = chunk_cuts(rows)
        self.folder.mkdir(parents=True, exist_ok=True)
        files.sweep_parts(self.folder)

    def group(self, run: str, values: np.ndarray) -> str:
        """Write up to GROUP checkpoints of a run, (checkpoints, tokens) float16 bits; returns the file's name.

        A file of equal values is there already when a writing was killed, and is kept.
        """
        if not 0 < len(values) <= GROUP:
            raise RequestError(f"a group holds 1 to {GROUP} checkpoints, not {len(values)}")
        content = hashlib.sha256(np.ascontiguousarray(values, dtype="<f2").data)
        content.update(self._cuts.astype("<i8").tobytes())
        named = "".join(c if c.isalnum() or c in "-._" else "_" for c in run)
        path = self.folder / f"{named}-{content.hexdigest()[:16]}.chunks"
        if not path.is_file():
            begins, sums = [0], []
            with files.atomic_write(path) as out:
                for a, b in pairwise(self._cuts):
                    packed = _pack(values[:, a:b].T)
                    out.write(packed)
                    begins.append(begins[-1] + len(packed))
                    sums.append(zlib.crc32(packed))
                out.write(np.array([*begins, *sums], dtype="<i8").tobytes())
        return path.name

    def finish(self, runs: Sequence[StoredRun]) -> CurveStore:
        """Write places and, last, the manifest; files that it does not name are deleted."""
        content = hashlib.sha256(self.places.to_numpy(np.int64).tobytes()).hexdigest()
        places = f"places-{content[:16]}.parquet"
        with files.atomic_write(self.folder / places) as out:
            self.places.to_parquet(out, index=False, compression="zstd")
        told = {"format": FORMAT, "unit": "bits", "dtype": "float16", "places": places,
                "runs": [asdict(run) for run in runs]}
        files.write_json(self.folder / MANIFEST, told)
        named = {places, *(name for run in runs for name in run.files)}
        for stray in [*self.folder.glob("*.chunks"), *self.folder.glob("places-*.parquet")]:
            if stray.name not in named:
                files.delete(stray)
        return open_store(self.folder)


def _pack(values: np.ndarray) -> bytes:
    """Low bytes, then high bytes: neighbours share the latter, and what is alike lies together."""
    planes = np.ascontiguousarray(values, dtype="<f2").view(np.uint8).reshape(-1, 2).T
    return _codec().compress(np.ascontiguousarray(planes).tobytes(), asbytes=True)  # type: ignore[no-any-return]


def _codec() -> pa.Codec:
    return pa.Codec("zstd", compression_level=LEVEL)
