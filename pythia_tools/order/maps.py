"""The three index maps that turn a list of documents into a training order, bit for bit GPT-NeoX v1.0's.

    doc_idx      (e*n,) int32        e copies of the documents, shuffled as one array
    sample_idx   (N+1, 2) int32      where each row starts in that stream: (slot of doc_idx, token offset)
    shuffle_idx  (N,) uint32         row i of the training order is row shuffle_idx[i] of the stream

Row k of the stream is positions k*L … k*L+L, so neighbours share one token. N = (e*T - 1) // L for T tokens per epoch,
and e is the least number of epochs that gives `num_samples` rows. With e = 2 the copies are mixed through the whole
run; Megatron-LM instead shuffles the last epoch apart when little of it is needed (`separate_last_epoch`).

Cost: memory is the maps themselves plus `sizes`; see scripts/benchmarks/order.py for times.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from pythia_tools.core import files
from pythia_tools.core.errors import RequestError

if TYPE_CHECKING:
    from pythia_tools.order.shuffle_kernels import LegacyShuffler

MAX_INT32 = np.iinfo(np.int32).max


class IndexMaps(NamedTuple):
    """`doc_idx`, `sample_idx`, `shuffle_idx` of one order."""

    doc_idx: np.ndarray
    sample_idx: np.ndarray
    shuffle_idx: np.ndarray


def plan_epochs(tokens_per_epoch: int, seq_length: int, num_samples: int) -> tuple[int, int]:
    """(epochs, rows): the least number of epochs whose tokens make `num_samples` rows, and the rows they make.

    Raises: RequestError when there are no tokens, or seq_length or num_samples is not positive.
    """
    if seq_length < 1:
        raise RequestError(f"seq_length must be at least 1, not {seq_length}")
    if num_samples < 1:
        raise RequestError(f"num_samples must be at least 1, not {num_samples}")
    if tokens_per_epoch < 1:
        raise RequestError("the documents hold no tokens; no order can be built from them")
    epochs = -(-(num_samples * seq_length + 1) // tokens_per_epoch)
    return epochs, (epochs * tokens_per_epoch - 1) // seq_length


def build_index_maps(
    sizes: npt.ArrayLike, seq_length: int, seed: int, num_samples: int, documents: npt.ArrayLike | None = None, *,
    separate_last_epoch: bool = False,
) -> IndexMaps:
    """Build the maps GPT-NeoX v1.0 would build.

    `sizes` (n,) tokens of each document; `documents` the numbers to use (default all, in order); `num_samples` the rows
    the run asks for (Pythia: 147,164,160); `separate_last_epoch` gives Megatron-LM's variant instead.
    Raises: RequestError for sizes beyond int32, no tokens, a seed outside [0, 2**32); EnvironmentFailure when the maps
    do not fit into memory.
    """
    from pythia_tools.order.maps_kernels import sample_index

    sizes = _whole_numbers(sizes, "document lengths", MAX_INT32)
    if sizes.size > MAX_INT32:
        raise RequestError(f"{sizes.size} documents; the maps number them in int32, at most {MAX_INT32}")
    chosen = np.arange(sizes.size, dtype=np.int32)
    if documents is not None:
        chosen = _whole_numbers(documents, "document numbers", sizes.size - 1)
    tokens = int((sizes if documents is None else sizes[chosen]).sum(dtype=np.int64))
    epochs, rows = plan_epochs(tokens, seq_length, num_samples)
    if epochs * chosen.size > MAX_INT32:
        raise RequestError(f"{epochs} epochs of {chosen.size} documents pass int32; ask for fewer samples")
    files.require_memory(4 * epochs * chosen.size + 12 * rows, f"index maps of {rows} rows")
    before = _rows_before_last_epoch(tokens, epochs, seq_length, num_samples) if separate_last_epoch else None
    shuffler = _shuffler(seed)
    doc_idx = np.tile(chosen, epochs)
    cut = None if before is None else (epochs - 1) * chosen.size
    del chosen  # as large as `sizes`, and not needed while the other maps are built
    _shuffled(doc_idx, cut, shuffler)
    sample_idx = np.empty((rows + 1, 2), dtype=np.int32)
    walk = threading.Thread(target=sample_index, args=(sizes, doc_idx, seq_length, rows, sample_idx))
    walk.start()  # the rows' shuffle needs the generator, not the walk, so the two run side by side
    shuffle_idx = _shuffled(_row_numbers(rows), before, shuffler)
    walk.join()
    return IndexMaps(doc_idx, sample_idx, shuffle_idx)


def rebuild_shuffles(n_documents: int, epochs: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(doc_idx, shuffle_idx) of an order over all documents, without their sizes.

    The shuffles depend on counts alone, so a damaged published shuffle map can be made again, and the doc map that
    comes with it compared with the published one.
    """
    shuffler = _shuffler(seed)
    doc_idx = _shuffled(np.tile(np.arange(n_documents, dtype=np.int32), epochs), None, shuffler)
    return doc_idx, _shuffled(_row_numbers(rows), None, shuffler)


def _whole_numbers(values: npt.ArrayLike, what: str, most: int) -> np.ndarray:
    """A non-empty list of numbers from 0 to `most`, as (n,) int32."""
    given = np.asarray(values)
    if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "ui":
        raise RequestError(
            f"{what} must be a non-empty list of whole numbers, this is {given.dtype} of shape {given.shape}"
        )
    if int(given.min()) < 0 or int(given.max()) > most:
        raise RequestError(f"{what} must be 0 to {most} (int32), these go from {given.min()} to {given.max()}")
    return np.ascontiguousarray(given, dtype=np.int32)


def _shuffler(seed: int) -> LegacyShuffler:
    from pythia_tools.order.shuffle_kernels import LegacyShuffler

    try:
        return LegacyShuffler(seed)
    except (ValueError, TypeError) as error:
        raise RequestError(f"seed must be a whole number from 0 to {2**32 - 1}, not {seed!r}") from error


def _rows_before_last_epoch(tokens: int, epochs: int, seq_length: int, num_samples: int) -> int | None:
    """Megatron-LM's rule: the last epoch stands apart when less than 80 % of it is needed; None when it does not."""
    if epochs == 1:
        return None
    before = ((epochs - 1) * tokens - 1) // seq_length
    per_epoch = (tokens - 1) // seq_length
    return before if num_samples - before < int(0.80 * per_epoch) else None


def _row_numbers(rows: int) -> np.ndarray:
    return np.arange(rows, dtype=np.uint32 if rows < np.iinfo(np.uint32).max - 1 else np.int64)


def _shuffled(values: np.ndarray, cut: int | None, shuffler: LegacyShuffler) -> np.ndarray:
    """`values` shuffled in place as one array, or the part before `cut` and the part after it each by itself."""
    for part in (values,) if cut is None else (values[:cut], values[cut:]):
        shuffler.shuffle(part)
    return values
