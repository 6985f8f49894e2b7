"""Four tasks of lm-eval over many checkpoints: by `evaluate`, and by lm-eval in the two loops that people write.

    live     a loop of `lm_eval.simple_evaluate` with the same live streamed model, wrapped anew for each checkpoint
    loaded   a loop of it with `pretrained=FOLDER`, which loads every checkpoint with from_pretrained

All get the same folders of random weights, the same definitions over the same local documents (lambada_openai, piqa,
arc_easy and winogrande in their own columns), the same batch size and one thread; lm-eval gets its task manager prepared
beforehand and computes no bootstrap. What is timed begins with names of tasks and ends with metrics, ours with their
intervals. CPU seconds include child processes. Results are compared before anything is printed: every metric equal.

    python scripts/benchmarks/evaluate.py                        # 12 checkpoints, micro shapes and 70M
    python scripts/benchmarks/evaluate.py --shapes m --documents 100
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

TASKS = ("lambada_openai", "piqa", "arc_easy", "winogrande")
METRICS = ("acc", "acc_norm", "perplexity")
SHAPES = {
    "xs": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 1024},
    "s": {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 1024},
    "m": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 1024},
    "70m": {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "vocab_size": 50304},
}
GOALS = {"70m": (1.5, 2.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--checkpoints", type=int, default=12)
    parser.add_argument("--documents", type=int, nargs="+", help="per task, one number per shape (100; 70m: 12)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--profile", action="store_true", help="only ours, under cProfile")
    args = parser.parse_args()
    counts = args.documents or [12 if shape == "70m" else 100 for shape in args.shapes]
    print(f"{args.checkpoints} checkpoints × {len(TASKS)} tasks; seconds: CPU with children (wall)")
    print(f"{'shape':6} {'documents':>9} {'ours':>16} {'live':>16} {'loaded':>16}   times CPU (wall): live, loaded   goals")
    for shape, count in zip(args.shapes, counts, strict=True):
        run_shape(shape, count, args)


def run_shape(shape: str, documents: int, args: argparse.Namespace) -> None:
    import local_tasks

    from pythia_tools.core import progress

    progress.set_quiet(True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = str(Path(folder) / "cache")
        tasks = local_tasks.write(Path(folder) / "tasks", n=documents)
        checkpoints = write_checkpoints(Path(folder), shape, args.checkpoints)
        if args.profile:
            return profiled(checkpoints, tasks, args.batch_size)
        for run in (ours, live, loaded):  # imports and the data sets' cache are not part of the comparison
            run(checkpoints[:1], tasks, args.batch_size)
        mine, first = timed(ours, checkpoints, tasks, args.batch_size)
        theirs, by_live = timed(live, checkpoints, tasks, args.batch_size)
        loading, by_loaded = timed(loaded, checkpoints, tasks, args.batch_size)
        again, second = timed(ours, checkpoints, tasks, args.batch_size)
    assert first == second, "two runs of ours differ"
    for other in (by_live, by_loaded):
        assert_equal(first, other)
    mine = min(mine, again)
    ratios = [f"{other[0] / mine[0]:.1f} ({other[1] / mine[1]:.1f})" for other in (theirs, loading)]
    seconds = "  ".join(f"{cpu:7.2f} ({wall:6.2f})" for cpu, wall in (mine, theirs, loading))
    goals = GOALS.get(shape, (5.0, 8.0))
    print(f"{shape:6} {documents:9}  {seconds}   {', '.join(ratios):32} {goals[0]}, {goals[1]}", flush=True)


def ours(checkpoints, tasks, batch_size):
    """{(step, task, metric): value}"""
    from pythia_tools.analyses.evaluate import EvaluateOptions
    from pythia_tools.analyses.evaluate.analysis import Evaluate
    from pythia_tools.analysis import Context, Execution, prepare, sweep

    context = Context(checkpoints, Execution(device="cpu", batch_size=batch_size, prefetch=False))
    prepared = prepare(Evaluate(), context, EvaluateOptions(TASKS, include_path=str(tasks)))
    items = prepared.analysis.items(sweep(context, prepared.tasks), context, prepared.options)
    rows = prepared.analysis.summarize(items, context, prepared.options)
    rows = rows[rows["metric"].isin(METRICS)]
    return {(r.step, r.task, r.metric): r.value for r in rows.itertuples() if r.task != "winogrande" or r.metric == "acc"}


def live(checkpoints, tasks, batch_size):
    """The same by `simple_evaluate` with one live model."""
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    from pythia_tools.models import stream

    tokenizer = AutoTokenizer.from_pretrained(checkpoints[0].location.path)
    found = {}
    for model in stream(checkpoints, device="cpu", prefetch=False):
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        found.update(simple(model.checkpoint.step, tasks, model=wrapped))
    return found


def loaded(checkpoints, tasks, batch_size):
    """The same by `simple_evaluate` on each folder."""
    found = {}
    for checkpoint in checkpoints:
        arguments = {"pretrained": str(checkpoint.location.path), "dtype": "float32"}
        found.update(simple(
            checkpoint.step, tasks, model="hf", model_args=arguments, batch_size=batch_size, device="cpu"
        ))
    return found


def simple(step, tasks, **how):
    import lm_eval
    from lm_eval.tasks import TaskManager

    from pythia_tools.analyses.evaluate.harness import quiet

    with quiet():
        result = lm_eval.simple_evaluate(
            tasks=list(TASKS), task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
            bootstrap_iters=0, log_samples=False, **how,
        )
    return {
        (step, task, metric): values[f"{metric},none"] for task, values in result["results"].items()
        for metric in METRICS if f"{metric},none" in values
    }


def assert_equal(found, expected) -> None:
    """Shares exactly, perplexities to the rounding of sums in float32."""
    assert set(found) >= set(expected), sorted(set(expected) - set(found))
    for key, value in expected.items():
        allowed = 1e-5 * abs(value) if key[-1] == "perplexity" else 0.0
        assert abs(found[key] - value) <= allowed, (key, found[key], value)


def timed(run, *arguments):
    """((CPU, wall) seconds, what it gave)"""
    start = now()
    found = run(*arguments)
    return tuple(b - a for a, b in zip(start, now(), strict=True)), found


def now() -> tuple[float, float]:
    """CPU seconds of this process and its finished children, and wall seconds."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system, time.perf_counter()


def profiled(checkpoints, tasks, batch_size) -> None:
    import cProfile
    import pstats

    ours(checkpoints[:1], tasks, batch_size)
    with cProfile.Profile() as profile:
        ours(checkpoints, tasks, batch_size)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
    pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def write_checkpoints(folder: Path, shape: str, count: int):
    """`count` checkpoints with their own random weights, as save_pretrained folders with a tokenizer."""
    import local_tasks
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from pythia_tools.suites.checkpoint import Checkpoint, Folder, ModelInfo

    wide = SHAPES[shape]
    config = GPTNeoXConfig(
        **wide, intermediate_size=4 * wide["hidden_size"], max_position_embeddings=2048, bos_token_id=0, eos_token_id=0,
        initializer_range=0.1,
    )
    found = []
    for step in range(count):
        torch.manual_seed(step)
        path = folder / f"step{step}"
        GPTNeoXForCausalLM(config).save_pretrained(path)
        local_tasks.save_tokenizer(path)
        found.append(Checkpoint("benchmark", ModelInfo(shape, None, None), step, None, path.name, Folder(path), "float32"))
    random.seed(0)
    return found


if __name__ == "__main__":
    main()
