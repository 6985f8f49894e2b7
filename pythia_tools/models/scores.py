"""What a model makes of each token of a row: negative log-likelihood, rank and entropy; the primitive of many analyses.

For a row of L + 1 ids, position t (0 … L−1) is the prediction of id t + 1 from ids 0 … t:
nll = −log p(true id) in nats, rank = number of vocabulary items with a strictly larger logit (0: greedy decoding finds
the true id, ties aside), entropy = −Σ p log p in nats (surprisal, rank and entropy as in memorization profiles).

Cost: one forward pass per row. Logits are made for a few positions at a time, never for a whole batch, so memory does not
grow with the vocabulary. Softmax arithmetic is float32 whatever the model's format.
"""

from __future__ import annotations

import hashlib
import weakref
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from pythia_tools.core.errors import RequestError
from pythia_tools.models.devices import plain_products

LOGIT_BYTES = 64 << 20
_plain_heads: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


class Scores(NamedTuple):
    """Arrays of shape (n, L). nll and entropy: float32, nats; rank: int32.

    Where the logits held NaN or Inf: NaN, −1 and NaN.
    """

    nll: np.ndarray
    rank: np.ndarray
    entropy: np.ndarray


def score_rows(model: nn.Module, rows: Any, batch_size: int | None = None, *, vocabulary: int | None = None) -> Scores:
    """Score every position of `rows` (integer array (n, L + 1)) under a live model; see the module's first lines.

    `vocabulary`: score among the first so many ids only (those the tokenizer has; the rest are padding).
    `batch_size`: rows per forward pass; None chooses one that fits the memory, halved when an accelerator runs out.
    Raises: RequestError for rows that are no such array, too short, or hold ids the model does not have.
    """
    rows = check_rows(rows)
    size = int(vocabulary or vocabulary_size(model))
    if rows.size and (rows.max() >= size or rows.min() < 0):
        bad = int(rows.max() if rows.max() >= size else rows.min())
        raise RequestError(f"rows hold token id {bad}, the vocabulary has ids 0 to {size - 1}; are they from another tokenizer?")
    n, length = rows.shape[0], rows.shape[1] - 1
    result = Scores(np.empty((n, length), np.float32), np.empty((n, length), np.int32), np.empty((n, length), np.float32))
    step = batch_size or automatic_batch_size(model, length)
    start = 0
    while start < n:
        try:
            with plain_products(next(model.parameters()).device):
                batch = _score_batch(model, rows[start:start + step], vocabulary)
        except torch.cuda.OutOfMemoryError:
            if step == 1:
                raise
            torch.cuda.empty_cache()
            step = max(1, step // 2)
            continue
        for whole, part in zip(result, batch, strict=True):
            whole[start:start + step] = part
        start += step
    return result


def check_rows(rows: Any) -> np.ndarray:
    """Rows as a C-contiguous integer array (n, L + 1). Raises RequestError saying what came."""
    array = np.asarray(rows)
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise RequestError(f"rows must be integers of shape (n, L + 1); these are {array.dtype} of shape {array.shape}")
    if array.shape[1] < 2:
        raise RequestError(f"rows of {array.shape[1]} token have no position to score; at least 2 are needed")
    return np.ascontiguousarray(array)


def rows_digest(rows: np.ndarray) -> str:
    """sha256 of the ids and their shape, whatever integer type they come in."""
    sha = hashlib.sha256(str(rows.shape).encode())
    sha.update(np.ascontiguousarray(rows, dtype="<i8").tobytes())
    return sha.hexdigest()


def vocabulary_size(model: Any) -> int:
    """The number of logits (the padded vocabulary)."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return int(head.weight.shape[0]) if head is not None else int(model.config.vocab_size)


def automatic_batch_size(model: nn.Module, length: int) -> int:
    """Rows per forward pass: about 4,096 tokens on the CPU, where more gains nothing; by free memory on a GPU."""
    if next(model.parameters()).device.type != "cuda":
        return max(1, 4096 // max(1, length))
    config: Any = model.config
    width = int(getattr(config, "hidden_size", 1024))
    per_token = 48 * width * next(model.parameters()).element_size()
    tokens = min(131_072, int(torch.cuda.mem_get_info()[0] * 0.3 / per_token))
    return max(1, tokens // max(1, length))


@torch.no_grad()
def _score_batch(model: Any, rows: np.ndarray, vocabulary: int | None) -> Scores:
    device = next(model.parameters()).device
    ids = torch.from_numpy(rows.astype(np.int64)).to(device)
    targets = ids[:, 1:].reshape(-1)
    if has_plain_head(model):
        hidden = model.base_model(input_ids=ids[:, :-1], use_cache=False)[0]
        hidden = hidden.reshape(-1, hidden.shape[-1])  # 2-D and contiguous: the head on a 3-D slice is slow in bfloat16
        head: Any = model.get_output_embeddings()
        step = max(1, LOGIT_BYTES // (4 * head.weight.shape[0]))
        parts = [_score_logits(head(hidden[i:i + step]), targets[i:i + step], vocabulary) for i in range(0, len(hidden), step)]
    else:
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        logits = logits.reshape(-1, logits.shape[-1])
        step = max(1, LOGIT_BYTES // (4 * logits.shape[-1]))
        parts = [_score_logits(logits[i:i + step], targets[i:i + step], vocabulary) for i in range(0, len(logits), step)]
    shape = (rows.shape[0], rows.shape[1] - 1)
    nll, rank, entropy = (torch.cat(column).reshape(shape).cpu().numpy() for column in zip(*parts, strict=True))
    return Scores(nll, rank, entropy)


def _score_logits(logits: torch.Tensor, targets: torch.Tensor, vocabulary: int | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logits = logits[:, :vocabulary].float()
    true = logits.gather(1, targets[:, None])
    rank = (logits > true).sum(1, dtype=torch.int32)
    total = torch.logsumexp(logits, 1, keepdim=True)
    shares = (logits - total).exp_()
    # Σ p·logit with p of exactly 0 kept out of 0 × large
    mean = torch.einsum("pv,pv->p", shares, logits)
    entropy = (total[:, 0] - mean).clamp_min_(0)
    nll = total[:, 0] - true[:, 0]
    bad = ~(torch.isfinite(mean) & torch.isfinite(nll))
    nan = torch.nan
    return nll.masked_fill(bad, nan), rank.masked_fill(bad, -1), entropy.masked_fill(bad, nan)


@torch.no_grad()
def has_plain_head(model: nn.Module) -> bool:
    """Whether logits are just the output embedding of the base model's last state, tried once per live module."""
    known = _plain_heads.get(model)
    if known is None:
        known = _plain_heads[model] = _try_plain_head(model)
    return known


def _try_plain_head(model: Any) -> bool:
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    base = getattr(model, "base_model", None)
    if head is None or base is None or base is model:
        return False
    ids = torch.arange(2, device=next(model.parameters()).device)[None]
    whole = model(input_ids=ids, use_cache=False).logits
    split = head(base(input_ids=ids, use_cache=False)[0])
    return whole.shape == split.shape and torch.allclose(whole.float(), split.float(), rtol=1e-3, atol=1e-5, equal_nan=True)
