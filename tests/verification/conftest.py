"""lm-eval's own results of the tiny suite's checkpoints, as `lm_eval --output_path` writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import local_tasks
import pytest

pytest.importorskip("lm_eval")
pytest.importorskip("accelerate")
TASKS = ("piqa", "lambada_openai", "crows_pairs_english", "winogrande", "wikitext")
STEPS = (8, 40, 60)


@pytest.fixture(scope="session", autouse=True)
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            patch.setenv(name, "1")
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        yield


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for --include-path: lm-eval's definitions over local documents."""
    return local_tasks.write(tmp_path_factory.mktemp("local") / "tasks", n=60)


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


@pytest.fixture(scope="session")
def published(tiny_suite: Path, local: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """float32 results of xs at three steps."""
    out = tmp_path_factory.mktemp("published")
    for step in STEPS:
        by_lm_eval(tiny_suite / "xs" / f"step{step}", tiny_suite / "tokenizer", local, out / f"step{step}")
    return out
