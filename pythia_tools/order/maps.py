"""The three index maps that turn a list of documents into a training order, bit for bit GPT-NeoX v1.0's.

    doc_idx      (e*n,) int32        e copies of the documents, shuffled as one array
    sample_idx   (N+1, 2) int32      where each row starts in that stream: (slot of doc_idx, token offset)
    shuffle_idx  (N,) uint32         row i of the training order is row shuffle_idx[i] of the stream

Row k of the stream is positions k*L … k*L+L, so neighbours share one token. N = (e*T - 1) // L for T tokens per epoch,
and e is the least number of epochs that gives `num_samples` rows. With e = 2 the copies are mixed through the whole run;
Megatron-LM instead shuffles the last epoch apart when little of it is needed (`separate_last_epoch`).

Cost: memory is the maps themselves plus `sizes`; see scripts/benchmarks/order.py for times.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np

from pythia_tools.core.errors import RequestError

MAX_INT32 = np.iinfo(np.int32).max


class IndexMaps(NamedTuple):
    """`doc_idx`, `sample_idx`, `shuffle_idx` of one order."""

    doc_idx: np.ndarray
    sample_idx: np.ndarray
    shuffle_idx: np.ndarray


class Plan(NamedTuple):
    """How much an order packs: tokens per epoch, epochs, rows."""

    tokens_per_epoch: int
    epochs: int
    rows: int


def plan_epochs(tokens_per_epoch: int, seq_length: int, num_samples: int) -> Plan:
    """The least number of epochs whose tokens make `num_samples` rows.

    Raises: RequestError when there are no tokens, or seq_length or num_samples is not positive.
    """
    if seq_length < 1:
        raise RequestError(f"seq_length must be at least 1, not {seq_length}")
    if num_samples < 1:
        raise RequestError(f"num_samples must be at least 1, not {num_samples}")
    if tokens_per_epoch < 1:
        raise RequestError("the documents hold no tokens; no order can be built from them")
    epochs = -(-(num_samples * seq_length + 1) // tokens_per_epoch)
    return Plan(tokens_per_epoch, epochs, (epochs * tokens_per_epoch - 1) // seq_length)


def check_sizes(sizes: Any) -> np.ndarray:
    """`sizes` as (n,) int32. Raises RequestError for lengths that are not whole, negative, or beyond int32."""
    values = np.asarray(sizes)
    if values.ndim != 1 or values.size == 0:
        raise RequestError(f"sizes must be a non-empty list of document lengths, this has shape {values.shape}")
    if values.dtype.kind not in "ui":
        raise RequestError(f"sizes must be whole numbers, these are {values.dtype}")
    if int(values.min()) < 0 or int(values.max()) > MAX_INT32:
        raise RequestError(f"document lengths must be 0 to {MAX_INT32} (int32), these go from {values.min()} to {values.max()}")
    return np.ascontiguousarray(values, dtype=np.int32)


def check_documents(documents: Any, count: int) -> np.ndarray | None:
    """`documents` as (m,) int32 numbers below `count`; None stays None and means all. Raises RequestError."""
    if count > MAX_INT32:
        raise RequestError(f"{count} documents; the maps number them in int32, at most {MAX_INT32}")
    if documents is None:
        return None
    values = np.asarray(documents)
    if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "ui":
        raise RequestError("documents must be a non-empty list of document numbers")
    if int(values.min()) < 0 or int(values.max()) >= count:
        raise RequestError(f"document numbers must be 0 to {count - 1}, these go from {values.min()} to {values.max()}")
    return values.astype(np.int32)


def build_index_maps(
    sizes: Any, seq_length: int, seed: int, num_samples: int, documents: Any = None, *, separate_last_epoch: bool = False,
) -> IndexMaps:
    """Build the maps GPT-NeoX v1.0 would build.

    `sizes` (n,) tokens of each document; `documents` the numbers to use (default all, in order); `num_samples` the rows
    the run asks for (Pythia: 147,164,160); `separate_last_epoch` gives Megatron-LM's variant instead.
    Raises: RequestError for sizes beyond int32, no tokens, a seed outside [0, 2**32).
    """
    from pythia_tools.order.maps_kernels import sample_index

    sizes = check_sizes(sizes)
    documents = check_documents(documents, sizes.size)
    count = sizes.size if documents is None else documents.size
    plan = plan_epochs(int((sizes if documents is None else sizes[documents]).sum(dtype=np.int64)), seq_length, num_samples)
    if plan.epochs * count > MAX_INT32:
        raise RequestError(f"{plan.epochs} epochs of {count} documents pass int32; ask for fewer samples")
    first = _rows_before_last_epoch(plan, seq_length, num_samples) if separate_last_epoch else None
    shuffler = _shuffler(seed)
    doc_idx = _shuffled_documents(count, documents, plan.epochs, shuffler, apart=first is not None)
    sample_idx = np.empty((plan.rows + 1, 2), dtype=np.int32)
    walk = threading.Thread(target=sample_index, args=(sizes, doc_idx, seq_length, plan.rows, sample_idx))
    walk.start()  # the rows' shuffle needs the generator, not the walk, so the two go on side by side
    shuffle_idx = _shuffled_rows(plan.rows, first, shuffler)
    walk.join()
    return IndexMaps(doc_idx, sample_idx, shuffle_idx)


def rebuild_shuffles(n_documents: int, epochs: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(doc_idx, shuffle_idx) of an order over all documents, without their sizes.

    The shuffles depend on counts alone, so a damaged published shuffle map can be made again, and the doc map that comes
    with it compared with the published one.
    """
    shuffler = _shuffler(seed)
    doc_idx = _shuffled_documents(n_documents, None, epochs, shuffler, apart=False)
    return doc_idx, _shuffled_rows(rows, None, shuffler)


def _shuffler(seed: int) -> Any:
    from pythia_tools.order.shuffle import LegacyShuffler

    try:
        return LegacyShuffler(seed)
    except (ValueError, TypeError) as error:
        raise RequestError(f"seed must be a whole number from 0 to {2**32 - 1}, not {seed!r}") from error


def _rows_before_last_epoch(plan: Plan, seq_length: int, num_samples: int) -> int | None:
    """Megatron-LM's rule: the last epoch stands apart when less than 80 % of it is needed; None when it does not."""
    if plan.epochs == 1:
        return None
    before = ((plan.epochs - 1) * plan.tokens_per_epoch - 1) // seq_length
    per_epoch = (plan.tokens_per_epoch - 1) // seq_length
    return before if num_samples - before < int(0.80 * per_epoch) else None


def _shuffled_documents(count: int, documents: np.ndarray | None, epochs: int, shuffler: Any, *, apart: bool) -> np.ndarray:
    doc_idx = np.empty(epochs * count, dtype=np.int32)
    doc_idx.reshape(epochs, count)[:] = np.arange(count, dtype=np.int32) if documents is None else documents
    if apart:
        shuffler.shuffle(doc_idx[: (epochs - 1) * count])
        shuffler.shuffle(doc_idx[(epochs - 1) * count :])
    else:
        shuffler.shuffle(doc_idx)
    return doc_idx


def _shuffled_rows(rows: int, first: int | None, shuffler: Any) -> np.ndarray:
    shuffle_idx = np.arange(rows, dtype=np.uint32 if rows < np.iinfo(np.uint32).max - 1 else np.int64)
    if first is None:
        shuffler.shuffle(shuffle_idx)
    else:
        shuffler.shuffle(shuffle_idx[:first])
        shuffler.shuffle(shuffle_idx[first:])
    return shuffle_idx
