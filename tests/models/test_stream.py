"""Streaming: from_pretrained's logits bit for bit, one live module, hooks and graphs kept, one fetch ahead."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_checkpoints import VOCAB, as_old_bin, checkpoint, neox_config, tensors_of, write_model, write_step
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import pythia_tools as pt
from pythia_tools import models
from pythia_tools.core.errors import DataError, EnvironmentFailure, RequestError
from pythia_tools.models import loading, streaming
from pythia_tools.suites.checkpoint import Defect

IDS = torch.arange(24).reshape(2, 12)


def reference(folder: Path, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()(IDS).logits


def test_logits_equal_from_pretrained_bit_for_bit(steps):
    seen = []
    for model in pt.stream(steps, device="cpu"):
        assert torch.equal(model(IDS).logits, reference(model.checkpoint.location.path))
        assert not model.training and not any(p.requires_grad for p in model.parameters())
        seen.append((model.checkpoint, model.weights_digest))
    assert [c for c, _ in seen] == steps
    assert [d for _, d in seen] == [models.weights_digest(c) for c in steps] and len({d for _, d in seen}) == 3


def test_one_live_module_keeps_hooks_parameters_and_compiled_graph(steps):
    compiled, hooked, found, graph = [], [], [], None

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    for model in models.stream(steps, device="cpu"):
        if not found:
            model.gpt_neox.layers[0].register_forward_hook(lambda *_: hooked.append(1))
            graph = torch.compile(model.gpt_neox.layers[1].mlp, backend=backend)
        found.append((id(model), model.lm_head.weight.data_ptr()))
        model(IDS)
        x = torch.ones(1, 16)
        assert torch.equal(graph(x), model.gpt_neox.layers[1].mlp(x))
    assert len(set(found)) == 1 and len(hooked) == 3 and len(compiled) == 1


def llama(tied: bool) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied
        )
    )


def gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=64))


@pytest.mark.parametrize("make", [lambda: llama(True), lambda: llama(False), gpt2], ids=["llama-tied", "llama", "gpt2"])
def test_other_architectures(tmp_path, make):
    checkpoints = [checkpoint(write_model(tmp_path / str(s), make(), s), s) for s in (1, 2, 3)]
    for model in models.stream(checkpoints, device="cpu"):
        assert torch.equal(model(IDS).logits, reference(model.checkpoint.location.path))


def test_architecture_whose_files_need_conversion_goes_through_from_pretrained(steps, monkeypatch):
    from pythia_tools.models import loading

    monkeypatch.setattr(loading, "_same_values", lambda plan: False)
    live = set()
    for model in models.stream(steps, device="cpu"):
        live.add(id(model))
        assert torch.equal(model(IDS).logits, reference(model.checkpoint.location.path))
    assert len(live) == 1


@pytest.mark.parametrize("shards", [1, 3])
def test_old_bin_files_with_mask_buffers(tmp_path, steps, shards):
    old = [checkpoint(as_old_bin(c.location.path, tmp_path / c.revision, shards=shards), c.step) for c in steps]
    for model, new in zip(models.stream(old, device="cpu"), models.stream(steps, device="cpu"), strict=True):
        assert torch.equal(model(IDS).logits, reference(model.checkpoint.location.path))
        assert torch.equal(model(IDS).logits, new(IDS).logits)
        assert model.weights_digest == new.weights_digest


def test_sharded_safetensors(tmp_path, steps):
    made = []
    for c in steps:
        AutoModelForCausalLM.from_pretrained(c.location.path).save_pretrained(
            tmp_path / c.revision, max_shard_size="20KB"
        )
        assert len(list((tmp_path / c.revision).glob("*.safetensors"))) > 1
        made.append(checkpoint(tmp_path / c.revision, c.step))
    for model, whole in zip(models.stream(made, device="cpu"), models.stream(steps, device="cpu"), strict=True):
        assert torch.equal(model(IDS).logits, whole(IDS).logits) and model.weights_digest == whole.weights_digest


def test_number_format_policy(tmp_path):
    half = [write_step(tmp_path / str(s), s, dtype=torch.float16) for s in (1, 2)]

    def formats(policy, asked):
        made = [checkpoint(f, 1, dtype=policy) for f in half]
        return {next(m.parameters()).dtype for m in models.stream(made, device="cpu", dtype=asked)}

    assert formats(None, None) == {torch.float32}
    assert formats("bfloat16", None) == {torch.bfloat16}
    assert formats("float32", "bfloat16") == {torch.bfloat16}
    for model in models.stream([checkpoint(f, 1) for f in half], device="cpu", dtype="float32"):
        assert torch.equal(model(IDS).logits, reference(Path(model.config.name_or_path)))
    cuda = torch.device("cuda")
    assert models.choose_dtype(checkpoint(half[0], 1, params=70_000_000), None, cuda, torch.float16) == torch.float32
    assert models.choose_dtype(checkpoint(half[0], 1, params=7_000_000_000), None, cuda, torch.float16) == torch.float16


def test_checkpoints_of_one_architecture_in_two_number_formats_share_no_module(tmp_path):
    folders = [write_step(tmp_path / str(s), s) for s in (1, 2, 3)]
    made = [
        checkpoint(f, 1, dtype=policy) for f, policy in zip(folders, ("float32", "bfloat16", "float32"), strict=True)
    ]
    for model, asked in zip(models.stream(made, device="cpu"), ("float32", "bfloat16", "float32"), strict=True):
        dtype = getattr(torch, asked)
        assert {p.dtype for p in model.parameters()} == {dtype}
        assert torch.equal(model(IDS).logits, reference(model.checkpoint.location.path, dtype))


def test_formats_decided_by_the_files_are_kept_apart_too(tmp_path, monkeypatch):
    """On an accelerator a large model runs in its files' own format, which may differ from checkpoint to checkpoint."""
    monkeypatch.setattr(streaming, "choose_dtype", lambda checkpoint, asked, device, stored: stored)
    formats = [torch.float32, torch.bfloat16]
    made = [checkpoint(write_step(tmp_path / str(s), s, dtype=d), s) for s, d in enumerate(formats, 1)]
    live = streaming.LiveModules("cpu", None, made)
    ready = list(streaming.prepare(made, prefetch=False))
    assert live.show(ready[0]) is not live.show(ready[1])


def test_bad_device_and_dtype_are_refused(steps):
    with pytest.raises(RequestError, match="float32"):
        next(models.stream(steps, device="cpu", dtype="int8"))
    with pytest.raises(RequestError, match="cuda"):
        next(models.stream(steps, device="gpu"))
    if not torch.cuda.is_available():
        with pytest.raises(EnvironmentFailure, match="--device cpu"):
            next(models.stream(steps, device="cuda"))


def test_modules_of_two_architectures_live_while_they_are_needed(tmp_path, steps):
    wide = [checkpoint(write_step(tmp_path / str(s), s, neox_config(width=32)), s, model="wide") for s in (1, 2)]
    mixed = [steps[0], wide[0], steps[1], wide[1]]
    ids = {}
    for model in models.stream(mixed, device="cpu"):
        ids.setdefault(model.checkpoint.model.name, set()).add(id(model))
    assert [len(v) for v in ids.values()] == [1, 1]
    live = streaming.LiveModules("cpu", None, [*steps, *wide])
    for prepared in streaming.prepare([*steps, *wide]):
        live.show(prepared)
        assert len(live._modules) == 1  # in the order of models, one at a time


class SlowDisk:
    """Stands before the fetch: takes its time, counts what is in flight, fails at one step."""

    def __init__(self, seconds: float, fail_at: int | None = None):
        self.seconds, self.fail_at = seconds, fail_at
        self.flying = self.most = 0
        self.log: list[tuple[str, int, str]] = []

    def __call__(self, c, stop=None):
        self.flying += 1
        self.most = max(self.most, self.flying)
        self.log.append(("start", c.step, threading.current_thread().name))
        time.sleep(self.seconds)
        self.flying -= 1
        self.log.append(("end", c.step, threading.current_thread().name))
        if c.step == self.fail_at:
            raise EnvironmentFailure(f"{c}: the hub is unreachable")
        return c.location.path


def test_next_checkpoint_is_fetched_while_this_one_computes(steps, monkeypatch):
    disk = SlowDisk(0.15)
    monkeypatch.setattr(streaming, "local_folder", disk)
    order = []
    for model in models.stream(steps, device="cpu"):
        time.sleep(0.3)  # the computation: longer than a fetch
        order.append((model.checkpoint.step, [step for what, step, _ in disk.log if what == "end"]))
    assert order == [(0, [0, 10]), (10, [0, 10, 20]), (20, [0, 10, 20])]  # fetched one ahead, never two
    assert disk.most == 1
    assert [thread for _, step, thread in disk.log if step] == ["checkpoint-prefetch"] * 4


def test_an_error_of_the_prefetch_surfaces_at_its_checkpoint(steps, monkeypatch):
    monkeypatch.setattr(streaming, "local_folder", SlowDisk(0, fail_at=10))
    stream = models.stream(steps, device="cpu")
    assert next(stream).checkpoint.step == 0
    time.sleep(0.1)
    with pytest.raises(EnvironmentFailure, match="step10: the hub is unreachable"):
        next(stream)


def test_closing_a_stream_leaves_nothing_running(steps, monkeypatch):
    monkeypatch.setattr(streaming, "local_folder", SlowDisk(0.05))
    stream = models.stream(steps, device="cpu")
    next(stream)
    stream.close()
    deadline = time.time() + 5
    while any(t.name == "checkpoint-prefetch" for t in threading.enumerate()):
        assert time.time() < deadline
        time.sleep(0.02)


def test_known_defects_are_refused_unless_allowed(steps, capsys):
    model = replace(
        steps[1].model, defects=(Defect((10,), "holds step 20's weights", "the model's page, discussion 52"),)
    )
    marked = [replace(c, model=model) for c in steps]
    with pytest.raises(RequestError, match=r"test/tiny: step 10 .*holds step 20's weights.*--allow-defective"):
        next(models.stream(marked, device="cpu"))
    assert len(list(models.stream(marked, device="cpu", allow_defective=True))) == 3
    assert "discussion 52" in capsys.readouterr().err
    assert next(models.stream([marked[0]], device="cpu")).checkpoint.step == 0


def test_load_of_a_plain_folder(steps):
    model = models.load(steps[0].location.path, device="cpu")
    assert model.checkpoint is None and torch.equal(model(IDS).logits, reference(steps[0].location.path))
    assert set(tensors_of(steps[0].location.path)) >= {"gpt_neox.embed_in.weight"}


def test_on_another_device_the_files_own_bytes_cross_and_are_cast_there(tmp_path, monkeypatch):
    """`meta` stands for any device that is not the processor: what is moved, how often, and that the live module stays.
    """
    made = [checkpoint(write_step(tmp_path / f"step{s}", s, dtype=torch.float16), s) for s in (1, 2, 3)]
    crossed, move = [], torch.Tensor.to

    def spy(tensor, *args, **options):
        if args and isinstance(args[0], torch.device) and args[0].type == "meta":
            crossed.append(tensor.dtype)
        return move(tensor, *args, **options)

    live = set()
    for model in models.stream(made, device="meta"):
        assert {
            p.device.type for p in model.parameters()
        } == {"meta"} and {p.dtype for p in model.parameters()} == {torch.float32}
        assert model.weights_digest == models.weights_digest(model.checkpoint)
        live.add((id(model), id(model.lm_head.weight)))
        monkeypatch.setattr(torch.Tensor, "to", spy)
    assert len(live) == 1
    assert set(crossed) == {torch.float16} and len(crossed) == 2 * len(tensors_of(tmp_path / "step1"))
    wrong = checkpoint(write_step(tmp_path / "wide", 4, neox_config(width=32), torch.float16), 4)
    with pytest.raises(DataError, match="has shape"):
        loading.swap(model, wrong.location.path, wrong)
