"""lm-eval's own results files, per checkpoint, out of stored answers: its evaluator runs on what was kept.

    lm-eval/<model>/step<N>/results.json              as `lm_eval --output_path` writes it
    lm-eval/<model>/step<N>/samples_<task>.jsonl      as `--log_samples` does

Every metric, standard error and group is computed by `lm_eval.evaluate` itself, from a model that repeats the stored
answers; so the numbers are those of `lm_eval --model hf` on that checkpoint, to the rounding of its float32 sums.
What tells of the process that ran (environment, git, times) is left out.
Cost: per checkpoint, what lm-eval needs after its model has answered; see `resampled` for its standard errors.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pandas as pd

from pythia_tools.analyses.evaluate import harness, resampled, scores
from pythia_tools.analyses.evaluate.harness import Asked, Response
from pythia_tools.analysis import Context, Export
from pythia_tools.core import tables
from pythia_tools.suites import Checkpoint, HubRevision

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM

RESAMPLES = 100_000
"""lm-eval's default for standard errors that have no formula."""
Results: TypeAlias = "dict[str, object]"
Samples: TypeAlias = "dict[str, list[dict[str, object]]]"


def exports(items: pd.DataFrame, context: Context, asked: Asked, *, samples: bool) -> Iterator[Export]:
    """The files of every checkpoint in an item table; `samples`: those of `--log_samples` as well."""
    checkpoints = {(c.model.name, c.step): c for c in context.checkpoints}
    for who, _, rows in tables.by_identity(items):
        checkpoint = checkpoints[str(who["model"]), int(str(who["step"]))]
        found = results(rows, asked, checkpoint, dtype=_name(context.execution.dtype), samples=samples)
        folder = Path("lm-eval") / checkpoint.model.name / f"step{checkpoint.step}"
        kept: Samples = found.pop("samples", {})  # type: ignore[assignment]
        for task, some in kept.items():
            yield Export(folder / f"samples_{task}.jsonl", [_written(sample) for sample in some])
        yield Export(folder / "results.json", _plain(found))


def results(
    items: pd.DataFrame, asked: Asked, checkpoint: Checkpoint, *, dtype: str | None = None, samples: bool = False
) -> Results:
    """What lm-eval says of one checkpoint's rows, as `simple_evaluate` gives it; `samples` adds its `samples`."""
    import lm_eval

    answers: dict[int, Response] = {}
    for name, task in asked.tasks.items():
        found = scores.responses(items[items["task"] == name], task)
        for instance, answer in zip(task.instances, found, strict=True):
            answers[id(instance)] = answer if answer is not None else _lost(instance)
            instance.resps, instance.filtered_resps = [], {}
        task.task._instances = list(task.instances)
        task.task.build_all_requests = _built
    with harness.quiet(), resampled.here():
        made: Results = dict(lm_eval.evaluate(
            lm=_repeating_class()(answers), bootstrap_iters=RESAMPLES, log_samples=samples,
            limit=max((t.limit or 0 for t in asked.tasks.values()), default=0) or None,
            task_dict={"tasks": {name: task.task for name, task in asked.tasks.items()},
                       "groups": {group.name: group for group in asked.groups}},
        ))
    kept: Samples = made.get("samples", {})  # type: ignore[assignment]
    hashes = {task: _hash(some) for task, some in kept.items()}
    return {**made, **_about(checkpoint, asked, dtype), "task_hashes": hashes}


def _name(dtype: object) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")


def _built(**_: object) -> None:
    """The requests are built already."""


def _lost(instance: Instance) -> Response:
    """The answer of a model whose logits are no numbers."""
    if instance.request_type == "generate_until":
        return ""
    return (math.nan, False) if instance.request_type == "loglikelihood" else math.nan


@cache
def _repeating_class() -> type[LM]:
    from lm_eval.api.model import LM

    class Repeating(LM):
        """A model that has answered before: request → answer."""

        def __init__(self, answers: Mapping[int, Response]):
            super().__init__()
            self.answers = answers

        def _repeat(self, requests: Sequence[Instance], **_: object) -> list[Response]:
            return [self.answers[id(request)] for request in requests]

        loglikelihood = loglikelihood_rolling = generate_until = _repeat

    return Repeating


def _about(checkpoint: Checkpoint, asked: Asked, dtype: str | None) -> Results:
    """What lm-eval's command line adds: the model's arguments, with which it would load this checkpoint, and seeds."""
    from lm_eval.utils import sanitize_model_name

    place = checkpoint.location
    hub = isinstance(place, HubRevision)
    named = place.repo if isinstance(place, HubRevision) else str(place.path)
    arguments = {"pretrained": named, **({"revision": place.revision} if isinstance(place, HubRevision) else {}),
                 "dtype": dtype or checkpoint.dtype or "auto"}
    config = {
        "model": "hf", "model_args": arguments, "model_revision": checkpoint.revision if hub else "main",
        "limit": next((task.limit for task in asked.tasks.values()), None), "bootstrap_iters": RESAMPLES,
        "gen_kwargs": None, "random_seed": harness.SEEDS["random"], "numpy_seed": harness.SEEDS["numpy"],
        "torch_seed": harness.SEEDS["numpy"], "fewshot_seed": harness.SEEDS["fewshot"],
    }
    return {
        "config": config, "date": time.time(), "lm_eval_version": harness.version(),
        "transformers_version": importlib.metadata.version("transformers"), "model_source": "hf", "model_name": named,
        "model_name_sanitized": sanitize_model_name(named),
    }


def _hash(samples: Sequence[Mapping[str, object]]) -> str:
    """lm-eval's digest of a task's documents, prompts and targets."""
    from lm_eval.utils import hash_string

    return str(hash_string("".join(f"{s['doc_hash']}{s['prompt_hash']}{s['target_hash']}" for s in samples)))


def _written(sample: Mapping[str, object]) -> dict[str, object]:
    """A sample as lm-eval writes it: arguments by number, responses and target as text."""
    from lm_eval.utils import sanitize_list

    given: Sequence[Sequence[object]] = sample["arguments"]  # type: ignore[assignment]
    arguments = {f"gen_args_{i}": {f"arg_{j}": a for j, a in enumerate(some)} for i, some in enumerate(given)}
    texts = {name: sanitize_list(sample[name]) for name in ("resps", "filtered_resps")}
    return _plain({**sample, **texts, "arguments": arguments, "target": str(sample["target"])})


def _plain(value: Mapping[str, object]) -> dict[str, object]:
    """As JSON, functions and numbers of numpy as lm-eval writes them."""
    from lm_eval.utils import handle_non_serializable

    plain: dict[str, object] = json.loads(json.dumps(value, default=handle_non_serializable, ensure_ascii=False))
    return plain
