"""Published tables against themselves: real ones, and real ones with a fault put in."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from pythia_tools import public
from pythia_tools.cli.main import main
from pythia_tools.verification import findings
from pythia_tools.verification.columns import FINDING
from pythia_tools.verification.published import news

ZERO_SHOT = Path(__file__).parents[3] / "shared" / "data" / "pythia" / "evals-zero-shot.tar.xz"


def _file(folder: Path, step: int, results: dict[str, dict[str, float]]) -> None:
    """A result file in the public layout."""
    config = {"model_args": f"pretrained=EleutherAI/pythia-v1.1-70m,revision=step{step}", "num_fewshot": 0}
    place = folder / "pythia-v1" / "pythia-70m" / "zero-shot"
    place.mkdir(parents=True, exist_ok=True)
    value = {"results": results, "versions": dict.fromkeys(results, 0), "config": config}
    (place / f"70m_step{step}.json").write_text(json.dumps(value))


def _share(right: int, n: int, stated: int | None = None) -> dict[str, float]:
    p = right / n
    return {"acc": p, "acc_stderr": (p * (1 - p) / ((stated or n) - 1)) ** 0.5}


def _results(shift: int = 0) -> dict[str, dict[str, float]]:
    return {"piqa": _share(1100 + shift, 1838), "wsc": _share(40 + shift % 7, 104),
            "lambada_openai": {**_share(950 + shift, 5153), "ppl": 140.0 + shift / 10, "ppl_stderr": 5.0}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, step in enumerate((1000, 3000, 13000)):
        _file(tmp_path / "evals", step, _results(10 * number))
    return tmp_path / "evals"


def test_a_sound_table_has_no_news(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--published", str(folder), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(("step", "change", "check"), [
    (23000, {"piqa": _share(1100, 1838, stated=919)}, "items"),
    (23000, {"piqa": {"acc": 1.2, "acc_stderr": 0.01}}, "range"),
    (23000, {"piqa": {**_share(1100, 1838), "acc": 1100.4 / 1838}}, "range"),
    (0, {"piqa": _share(1100, 1838)}, "chance"),
    (23000, _results(10), "duplicate"),
])
def test_a_fault_is_found_and_is_news(
    step: int, change: dict[str, dict[str, float]], check: str, folder: Path, tmp_path: Path
) -> None:
    _file(folder, step, {**_results(30), **change})
    out = tmp_path / "out"
    code = main(["verify", "--published", str(folder), "--quiet", "--out", str(out)])
    found = pd.read_csv(out / "findings.csv")
    assert list(found.columns) == list(FINDING)
    here = found[(found["check"] == check) & (found["step"] == step)]
    assert len(here) and (here["severity"] == "wrong").all()
    assert code == (0 if here["known"].all() else 1)


def test_the_public_tables_hold_but_for_what_is_known() -> None:
    if not ZERO_SHOT.is_file():
        pytest.skip("public results are not here")
    found = findings(public.published(ZERO_SHOT))
    assert news(found).empty
    twins = found[(found["check"] == "duplicate") & (found["severity"] == "wrong")]
    assert set(twins["model"]) == {"2.8b"} and twins["known"].all() and set(twins["step"]) >= {2, 4, 512, 1000}
    assert not (found["check"] == "items").any() and not (found["check"] == "parts").any()
