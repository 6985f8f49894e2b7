"""Parts of a checkpoint: named tensors, or some of their rows, without downloading it.

`open_weights(checkpoint)` reads headers only; `.rows(name, rows)` reads those rows, neighbours in one request.
Local files, cached blobs and the hub (by HTTP range) look alike. What came over the network is kept by the file's
digest, so a second look costs nothing and works offline.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pythia_tools.core import files
from pythia_tools.core.errors import DataError, unknown
from pythia_tools.hub import cache, client
from pythia_tools.hub.formats import HEADER_GUESS, Spot, entry_data_start, safetensors_spots, to_array, torch_spots
from pythia_tools.hub.repositories import Listing, RemoteFile, listing
from pythia_tools.suites import Checkpoint, Folder

EMBEDDINGS = ("gpt_neox.embed_in.weight", "model.embed_tokens.weight", "transformer.wte.weight", "model.transformer.wte.weight")
SAMPLE_ROWS = 256
SAMPLE_BYTES = 850_000
"""Most bytes of rows that `sample_rows` asks for unless told how many: with the headers, at most 1 MB per checkpoint."""


class Source:
    """Bytes of one weight file; `read_bytes` counts what came over the network, `requests` how often."""

    def __init__(self, what: str, size: int, path: Path | None = None, url: str | None = None) -> None:
        self.what, self.size, self.path, self.url = what, size, path, url
        self.read_bytes = self.requests = 0

    def read(self, start: int, stop: int) -> bytes:
        """Bytes [start, min(stop, size)). Raises: DataError, EnvironmentFailure."""
        stop = min(stop, self.size)
        if self.path is not None:
            with open(self.path, "rb") as handle:
                handle.seek(start)
                return handle.read(stop - start)
        assert self.url is not None
        data = client.read_range(self.url, start, stop, self.what)
        self.read_bytes += len(data)
        self.requests += 1
        return data


@dataclass
class WeightFile:
    """One file and its tensors."""

    source: Source
    key: str | None
    spots: dict[str, Spot]


class Weights:
    """The tensors of a checkpoint, by name; nothing but headers is read until asked for."""

    def __init__(self, what: str, parts: Sequence[WeightFile]) -> None:
        self.what, self.parts = what, list(parts)
        self._where = {name: part for part in parts for name in part.spots}
        self._entry_starts: dict[tuple[str, int], int] = {}

    @property
    def names(self) -> list[str]:
        return list(self._where)

    @property
    def read_bytes(self) -> int:
        """Bytes that came over the network so far."""
        return sum(part.source.read_bytes for part in self.parts)

    @property
    def requests(self) -> int:
        return sum(part.source.requests for part in self.parts)

    def spot(self, name: str) -> Spot:
        """dtype and shape of a tensor. Raises: UnknownNameError."""
        if name not in self._where:
            raise unknown(f"tensor of {self.what}", name, self._where)
        return self._where[name].spots[name]

    def embedding(self) -> str:
        """The name of the input embedding. Raises: DataError when none is recognised."""
        for name in EMBEDDINGS:
            if name in self._where:
                return name
        raise DataError(f"{self.what}: no input embedding among its tensors; known names: {', '.join(EMBEDDINGS)}")

    def tensor(self, name: str) -> np.ndarray:
        """A whole tensor; bfloat16 comes as float32."""
        spot = self.spot(name)
        return self._read(name, 0, spot.bytes, spot.shape)

    def rows(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Rows of a tensor's first dimension, (len(rows), …), in the order asked; runs of neighbours come in one request each."""
        spot = self.spot(name)
        wanted = np.asarray(rows, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= spot.shape[0]):
            raise DataError(f"{self.what}: rows {wanted.min()} to {wanted.max()} of {name} asked, it has {spot.shape[0]}")
        part = self._where[name]
        kept = _kept_rows_path(part.key, name, wanted) if part.source.path is None and part.key else None
        if kept is not None and kept.is_file():
            return _load(kept)
        unique = np.unique(wanted)
        runs = np.split(unique, np.flatnonzero(np.diff(unique) != 1) + 1) if unique.size else []
        blocks = [self._read(name, int(run[0]) * spot.row_bytes, len(run) * spot.row_bytes, (len(run), *spot.shape[1:])) for run in runs]
        sorted_rows = np.concatenate(blocks) if blocks else np.empty((0, *spot.shape[1:]), dtype=np.float32)
        result = sorted_rows[np.searchsorted(unique, wanted)]
        if kept is not None:
            with files.atomic_write(kept) as handle:
                np.save(handle, result, allow_pickle=False)
        return result

    def _read(self, name: str, offset: int, count: int, shape: tuple[int, ...]) -> np.ndarray:
        part = self._where[name]
        spot = part.spots[name]
        start = self._data_start(part, name) + offset
        data = part.source.read(start, start + count)
        if len(data) != count:
            raise DataError(f"{part.source.what}: {name} ends before byte {start + count}; the file is cut short")
        return to_array(data, spot.dtype, shape)

    def _data_start(self, part: WeightFile, name: str) -> int:
        spot = part.spots[name]
        if spot.entry is None:
            return spot.start
        key = (part.source.what, spot.entry)
        if key not in self._entry_starts:
            self._entry_starts[key] = entry_data_start(part.source.read, spot.entry, part.source.what)
        return self._entry_starts[key] + spot.start


def open_weights(checkpoint: Checkpoint) -> Weights:
    """The tensors of a checkpoint, local, cached, or on the hub. Raises: DataError, EnvironmentFailure."""
    if isinstance(checkpoint.location, Folder):
        return _open_folder(str(checkpoint), checkpoint.location.path)
    return open_listed(listing(checkpoint.location.repo, checkpoint.location.revision))


def open_listed(entry: Listing) -> Weights:
    """The tensors of a listed revision; blobs that are already in the cache are read there."""
    parts = []
    tensors = [file for file in entry.weights if not file.path.endswith(".json")]
    guess = HEADER_GUESS if len(tensors) <= 3 else max(4096, 3 * HEADER_GUESS // len(tensors))
    for file in tensors:
        what = f"{entry.repo}@{entry.revision}/{file.path}"
        blob = cache.blob_path(entry, file)
        here = blob if blob.is_file() and blob.stat().st_size == file.size else None
        url = client.file_url(entry.repo, entry.commit, file.path, entry.kind)
        parts.append(_open(Source(what, file.size, here, url), file.path, file, guess))
    return Weights(f"{entry.repo}@{entry.revision}", parts)


def sample_rows(spot: Spot, count: int | None = None, *, blocks: int = 4, vocab: int | None = None) -> np.ndarray:
    """`count` fixed rows of an embedding, in `blocks` runs spread over its first `vocab` rows; the same for every step.

    By default SAMPLE_ROWS, or as many as SAMPLE_BYTES hold where that is fewer (float16: 207 at width 2048, 83 at 5120), so that
    a checkpoint costs at most 1 MB; a `count` that is given is what you get.
    """
    height = min(spot.shape[0], vocab or spot.shape[0])
    affordable = min(SAMPLE_ROWS, SAMPLE_BYTES // max(1, spot.row_bytes)) if count is None else count
    count = max(1, min(affordable, height))
    blocks = min(blocks, count)
    sizes = np.full(blocks, count // blocks)
    sizes[: count % blocks] += 1
    starts = [(height * i) // blocks for i in range(blocks)]
    return np.concatenate([np.arange(start, start + size) for start, size in zip(starts, sizes, strict=True)])


def _open_folder(what: str, folder: Path) -> Weights:
    paths = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not paths:
        raise DataError(f"{what}: {folder} holds no model.safetensors or pytorch_model.bin")
    single = [p for p in paths if p.name in ("model.safetensors", "pytorch_model.bin")]
    return Weights(what, [_open(Source(str(p), p.stat().st_size, p), p.name, None) for p in single or paths])


def _open(source: Source, name: str, file: RemoteFile | None, guess: int = HEADER_GUESS) -> WeightFile:
    key = file.key if file is not None else None
    kept = files.cache_dir() / "hub" / "headers" / f"{key}.json" if key and source.path is None else None
    if kept is not None and kept.is_file():
        value = files.read_json(kept)
        return WeightFile(source, key, {n: Spot(d, tuple(s), at, zipped) for n, (d, s, at, zipped) in value.items()})
    find = safetensors_spots if name.endswith(".safetensors") else torch_spots
    spots = find(source.read, source.size, source.what, guess)
    if kept is not None:
        files.write_json(kept, {n: [s.dtype, list(s.shape), s.start, s.entry] for n, s in spots.items()})
    return WeightFile(source, key, spots)


def _kept_rows_path(key: str, name: str, rows: np.ndarray) -> Path:
    folder = files.cache_dir() / "hub" / "rows"
    short = re.sub(r"[^\w.-]", "_", name)
    return folder / f"{key}--{short}--{files.digest(rows.tolist())[:16]}.npy"


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (ValueError, EOFError) as error:
        path.unlink(missing_ok=True)
        raise DataError(f"{path}: damaged ({error}); it was deleted, run the command again") from error
