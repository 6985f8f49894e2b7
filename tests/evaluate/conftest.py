"""One set of local tasks for this folder; nothing is asked of a hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import local_tasks
import pytest

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
    return local_tasks.write(tmp_path_factory.mktemp("local") / "tasks")
