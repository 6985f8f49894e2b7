"""Hidden states to log-probabilities: the one place where logits become losses, ranks and entropies.

For a row of L + 1 ids, position t (0 … L−1) is the prediction of id t + 1 from ids 0 … t:
nll = −log p(true id) in nats, rank = number of vocabulary items with a strictly larger logit (0: greedy decoding finds
the true id, ties aside), entropy = −Σ p log p in nats (surprisal, rank and entropy as in memorization profiles).

Cost: one forward pass per row. Logits are made for a few positions at a time, never for a whole batch, so memory does
not grow with the vocabulary. Softmax arithmetic is float32 whatever the model's format.
"""

import hashlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pythia_tools.core.errors import RequestError
from pythia_tools.models.devices import inference_mode

LOGIT_BYTES = 64 << 20
FIRST = "last_hidden_state"
_plain_heads: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


class Scores(NamedTuple):
    """Arrays of shape (n, L). nll and entropy: float32, nats; rank: int32; spread, where asked for: float32, nats.

    `spread` is the standard deviation of log p under the model's own distribution.
    Where the logits held NaN or Inf: NaN, −1 for the rank.
    """

    nll: np.ndarray
    rank: np.ndarray
    entropy: np.ndarray
    spread: np.ndarray | None = None


@inference_mode
def score_rows(
    model: nn.Module, rows: npt.ArrayLike, batch_size: int | None = None, *,
    vocabulary: int | None = None, spread: bool = False,
) -> Scores:
    """Score every position of `rows` (integer array (n, L + 1)) under a live model; see the module's first lines.

    `vocabulary`: score among the first so many ids only (those the tokenizer has; the rest are padding).
    `batch_size`: rows per forward pass; None chooses one that fits the memory, halved when an accelerator runs out.
    Raises: RequestError for rows that are no integer array of two dimensions, too short, or hold unknown ids.
    """
    rows = check_rows(rows)
    if rows.size:
        check_ids(model, int(rows.min()), int(rows.max()), vocabulary)
    shape = rows.shape[0], rows.shape[1] - 1
    result = [np.empty(shape, np.int32 if k == 1 else np.float32) for k in range(4 if spread else 3)]

    def batch(here: slice) -> None:
        ids = torch.from_numpy(rows[here].astype(np.int64)).to(device_of(model))
        targets = ids[:, 1:].reshape(-1)
        blocks = [_statistics(logits, targets[places], spread)
                  for places, logits in position_logits(model, ids[:, :-1], vocabulary=vocabulary)]
        for whole, parts in zip(result, zip(*blocks, strict=True), strict=True):
            whole[here] = torch.cat(parts).reshape(-1, shape[1]).cpu().numpy()

    in_batches(len(rows), batch_size or automatic_batch_size(model, shape[1]), batch)
    return Scores(*result)


def _statistics(logits: torch.Tensor, targets: torch.Tensor, spread: bool) -> list[torch.Tensor]:
    true = logits.gather(1, targets[:, None])
    rank = (logits > true).sum(1, dtype=torch.int32)
    total = torch.logsumexp(logits, 1, keepdim=True)
    shares = (logits - total).exp_()
    # Σ p·logit with p of exactly 0 kept out of 0 × large
    mean = torch.einsum("pv,pv->p", shares, logits)
    entropy = (total[:, 0] - mean).clamp_min_(0)
    nll = total[:, 0] - true[:, 0]
    found = [nll, rank, entropy]
    if spread:
        found.append(torch.einsum("pv,pv->p", shares, (logits - mean[:, None]).square_()).sqrt_())
    bad = ~(torch.isfinite(mean) & torch.isfinite(nll))
    return [values.masked_fill(bad, -1 if values is rank else torch.nan) for values in found]


def position_logits(
    model: nn.Module, ids: torch.Tensor, places: torch.Tensor | None = None, *, vocabulary: int | None = None,
    **inputs: torch.Tensor,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Float32 logits (block, vocabulary) after the ids (b, T), for LOGIT_BYTES of positions at a time.

    `places` (p,): the positions wanted, numbered through the flattened ids; None for all. Each slice counts in these.
    `inputs`: further arguments of the forward pass (attention mask, position ids).
    """
    live: Any = model
    if has_plain_head(model):
        states, head = live.base_model(input_ids=ids, use_cache=False, **inputs)[0], live.get_output_embeddings()
    else:
        states, head = live(input_ids=ids, use_cache=False, **inputs).logits, nn.Identity()
    states = states.reshape(-1, states.shape[-1])  # 2-D and contiguous: the head on a 3-D slice is slow in bfloat16
    if places is not None:
        states = states[places]
    step = max(1, LOGIT_BYTES // (4 * vocabulary_size(model)))
    for start in range(0, len(states), step):
        yield slice(start, start + step), head(states[start:start + step])[:, :vocabulary].float()


def position_logprobs(
    model: nn.Module, ids: torch.Tensor, places: torch.Tensor | None = None, *, vocabulary: int | None = None
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Natural log-probabilities (block, vocabulary) as `position_logits` gives logits; NaN where a logit is not finite.
    """
    for block, logits in position_logits(model, ids, places, vocabulary=vocabulary):
        yield block, torch.log_softmax(logits, 1).masked_fill_(~torch.isfinite(logits).all(1, keepdim=True), torch.nan)


def in_batches(n: int, size: int, run: Callable[[slice], None]) -> None:
    """Call `run` on consecutive slices of 0 … n − 1; after an accelerator's out-of-memory error on slices half as
    long.
    """
    start = 0
    while start < n:
        try:
            run(slice(start, min(start + size, n)))
        except torch.cuda.OutOfMemoryError:
            if size == 1:
                raise
            torch.cuda.empty_cache()
            size = max(1, size // 2)
        else:
            start += size


def check_rows(rows: npt.ArrayLike) -> np.ndarray:
    """Rows as a C-contiguous integer array (n, L + 1). Raises RequestError saying what came."""
    array = np.asarray(rows)
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise RequestError(f"rows must be integers of shape (n, L + 1); these are {array.dtype} of shape {array.shape}")
    if array.shape[1] < 2:
        raise RequestError(f"rows of {array.shape[1]} token have no position to score; at least 2 are needed")
    return np.ascontiguousarray(array)


def rows_digest(rows: np.ndarray | Sequence[Sequence[int]]) -> str:
    """sha256 of the ids and their shape, whatever integer type they come in; rows may differ in length."""
    if isinstance(rows, np.ndarray) and rows.ndim == 2:
        sha = hashlib.sha256(str(rows.shape).encode())
        sha.update(np.ascontiguousarray(rows, dtype="<i8").tobytes())
        return sha.hexdigest()
    sha = hashlib.sha256()
    for row in rows:
        sha.update(len(row).to_bytes(8, "little") + np.asarray(row, dtype="<i8").tobytes())
    return sha.hexdigest()


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device


def vocabulary_size(model: nn.Module) -> int:
    """The number of logits (the padded vocabulary)."""
    live: Any = model
    head = live.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return int(head.weight.shape[0]) if head is not None else int(live.config.vocab_size)


def max_positions(model: nn.Module) -> int:
    """Positions the model was built for; 2³⁰ where its config names none."""
    return int(getattr(model.config, "max_position_embeddings", None) or 1 << 30)


def check_ids(model: nn.Module, lowest: int, highest: int, vocabulary: int | None = None) -> None:
    """Raises RequestError when texts hold an id that the model, or the `vocabulary` asked for, does not have."""
    size = min(vocabulary or 1 << 62, vocabulary_size(model))
    if not 0 <= lowest <= highest < size:
        bad = highest if highest >= size else lowest
        raise RequestError(
            f"a text holds token id {bad}, the vocabulary has ids 0 to {size - 1}; is this the model's own tokenizer?"
        )


def automatic_batch_size(model: nn.Module, length: int) -> int:
    """Rows per forward pass: about 4,096 tokens on the CPU, where more gains nothing; by free memory on a GPU.

    A token costs its activations in one layer and its keys and values in all of them.
    """
    weight = next(model.parameters())
    if weight.device.type != "cuda":
        return max(1, 4096 // max(1, length))
    config: Any = model.config
    width, layers = int(getattr(config, "hidden_size", 1024)), int(getattr(config, "num_hidden_layers", 24))
    per_token = (48 + 2 * layers) * width * weight.element_size()
    tokens = min(131_072, int(torch.cuda.mem_get_info(weight.device)[0] * 0.3 / per_token))
    return max(1, tokens // max(1, length))


def has_plain_head(model: nn.Module) -> bool:
    """Whether logits are just the output embedding of the base model's last state, tried once per live module."""
    if model not in _plain_heads:
        _plain_heads[model] = _try_plain_head(model)
    return _plain_heads[model]


@torch.no_grad()
def _try_plain_head(model: nn.Module) -> bool:
    """Tried on states so large that a scale of the logits, or a cap on them, shows whatever weights are there now."""
    live: Any = model
    head = live.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    base = getattr(live, "base_model", None)
    if head is None or base is None or base is model:
        return False
    ids = torch.arange(2, device=device_of(model))[None]
    states = base(input_ids=ids, use_cache=False)[0]
    largest = float(head(states).abs().max())
    if not 0 < largest < torch.inf:
        return False
    states = states * (100 / largest)

    def enlarged(module: nn.Module, inputs: Any, output: Any) -> Any:
        return (states, *output[1:]) if isinstance(output, tuple) else type(output)(**{**output, FIRST: states})

    hook = base.register_forward_hook(enlarged)
    try:
        whole = live(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
    split = head(states)
    return whole.shape == split.shape and torch.allclose(whole.float(), split.float(), rtol=1e-3, atol=1e-3)
