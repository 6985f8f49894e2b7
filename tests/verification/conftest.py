"""lm-eval's own results of the tiny suite's checkpoints; nothing is asked of a hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import local_tasks
import pytest
from verified import STEPS, by_lm_eval

pytest.importorskip("lm_eval")
pytest.importorskip("accelerate")


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


@pytest.fixture(scope="session")
def published(tiny_suite: Path, local: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """float32 results of xs at three steps."""
    out = tmp_path_factory.mktemp("published")
    for step in STEPS:
        by_lm_eval(tiny_suite / "xs" / f"step{step}", tiny_suite / "tokenizer", local, out / f"step{step}")
    return out
