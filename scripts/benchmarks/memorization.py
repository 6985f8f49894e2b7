"""Rows per second that are judged memorized or not: one staged pass against batched `generate`, in one process, flags
compared.

    python scripts/benchmarks/memorization.py --shapes 14m 70m 160m --rows 512 --threads 2
    python scripts/benchmarks/memorization.py --device cuda --shapes 70m 160m --rows 16384 --batch 1024 4096 \\
        --generate-batch 1024 4096

Models have random weights at Pythia shapes. Memorized rows are the model's own greedy outputs (made beforehand, not
timed); the rest is random. `floor` is the model's own forward pass over the tokens that must be seen: the context of
every row, and the whole window of memorized ones. Every method runs with each of its batch sizes (--generate-batch for
those that decode, --batch for single passes) and keeps its best time; methods take turns.
`peak` is the share of the arithmetic peak that this process measures with a large matrix product in the same format.
`score` compares the memorization score (real decoding past the first miss) with `generate`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from pythia_tools.analyses.memorization import Window, decoding_table, extract, screened

SHAPES = {"14m": (128, 6, 4), "31m": (256, 6, 8), "70m": (512, 6, 8), "160m": (768, 12, 12), "410m": (1024, 24, 16)}
VOCABULARY = 50304
DECODES = ("generate", "score")


def main() -> None:
    args = _arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads, {args.rows} rows, k = l = {args.length}")
    for shape in args.shapes:
        model = build(shape, args.device)
        for share in args.memorized:
            _compare(shape, model, share, args)


def build(shape: str, device: str) -> GPTNeoXForCausalLM:
    """A GPT-NeoX of that shape with random weights; `generate` suppresses nothing."""
    torch.manual_seed(0)
    width, layers, heads = SHAPES[shape]
    config = GPTNeoXConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width,
        vocab_size=VOCABULARY, max_position_embeddings=2048, rotary_pct=0.25, bos_token_id=0, eos_token_id=0
    )
    model = GPTNeoXForCausalLM(config).eval().to(device)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


@torch.inference_mode()
def generated(model: GPTNeoXForCausalLM, rows: np.ndarray, length: int, batch: int) -> np.ndarray:
    """Greedy continuations (n, length) by transformers, KV cache on."""
    parts = []
    for start in range(0, len(rows), batch):
        ids = torch.from_numpy(rows[start : start + batch, :length]).to(model.device)
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=False, use_cache=True
        )
        parts.append(out[:, length:].cpu().numpy())
    return np.concatenate(parts)


@torch.inference_mode()
def forward_only(model: GPTNeoXForCausalLM, rows: np.ndarray, length: int, memorized: np.ndarray, batch: int) -> None:
    """The floor: contexts with one position unembedded, memorized windows with all their continuation positions."""
    for index, stop, keep in (
        (np.flatnonzero(~memorized), length, 1), (np.flatnonzero(memorized), 2 * length - 1, length)
    ):
        for start in range(0, len(index), batch):
            ids = torch.from_numpy(rows[index[start : start + batch], :stop]).to(model.device)
            model(ids, use_cache=False, logits_to_keep=keep).logits.argmax(-1).cpu()


def _compare(shape: str, model: GPTNeoXForCausalLM, share: float, args: argparse.Namespace) -> None:
    rows = _rows(model, share, args)
    window = Window(args.length, args.length)
    equal: dict[str, np.ndarray] = {}

    def generate(batch: int) -> np.ndarray:
        equal["ids"] = generated(model, rows, args.length, batch) == rows[:, args.length :]
        return equal["ids"].all(axis=1)

    methods: dict[str, Callable[[int], Any]] = {
        "generate": generate,
        "forward floor": lambda b: forward_only(model, rows, args.length, equal["ids"].all(axis=1), b),
        "one pass": lambda b: extract(model, rows, window, batch_size=b).memorized,
        "screen bfloat16": lambda b: screened(model, rows, window, batch_size=b).memorized,
    }
    if args.score:
        methods["score"] = lambda b: decoding_table(model, rows, window, batch_size=b)["score"].to_numpy()
    times, answers = _race(methods, args)
    truth, agree = equal["ids"].all(axis=1), equal["ids"].mean(axis=1)
    peak = {"float32": _peak(model.device, torch.float32), "bfloat16": _peak(model.device, torch.bfloat16)}
    peaks = ", ".join(f"{v:.0f} {k}" for k, v in peak.items())
    print(f"\n{shape}, {int(truth.sum())} of {len(rows)} rows memorized; peak {peaks} GFLOP/s")
    print(f"{'method':16} {'rows/s':>9} {'× generate':>11} {'× floor':>8} {'of peak':>8} {'batch':>6}  flags")
    best = {name: min(by_batch.items(), key=lambda item: item[1]) for name, by_batch in times.items()}
    for name, (batch, seconds) in best.items():
        answer = answers[name]
        wanted = agree if name == "score" else truth
        same = "" if answer is None else f"{int((answer == wanted).sum())}/{len(rows)} equal"
        flops = _flops(shape, rows, truth, args.length, name)
        share_of_peak = flops / seconds / 1e9 / peak["bfloat16" if "bfloat16" in name else "float32"]
        print(
            f"{name:16} {len(rows) / seconds:9.1f} {best['generate'][1] / seconds:11.2f} "
            f"{seconds / best['forward floor'][1]:8.2f} {share_of_peak:8.0%} {batch:6}  {same}"
        )


def _race(
    methods: dict[str, Callable[[int], Any]], args: argparse.Namespace
) -> tuple[dict[str, dict[int, float]], dict[str, Any]]:
    """Best seconds per method and batch size; methods take turns, so that a busy machine slows all alike."""
    times: dict[str, dict[int, float]] = {name: {} for name in methods}
    answers: dict[str, Any] = {}
    for _ in range(args.repeats):
        for name, method in methods.items():
            for batch in args.generate_batch if name in DECODES else args.batch:
                seconds, answers[name] = _timed(method, batch, args)
                times[name][batch] = min(seconds, times[name].get(batch, np.inf))
    return times, answers


def _timed(method: Callable[[int], Any], batch: int, args: argparse.Namespace) -> tuple[float, Any]:
    clock = time.process_time if args.cpu_seconds else time.perf_counter
    _sync(args.device)
    start = clock()
    answer = method(batch)
    _sync(args.device)
    return clock() - start, answer


def _sync(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _rows(model: GPTNeoXForCausalLM, share: float, args: argparse.Namespace) -> np.ndarray:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, VOCABULARY, (args.rows, 2 * args.length))
    chosen = np.sort(rng.choice(args.rows, round(share * args.rows), replace=False))
    if len(chosen):
        rows[chosen, args.length :] = generated(model, rows[chosen], args.length, max(args.generate_batch))
    return rows


def _flops(shape: str, rows: np.ndarray, truth: np.ndarray, length: int, name: str) -> float:
    """Multiply-adds × 2 of the tokens and unembeddings a method needs (attention's quadratic part left out)."""
    width, layers, _ = SHAPES[shape]
    token, head = 2 * layers * 12 * width**2, 2 * VOCABULARY * width
    whole = (2 * length - 1) * token + length * head
    if name in DECODES:
        return len(rows) * whole
    return float((~truth).sum()) * (length * token + head) + float(truth.sum()) * whole


def _peak(device: torch.device, dtype: torch.dtype) -> float:
    """GFLOP/s of a large matrix product, best of five."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(size, size, device=device, dtype=dtype), torch.randn(size, size, device=device, dtype=dtype)
    best = np.inf
    for _ in range(5):
        _sync(device.type)
        start = time.perf_counter()
        a @ b
        _sync(device.type)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=sorted(SHAPES), default=["14m", "70m", "160m"])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--length", type=int, default=32, help="context and continuation ids (default 32)")
    parser.add_argument(
        "--memorized", nargs="+", type=float, default=[0.01, 1.0], help="shares of rows that are memorized"
    )
    parser.add_argument("--batch", nargs="+", type=int, default=[32, 128], help="rows per single pass")
    parser.add_argument("--generate-batch", nargs="+", type=int, default=[64, 128, 256], help="rows decoded together")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--score", action="store_true", help="time the memorization score too")
    parser.add_argument(
        "--cpu-seconds", action="store_true", help="count CPU time instead of the wall's (on a shared machine)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
