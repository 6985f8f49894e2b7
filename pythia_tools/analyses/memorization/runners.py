"""What turns token ids into verdicts: a model with its key/value cache, fed a few positions at a time.

`NeoXRunner` walks a GPT-NeoX model's own layers, so that the last layer's MLP and attention run only at the positions
that are judged (an eighth of the work at 70M shape) and the unembedding never holds all logits. `GeneralRunner` uses the forward pass
of any transformers causal model. Both give the model's own numbers up to the order of summation.
Cost: the forward pass over the new tokens; memory: the cache of one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any, ParamSpec, Protocol, TypeVar

import torch
from torch import nn

from pythia_tools.analyses.memorization import bounded
from pythia_tools.analyses.memorization.head import Verdict, judge, judge_logits
from pythia_tools.models.devices import plain_products

P = ParamSpec("P")
R = TypeVar("R")


class Cache(Protocol):
    """Keys and values of the tokens fed so far, for one batch."""

    def select(self, index: torch.Tensor) -> Cache:
        """The cache of the rows at `index` only."""


class Runner(Protocol):
    """`feed` takes ids (n, t) that follow what the cache holds, and true ids (n, p) of the tokens after the last p of them."""

    vocabulary: int
    device: torch.device

    def feed(self, ids: torch.Tensor, truth: torch.Tensor, cache: Any) -> tuple[Verdict, Any]:
        """Verdict (n, p) and the cache with `ids` added. `cache` None starts a new batch."""


def exactly(function: Callable[P, R]) -> Callable[P, R]:
    """For functions of a live model: no gradients, and products in the model's own number format."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        model: Any = args[0] if args else kwargs["model"]
        with torch.inference_mode(), plain_products(next(model.parameters()).device):
            return function(*args, **kwargs)

    return run


def runner(model: nn.Module, vocabulary: int | None = None) -> Runner:
    """The fastest runner for a causal language model in eval mode. `vocabulary` limits the argmax to ids below it."""
    if getattr(getattr(model, "config", None), "model_type", "") == "gpt_neox" and hasattr(model, "gpt_neox"):
        return NeoXRunner(model, vocabulary)
    return GeneralRunner(model, vocabulary)


@dataclass
class NeoXCache:
    """One (keys, values) pair per layer, each (n, heads, tokens, head size)."""

    layers: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    length: int = 0

    def select(self, index: torch.Tensor) -> NeoXCache:
        return NeoXCache([(k[index], v[index]) for k, v in self.layers], self.length)


class NeoXRunner:
    """A GPTNeoXForCausalLM, layer by layer."""

    def __init__(self, model: nn.Module, vocabulary: int | None = None):
        self.body: Any = model.gpt_neox
        head: Any = model.get_output_embeddings()  # type: ignore[operator]
        self.vocabulary = min(vocabulary or head.weight.shape[0], head.weight.shape[0])
        self.weight = head.weight.detach()[: self.vocabulary]
        self.bias = None if head.bias is None else head.bias.detach()[: self.vocabulary]
        self.device = self.weight.device
        self.bounded = bounded.helps(self.weight, self.bias)

    def feed(self, ids: torch.Tensor, truth: torch.Tensor, cache: NeoXCache | None) -> tuple[Verdict, NeoXCache]:
        cache = cache or NeoXCache()
        hidden, grown = self._body(ids, truth.shape[1], cache)
        return self._judge(hidden.reshape(-1, hidden.shape[-1]), truth.reshape(-1)).reshape(*truth.shape), grown

    def _judge(self, hidden: torch.Tensor, truth: torch.Tensor) -> Verdict:
        if self.bounded and len(hidden) >= bounded.FEWEST:
            return self._bounded_head.judge(hidden, truth)
        return judge(hidden, self.weight, truth, self.bias)

    @cached_property
    def _bounded_head(self) -> bounded.BoundedHead:
        return bounded.BoundedHead(self.weight)

    def _body(self, ids: torch.Tensor, last: int, cache: NeoXCache) -> tuple[torch.Tensor, NeoXCache]:
        """Final hidden states (n, last, d) at the last positions, and the grown cache."""
        x = self.body.embed_in(ids)
        places = torch.arange(cache.length, cache.length + ids.shape[1], device=ids.device)
        rotary = self.body.rotary_emb(x, position_ids=places[None])
        layers = []
        for number, layer in enumerate(self.body.layers):
            keep = last if number + 1 == len(self.body.layers) else ids.shape[1]
            x, kept = _layer(layer, x, rotary, cache.layers[number] if cache.layers else None, keep)
            layers.append(kept)
        return self.body.final_layer_norm(x), NeoXCache(layers, cache.length + ids.shape[1])


def _layer(layer: Any, x: torch.Tensor, rotary: Any, past: Any, keep: int) -> tuple[torch.Tensor, Any]:
    """One block's output (n, keep, d) at the last `keep` positions, and its keys and values so far."""
    attended, kept = _attention(layer.attention, layer.input_layernorm(x), rotary, past, keep)
    x = x[:, x.shape[1] - keep :]
    if layer.use_parallel_residual:
        return layer.mlp(layer.post_attention_layernorm(x)).add_(attended).add_(x), kept
    attended.add_(x)
    return layer.mlp(layer.post_attention_layernorm(attended)).add_(attended), kept


def _attention(attention: Any, x: torch.Tensor, rotary: Any, past: Any, keep: int) -> tuple[torch.Tensor, Any]:
    rows, tokens, _ = x.shape
    joined = attention.query_key_value(x).view(rows, tokens, -1, 3, attention.head_size)
    _rotate(joined[..., :2, :], *rotary)
    query, key, value = joined.transpose(1, 2).unbind(3)
    if past is not None:
        key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
    query = query[:, :, tokens - keep :]
    mask, causal = None, keep == key.shape[2]
    if not causal and keep > 1:
        reach = torch.arange(key.shape[2] - keep, key.shape[2], device=x.device)
        mask = torch.arange(key.shape[2], device=x.device)[None] <= reach[:, None]
    out = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=attention.scaling)
    return attention.dense(out.transpose(1, 2).reshape(rows, keep, -1)), (key, value)


def _rotate(both: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """Turn queries and keys (n, t, heads, 2, head size) in place, by cos and sin (1, t, rotary dimensions) of their places.

    The same operations in the same order as transformers', only on the dimensions that turn.
    """
    half = cos.shape[-1] // 2
    cos, sin = cos[:, :, None, None], sin[:, :, None, None]
    first, second = both[..., :half], both[..., half : 2 * half]
    turned = first * cos[..., :half] - second * sin[..., :half]
    second.copy_(second * cos[..., half:] + first * sin[..., half:])
    first.copy_(turned)


class GeneralCache:
    """A transformers cache, with `select` giving a copy so that the original stays usable."""

    def __init__(self, inner: Any):
        self.inner = inner

    def select(self, index: torch.Tensor) -> GeneralCache:
        import copy

        chosen = copy.deepcopy(self.inner)
        chosen.batch_select_indices(index)
        return GeneralCache(chosen)


class GeneralRunner:
    """Any transformers causal language model, through its own forward pass."""

    def __init__(self, model: nn.Module, vocabulary: int | None = None):
        self.model: Any = model
        size = int(model.get_output_embeddings().weight.shape[0])  # type: ignore[operator]
        self.vocabulary = min(vocabulary or size, size)
        self.device = next(model.parameters()).device

    def feed(self, ids: torch.Tensor, truth: torch.Tensor, cache: GeneralCache | None) -> tuple[Verdict, GeneralCache]:
        last = truth.shape[1]
        out = self.model(input_ids=ids, past_key_values=cache.inner if cache else None, use_cache=True, logits_to_keep=last)
        logits = out.logits[:, -last:, : self.vocabulary].reshape(-1, self.vocabulary).contiguous()
        return judge_logits(logits, truth.reshape(-1)).reshape(*truth.shape), GeneralCache(out.past_key_values)
