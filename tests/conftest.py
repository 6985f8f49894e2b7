"""Fixtures that several areas share. Nothing heavy is loaded until a test asks for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants  # noqa: F401  (reads HF_HUB_OFFLINE once: here, not inside a test that has set it)
import pytest

from pythia_tools.core import progress


@pytest.fixture(autouse=True)
def _not_quiet() -> None:
    """`--quiet` in one test is not the next one's."""
    progress.set_quiet(False)


@pytest.fixture(autouse=True)
def _figures_closed() -> Iterator[None]:
    """Figures of one test are not the twenty-first of the next one's."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture(scope="session")
def micro_suite() -> Path:
    """The folder of the trained pythia-micro suite; trains it into the cache folder (minutes) when it is not there."""
    from pythia_tools import micro

    return micro.train()


@pytest.fixture(scope="session")
def tiny_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of two sizes, trained in this process in seconds: the whole machinery, nothing learned. Do not write into
    it.
    """
    from pythia_tools import micro

    return micro.train(micro.tiny_recipe(), tmp_path_factory.mktemp("suites") / "micro-tiny", workers=0)
