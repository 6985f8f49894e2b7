"""The networks: real `GPTNeoXForCausalLM`s with Pythia's architecture and initialisation, scaled down.

Rotary embeddings on a quarter of each head, parallel residual, untied embeddings, LayerNorm with bias, GELU, no
dropout, begin and end of text both id 0. Initial deviations: `suites.shapes.initial_std("small-wang")`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pythia_tools.micro.recipe import ModelSpec, Recipe
from pythia_tools.suites.shapes import initial_std

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM

RESIDUAL_OUTPUTS = ("attention.dense.weight", "mlp.dense_4h_to_h.weight")


def shape_of(spec: ModelSpec, recipe: Recipe) -> dict[str, Any]:
    """The shape in the manifests' words."""
    return {
        "architecture": "gpt_neox", "layers": spec.layers, "d_model": spec.d_model, "heads": spec.heads,
        "vocab": recipe.vocab, "rotary_pct": 0.25, "context": recipe.seq_length,
    }


def make_model(spec: ModelSpec, recipe: Recipe, seed: int) -> GPTNeoXForCausalLM:
    """A fresh model at step 0; the same seed gives the same bits, whatever random numbers were drawn before."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=recipe.vocab, hidden_size=spec.d_model, num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads, intermediate_size=4 * spec.d_model, hidden_act="gelu",
        max_position_embeddings=recipe.seq_length, layer_norm_eps=1e-5, use_parallel_residual=True,
        tie_word_embeddings=False, attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
        attention_dropout=0.0, hidden_dropout=0.0, bos_token_id=0, eos_token_id=0, use_cache=True, dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):  # the library's own initialisation draws numbers that are then replaced
        model = GPTNeoXForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    plain, residual = initial_std("small-wang", shape_of(spec, recipe))
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.dim() == 1:
                parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
            else:
                parameter.normal_(0.0, residual if name.endswith(RESIDUAL_OUTPUTS) else plain, generator=generator)
    return model
