"""The public tables that fits of curves are tried on; tests skip where they are absent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "pythia"
LAMBADA_ITEMS = 5153


def archive() -> Path:
    """The public zero-shot results, as they are."""
    return _there("evals-zero-shot.tar.xz")


def training_maps() -> Path:
    """The file of ten seeds of Pythia 410m: score, state, step, seed."""
    return _there("training_maps.tsv")


def evaluations() -> pd.DataFrame:
    """Model, step, and a column per metric, of 16 models × 27 steps."""
    held = json.loads(_there("published_evals_v1.json").read_text(encoding="utf-8"))
    return pd.DataFrame([
        {"model": model.removeprefix("pythia-"), "step": int(step), **numbers}
        for model, steps in held.items() for step, numbers in steps.items()
    ])


def lambada() -> pd.DataFrame:
    """Accuracy on LAMBADA with its standard errors, a row per model and step."""
    table = evaluations()[["model", "step", "lambada_acc"]].rename(columns={"lambada_acc": "value"})
    share = table["value"]
    return table.assign(metric="acc", task="lambada_openai",
                        stderr=np.sqrt(share * (1 - share) / (LAMBADA_ITEMS - 1)))


def _there(name: str) -> Path:
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"needs shared/data/pythia/{name}")
    return path
