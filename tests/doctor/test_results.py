"""Published evaluation results: the known faults are found unaided, and tables without faults stay clean."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pythia_tools import doctor
from pythia_tools.core.errors import DataError

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "pythia" / "published_evals_v1.json"


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published evaluations are not here")
def test_the_published_faults_are_found_unaided() -> None:
    audit = doctor.audit_results(PUBLISHED)
    wrong = audit.findings[audit.findings["severity"] == "wrong"]
    notes = audit.findings[audit.findings["severity"] == "note"]
    same = wrong[wrong["check"] == "same results"]
    assert set(same["model"]) == {"pythia-2.8b-deduped"}
    assert set(same["detail"]) == {"every metric equals that of pythia-2.8b"}
    assert sorted(same["step"]) == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]
    near = wrong[wrong["check"] == "near results"]
    found = sorted(zip(near["model"], near["step"], strict=True))
    assert found == [("pythia-2.8b-deduped", s) for s in (3000, 13000, 23000, 33000, 43000)]
    spikes = wrong[wrong["check"] == "spike"]
    found = sorted(zip(spikes["model"], spikes["step"], strict=True))
    assert found == [("pythia-70m-deduped", 13000), ("pythia-70m-deduped", 53000)]
    assert len(wrong) == len(same) + len(near) + len(spikes), "and nothing else"
    first = notes[notes["detail"] == "every metric equals that of step 0"]
    assert len(first) == 16 and set(first["step"]) == {1}
    closer = notes[notes["check"] == "near results"]
    assert list(closer["model"]) == ["pythia-2.8b-deduped"]
    assert "from those of pythia-2.8b (median" in closer["detail"].item()


def test_a_clean_table_is_clean_and_a_copied_step_is_not() -> None:
    rng = np.random.default_rng(0)
    results = {model: {step: {"acc": 0.5, "x_ppl": 100 / (1 + step) + rng.random(),
                              "likelihood_difference": 3 + 0.1 * rng.random()}
                       for step in (0, 1000, 2000, 3000, 4000)} for model in ("a", "b", "c")}
    assert doctor.audit_table(results, "mine").sound
    results["b"][4000] = results["b"][2000]
    audit = doctor.audit_table(results, "mine")
    assert audit.findings[["model", "step", "check", "detail"]].values.tolist() == [
        ["b", 4000, "same results", "every metric equals that of step 2000"]]


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"a": [1, 2]}))
    with pytest.raises(DataError,
                       match=r"not a table of results; expected JSON \{model: \{step: \{metric: value\}\}\}"):
        doctor.audit_results(tmp_path / "x.json")
