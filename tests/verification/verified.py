"""Results as lm-eval itself writes them (`lm_eval --output_path`)."""

from __future__ import annotations

import json
from pathlib import Path

TASKS = ("piqa", "lambada_openai", "crows_pairs_english", "winogrande", "wikitext")
STEPS = (8, 40, 60)


def by_lm_eval(folder: Path, tokenizer: Path, include: Path, out: Path, dtype: str = "float32") -> None:
    """What lm-eval's own model makes of an exported checkpoint, written by lm-eval's own tracker."""
    import lm_eval
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    tracker = EvaluationTracker(output_path=str(out))
    found = lm_eval.simple_evaluate(
        model="hf", model_args={"pretrained": str(folder), "tokenizer": str(tokenizer), "dtype": dtype}, device="cpu",
        tasks=list(TASKS), batch_size=1, bootstrap_iters=0, evaluation_tracker=tracker, log_samples=False,
        task_manager=TaskManager(include_path=str(include), include_defaults=False),
    )
    assert found is not None
    tracker.save_results_aggregated(results=found, samples={})
    assert json.loads(next(out.rglob("results_*.json")).read_text())["results"]
