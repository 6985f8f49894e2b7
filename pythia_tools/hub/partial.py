"""Parts of a checkpoint: named tensors, or some of their rows, without downloading it.

`open_weights(checkpoint)` reads headers only; `.rows(name, rows)` reads those rows, neighbours in one request.
Local files, cached blobs and the hub (by HTTP range) look alike. What came over the network is kept in the range cache
by the file's digest, so a second look costs nothing and works offline.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools.core import files
from pythia_tools.core.errors import DataError, unknown
from pythia_tools.hub import cache, client, formats
from pythia_tools.hub.formats import HEADER_GUESS, Spot, entry_data_start, safetensors_spots, to_array, torch_spots
from pythia_tools.hub.range_cache import shared_cache
from pythia_tools.hub.repositories import listing
from pythia_tools.suites import Checkpoint, Folder

EMBEDDINGS = ("gpt_neox.embed_in.weight", "model.embed_tokens.weight", "transformer.wte.weight",
              "model.transformer.wte.weight")
SAMPLE_ROWS = 256
NEIGHBOURS = 1024
"""Ranges at most so many bytes apart are read together."""
ENTRY = 256
"""What the header of an entry of a torch file takes at most, padding included."""
WORTH_A_REQUEST = 1 << 20
"""Bytes that come in the time that one more request takes (50 ms at 170 Mbit/s): so little is rather read again."""
SAMPLE_BYTES = 850_000
"""Most bytes of rows that `sample_rows` asks for unless told how many: with headers, at most 1 MB per checkpoint."""


class Source:
    """One weight file, here or on the hub: its bytes, and `spots`, where its tensors lie.

    `key` is the content's name in the range cache; `read_bytes` counts what came over the network.
    """

    def __init__(
        self, place: Path | client.Address, name: str, size: int, what: str, key: str = "", *,
        guess: int = HEADER_GUESS,
    ) -> None:
        self.place, self.size, self.what, self.key, self.read_bytes = place, size, what, key, 0
        find = safetensors_spots if name.endswith(".safetensors") else torch_spots
        self.spots = find(self.read, size, what, guess)

    def read(self, start: int, stop: int) -> bytes:
        """Bytes [start, min(stop, size)). Raises: DataError, EnvironmentFailure."""
        stop = min(stop, self.size)
        if isinstance(self.place, Path):
            with open(self.place, "rb") as handle:
                handle.seek(start)
                return handle.read(stop - start)
        cache, data = shared_cache(), bytearray()
        for a, b, piece in cache.pieces(self.key, start, stop, WORTH_A_REQUEST):
            if piece is None:
                piece = client.read_range(self.place, a, b)
                cache.add(self.key, a, piece)
                self.read_bytes += len(piece)
            data += piece
        return bytes(data)


class Weights:
    """The tensors of a checkpoint, by name; nothing but headers is read until asked for."""

    def __init__(self, what: str, sources: Sequence[Source]) -> None:
        self.what, self.sources = what, list(sources)
        self._where = {name: source for source in sources for name in source.spots}

    @property
    def names(self) -> list[str]:
        return list(self._where)

    @property
    def read_bytes(self) -> int:
        """Bytes that came over the network so far."""
        return sum(source.read_bytes for source in self.sources)

    def spot(self, name: str) -> Spot:
        """dtype and shape of a tensor. Raises: UnknownNameError."""
        if name not in self._where:
            raise unknown(f"tensor of {self.what}", name, self._where)
        return self._where[name].spots[name]

    def embedding(self) -> str | None:
        """The name of the input embedding; None when none is recognised."""
        return next((name for name in EMBEDDINGS if name in self._where), None)

    def tensor(self, name: str) -> np.ndarray:
        """A whole tensor; bfloat16 comes as float32."""
        spot = self.spot(name)
        return self._read(name, 0, spot.bytes, spot.shape)

    def rows(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Rows of a tensor's first dimension, (len(rows), …), as asked; a run of neighbours is one request."""
        spot = self.spot(name)
        wanted = np.asarray(rows, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= spot.shape[0]):
            raise DataError(
                f"{self.what}: rows {wanted.min()} to {wanted.max()} of {name} asked, it has {spot.shape[0]}")
        unique = np.unique(wanted)
        runs = np.split(unique, np.flatnonzero(np.diff(unique) != 1) + 1) if unique.size else []
        width = spot.row_bytes
        blocks = [self._read(name, int(run[0]) * width, len(run) * width, (len(run), *spot.shape[1:])) for run in runs]
        sorted_rows = np.concatenate(blocks) if blocks else np.empty((0, *spot.shape[1:]), dtype=np.float32)
        return sorted_rows[np.searchsorted(unique, wanted)]

    def heads(self, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
        """The first values of several tensors, flat; what lies side by side in a file comes in one request."""
        spots = {name: self.spot(name) for name in counts}
        wanted = {n: min(count * formats.ITEM_BYTES[spots[n].dtype], spots[n].bytes) for n, count in counts.items()}
        for source in self.sources:  # what is read here waits in the range cache
            ends = sorted((s.start, s.start + wanted[n]) if s.entry is None else (s.entry, s.entry + ENTRY + wanted[n])
                          for n, s in spots.items() if self._where[n] is source)
            while ends and not isinstance(source.place, Path):
                start, stop = ends.pop(0)
                while ends and ends[0][0] - stop <= NEIGHBOURS:
                    stop = max(stop, ends.pop(0)[1])
                source.read(start, stop)
        return {n: self._read(n, 0, size, (size // formats.ITEM_BYTES[spots[n].dtype],)) for n, size in wanted.items()}

    def _read(self, name: str, offset: int, count: int, shape: tuple[int, ...]) -> np.ndarray:
        source, spot = self._where[name], self.spot(name)
        start = spot.start + offset
        if spot.entry is not None:
            start += entry_data_start(source.read, spot.entry, source.what)
        data = source.read(start, start + count)
        if len(data) != count:
            raise DataError(f"{source.what}: {name} ends before byte {start + count}; the file is cut short")
        return to_array(data, spot.dtype, shape)


def open_weights(checkpoint: Checkpoint) -> Weights:
    """The tensors of a checkpoint, local, cached, or on the hub. Raises: DataError, EnvironmentFailure."""
    if isinstance(checkpoint.location, Folder):
        return _open_folder(str(checkpoint), checkpoint.location.path)
    entry, sources = listing(checkpoint.location.repo, checkpoint.location.revision), []
    count = len(entry.tensor_files)
    guess = HEADER_GUESS if count <= 3 else max(4096, 3 * HEADER_GUESS // count)
    for file in entry.tensor_files:  # those whose blobs are in the hub cache are read there
        blob, address = cache.blob_path(entry, file), entry.address(file)
        place = blob if cache.is_whole(entry, file) else address
        sources.append(Source(place, file.path, file.size, address.what, file.key, guess=guess))
    return Weights(f"{entry.repo}@{entry.revision}", sources)


def read_config(checkpoint: Checkpoint) -> tuple[dict[str, Any], int]:
    """A checkpoint's config.json, and how many bytes came over the network. Raises: DataError, EnvironmentFailure."""
    if isinstance(checkpoint.location, Folder):
        return files.read_json(checkpoint.location.path / "config.json"), 0
    entry, read = listing(checkpoint.location.repo, checkpoint.location.revision), []
    file = entry.file("config.json")
    if file is None:
        raise DataError(f"{entry.repo}@{entry.revision}: no config.json; the checkpoint is incomplete on the hub")

    def fetch() -> bytes:
        read.append(file.size)
        return client.read_range(entry.address(file), 0, file.size)

    kept = cache.blob_path(entry, file) if cache.is_whole(entry, file) else None
    data = shared_cache().get_or_add(file.key, fetch) if kept is None else kept.read_bytes()
    try:
        return json.loads(data), sum(read)
    except ValueError as error:
        raise DataError(f"{entry.repo}@{entry.revision}: config.json is damaged ({error})") from error


def sample_rows(spot: Spot, count: int | None = None, *, blocks: int = 4, vocab: int | None = None) -> np.ndarray:
    """`count` fixed rows of an embedding, in `blocks` runs spread over its first `vocab` rows; the same for every step.

    By default SAMPLE_ROWS, or as many as SAMPLE_BYTES hold where that is fewer (float16: 207 at width 2048, 83 at
    5120), so that a checkpoint costs at most 1 MB; a `count` that is given is what you get.
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
    return Weights(what, [Source(p, p.name, p.stat().st_size, str(p)) for p in single or paths])
