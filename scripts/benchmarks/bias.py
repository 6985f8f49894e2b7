"""Sentence pairs per second over many checkpoints: CrowS-Pairs by pythia_tools and by lm-eval, in one process.

Both get the same live model with each checkpoint's weights in it, the same pairs and the same batch size. lm-eval gets
its own task definition (reading the pairs from a local file) and its task manager prepared beforehand. Two of its doors
are timed: `simple_evaluate`, the documented one, which also asks the machine about itself on every call (a `pip list`,
among others), and `evaluate`, the bare loop beneath it. CPU seconds include child processes. Results are compared pair
by pair.

    python scripts/benchmarks/bias.py                      # 12 checkpoints of pythia-micro's three shapes, and of 70M
    python scripts/benchmarks/bias.py --shapes m --data crows_pairs_anonymized.csv --pairs 262
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

SHAPES = {
    "xs": {
        "vocab_size": 1024, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 128
    },
    "s": {
        "vocab_size": 1024, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 256
    },
    "m": {
        "vocab_size": 1024, "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
        "intermediate_size": 512
    },
    "70m": {
        "vocab_size": 50304, "hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8,
        "intermediate_size": 2048
    }
}
NOUNS = ("nurse", "doctor", "driver", "teacher", "pilot", "baker", "farmer", "clerk", "judge", "writer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--checkpoints", type=int, default=12)
    parser.add_argument(
        "--pairs", type=int, nargs="+", help="pairs per checkpoint, one number per shape (default 262; 70m: 24)"
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--data", help="a CrowS-Pairs file (default: sentences made here)")
    parser.add_argument("--tokenizer", help="tokenizer.json (default: a small one trained here, ids below 1,024)")
    args = parser.parse_args()
    counts = args.pairs or [24 if s == "70m" else 262 for s in args.shapes]
    print("pairs per second over all checkpoints; in brackets per CPU second, children included")
    print(f"{'shape':6} {'pairs':>5} {'ours':>17} {'simple_evaluate':>17} {'evaluate':>17}   ratios: wall, CPU of both  largest difference")
    for shape, pairs in zip(args.shapes, counts, strict=True):
        run_shape(shape, pairs, args)


def run_shape(shape: str, pairs: int, args: argparse.Namespace) -> None:
    from tokenizers import Tokenizer

    from pythia_tools.analyses import bias

    table = (bias.read_pairs(args.data) if args.data else made_pairs(pairs)).head(pairs)
    tokenizer = Tokenizer.from_file(args.tokenizer) if args.tokenizer else small_tokenizer(table)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = write_checkpoints(Path(folder), shape, args.checkpoints)
        theirs = LmEval(Path(folder), tokenizer, table, args.batch_size)
        for bare in (False, True):  # imports, its task and the data set's cache are not part of the comparison
            theirs.run(checkpoints[:1], bare=bare)
        ours(checkpoints[:1], tokenizer, table, args.batch_size)
        scores, mine = ours(checkpoints, tokenizer, table, args.batch_size)
        public_scores, public = theirs.run(checkpoints, bare=False)
        bare_scores, bare = theirs.run(checkpoints, bare=True)
        again, more = ours(checkpoints, tokenizer, table, args.batch_size)
    assert (scores == again).all(), "two runs of ours differ"
    mine = min(mine, more)
    gap = max(abs(scores.reshape(-1) - other).max() for other in (public_scores, bare_scores))
    n = len(table) * len(checkpoints)
    rates = "  ".join(f"{n / wall:7.1f} ({n / cpu:6.1f})" for wall, cpu in (mine, public, bare))
    ratios = ", ".join(f"{t[0] / mine[0]:.1f}x {t[1] / mine[1]:.1f}x" for t in (public, bare))
    print(f"{shape:6} {len(table):5}  {rates}   {ratios:26} {gap:.1e} nats", flush=True)


def ours(checkpoints, tokenizer, table, batch_size):
    """(checkpoints × pairs, 2) log-likelihoods, and (wall, CPU) seconds; building the task is included."""
    from pythia_tools.analyses import bias
    from pythia_tools.analysis import sweep
    from pythia_tools.core import progress

    progress.set_quiet(True)
    start = now()
    task = bias.CrowsPairs(tokenizer, table)
    found = sweep(checkpoints, [task], device="cpu", prefetch=False, batch_size=batch_size)[task.name]
    return found[["ll_more", "ll_less"]].to_numpy(), elapsed(start)


class LmEval:
    """lm-eval's own crows_pairs_english on a live model, its documents read from a file."""

    def __init__(self, folder: Path, tokenizer, table, batch_size: int):
        import lm_eval
        from lm_eval.tasks._yaml_loader import load_yaml

        from pythia_tools.tokens import open_tokenizer

        table.to_csv(folder / "pairs.csv", index=False)
        config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / "crows_pairs" / "crows_pairs_english.yaml")
        local = {
            "dataset_path": "csv", "dataset_name": None,
            "dataset_kwargs": {"data_files": {"test": str(folder / "pairs.csv")}}
        }
        os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
        self.tasks, self.configs = None, [{**config, **local}]
        self.tokenizer, self.batch_size = open_tokenizer(tokenizer).for_transformers(), batch_size

    def run(self, checkpoints, *, bare: bool):
        from pythia_tools.models import stream

        start = now()
        scores = []
        for model in stream(checkpoints, device="cpu", prefetch=False):
            result = self.evaluate(model, bare)
            samples = sorted(result["samples"]["crows_pairs_english"], key=lambda s: s["doc_id"])
            scores += [ll for sample in samples for ll, _ in sample["filtered_resps"]]
        return np.array(scores), elapsed(start)

    def evaluate(self, model, bare: bool):
        """By `simple_evaluate`, or by the loop beneath it with the task built once for all checkpoints."""
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import get_task_dict

        from pythia_tools.analyses.evaluate.harness import quiet

        with quiet():
            wrapped = HFLM(pretrained=model, tokenizer=self.tokenizer, batch_size=self.batch_size)
            if not bare:
                return lm_eval.simple_evaluate(model=wrapped, tasks=self.configs, bootstrap_iters=1000)
            self.tasks = self.tasks or get_task_dict(self.configs)
            return lm_eval.evaluate(lm=wrapped, task_dict=self.tasks, log_samples=True, bootstrap_iters=0)


def now() -> tuple[float, float]:
    """Wall seconds, and CPU seconds of this process and its finished children."""
    used = os.times()
    return time.perf_counter(), used.user + used.system + used.children_user + used.children_system


def elapsed(start: tuple[float, float]) -> tuple[float, float]:
    return tuple(b - a for a, b in zip(start, now(), strict=True))


def made_pairs(n: int):
    import pandas as pd

    rows = []
    for k in range(n):
        noun, other, place = NOUNS[k % 10], NOUNS[(k // 10) % 10], NOUNS[(k * 7) % 10]
        text = f"The {noun} told the {other} near the {place} that {{}} would come back soon because number {k} was late."
        rows.append((text.format("he"), text.format("she"), "gender"))
    return pd.DataFrame(rows, columns=["sent_more", "sent_less", "bias_type"])


def small_tokenizer(table):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*table["sent_more"], *table["sent_less"]], trainer)
    return tokenizer


def write_checkpoints(folder: Path, shape: str, count: int):
    """`count` checkpoints with their own random weights, as save_pretrained folders."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from pythia_tools.suites.checkpoint import Checkpoint, Folder, ModelInfo

    config = GPTNeoXConfig(**SHAPES[shape], max_position_embeddings=2048, bos_token_id=0, eos_token_id=0)
    info = ModelInfo(shape, None, None)
    found = []
    for step in range(count):
        torch.manual_seed(step)
        path = folder / f"step{step}"
        GPTNeoXForCausalLM(config).save_pretrained(path)
        found.append(Checkpoint("benchmark", info, step, None, f"step{step}", Folder(path), "float32"))
    return found


if __name__ == "__main__":
    main()
