"""Public results of the Pythia release: every number and item count as in the files, whatever the path means."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pythia_tools as pt
from pythia_tools import public
from pythia_tools.core.errors import DataError, RequestError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "pythia"
ARCHIVE = SHARED / "evals-zero-shot.tar.xz"
needs_archive = pytest.mark.skipif(not ARCHIVE.exists(), reason="the archive of published results is not here")


@pytest.fixture(scope="module")
def shared() -> pd.DataFrame:
    return pt.published(ARCHIVE)


def number(frame: pd.DataFrame, **cell: object) -> pd.Series:
    chosen = frame
    for column, value in cell.items():
        chosen = chosen[chosen[column] == value]
    assert len(chosen) == 1, f"{len(chosen)} numbers for {cell}"
    return chosen.iloc[0]


COUNTS = {  # items per task, counted from the published standard errors by somebody else
    "lambada_openai": 5153, "piqa": 1838, "winogrande": 1267, "wsc": 104, "arc_easy": 2376, "arc_challenge": 1172,
    "sciq": 1000, "logiqa": 651, "crows_pairs_english": 1677, "crows_pairs_french": 1677,
    "crows_pairs_english_gender": 320, "crows_pairs_english_race_color": 508, "crows_pairs_english_nationality": 216,
    "crows_pairs_english_socioeconomic": 190, "crows_pairs_english_religion": 111,
    "crows_pairs_english_sexual_orientation": 93, "crows_pairs_english_age": 91,
    "crows_pairs_english_physical_appearance": 72, "crows_pairs_english_disability": 65,
    "crows_pairs_english_autre": 11,
}


@needs_archive
def test_every_task_has_its_items_in_every_file(shared: pd.DataFrame) -> None:
    found = shared[shared["n_items"].notna()].groupby("task")["n_items"].unique()
    assert {task: found[task].tolist() for task in COUNTS} == {task: [n] for task, n in COUNTS.items()}
    hendrycks = found[found.index.str.startswith("hendrycksTest-")]
    assert (hendrycks.map(len) == 1).all() and len(hendrycks) == 57 and hendrycks.map(sum).sum() == 14042
    assert shared["n_items"].dropna().eq(shared.loc[shared["n_items"].notna(), "n_published"]).all()


EXACT = [  # suite, model, collection, step, task, metric, value
    ("pythia", "70m", "zero-shot", 143000, "lambada_openai", "acc", 0.18455268775470599),
    ("pythia", "70m", "zero-shot", 143000, "lambada_openai", "ppl", 142.42891015470678),
    ("pythia", "70m", "zero-shot", 143000, "wsc", "acc", 0.36538461538461536),
    ("pythia", "70m", "zero-shot", 143000, "crows_pairs_english_gender", "likelihood_difference", 3.396826171875),
    ("pythia", "70m", "zero-shot", 0, "lambada_openai", "ppl", 3684074.4512471026),
    ("pythia-deduped", "12b", "zero-shot", 143000, "lambada_openai", "acc", 0.7096836794100524),
    ("pythia-interventions", "1.4b-intervention-long", "intervention", 143000, "lambada_openai", "acc",
     0.6136231321560256),
]


@needs_archive
@pytest.mark.parametrize(("suite", "model", "collection", "step", "task", "metric", "value"), EXACT)
def test_numbers_are_the_files_own(shared: pd.DataFrame, suite, model, collection, step, task, metric, value) -> None:
    row = number(shared, suite=suite, model=model, collection=collection, step=step, task=task, metric=metric)
    assert row["value"] == value and row["tokens"] == step * 2_097_152 and row["shots"] == 0


@needs_archive
def test_what_is_wrong_is_said(shared: pd.DataFrame) -> None:
    twins = shared[shared["defect"].str.startswith("equal in every number to pythia").fillna(False)]
    cells = twins[["suite", "model", "step"]].drop_duplicates()
    assert set(cells["model"]) == {"2.8b"} and set(cells["suite"]) == {"pythia", "pythia-deduped"}
    assert sorted(cells["step"].unique()) == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]
    named = shared[shared["defect"].str.contains("its name says 5shot").fillna(False)]
    assert set(named["model"]) == {"1b"} and sorted(named["step"].unique()) == [128, 256, 512, 1000]
    assert (shared["defect"].isna() == shared["defect_source"].isna()).all()


@needs_archive
def test_tasks_of_today(shared: pd.DataFrame) -> None:
    told = shared[shared["collection"] == "zero-shot"].drop_duplicates(["task", "metric"]).set_index(["task", "metric"])
    assert told.loc[("lambada_openai", "ppl"), "metric_now"] == "perplexity"
    assert told.loc[("crows_pairs_english", "likelihood_difference"), "metric_now"] == "likelihood_diff"
    assert told.loc[("wsc", "acc"), "task_now"] == "wsc" and "wsc273" in told.loc[("wsc", "acc"), "note"]
    assert told.loc[("sciq", "acc"), "match"] == "differs"
    assert pd.isna(told.loc[("hendrycksTest-anatomy", "acc"), "task_now"])
    assert (told.loc[("wsc", "acc"), "chance"], told.loc[("sciq", "acc"), "chance"]) == (0.5, 0.25)
    assert np.isnan(told.loc[("lambada_openai", "ppl"), "chance"])


@needs_archive
def test_every_column_is_documented_and_typed(shared: pd.DataFrame) -> None:
    assert shared.columns.tolist() == list(public.COLUMNS)
    assert {c: str(t) for c, t in shared.dtypes.items()} == {c: column.dtype for c, column in public.COLUMNS.items()}
    assert not shared.duplicated(["suite", "model", "branch", "step", "collection", "task", "subset", "shots",
                                  "metric"]).any()


def old_file(model_args: object, results: dict[str, dict[str, float]], shots: int) -> str:
    """A result file as lm-eval wrote it in 2022 and 2023."""
    return json.dumps({"results": results, "versions": dict.fromkeys(results, 0), "config": {
        "model": "hf-causal", "model_args": model_args, "num_fewshot": shots, "batch_size": 2, "device": "cuda:7",
        "no_cache": True, "limit": None, "bootstrap_iters": 100000, "description_dict": {}}})


def neox(load: str, files: list[str], iteration: int) -> dict[str, object]:
    """The part of a NeoX configuration that says what was evaluated."""
    return {"load": load, "save": None, "iteration": iteration, "config_files": dict.fromkeys(files, ""),
            "train_batch_size": 32}


ARC = {"arc_easy": {"acc": 0.7133838383838383, "acc_stderr": 0.009278594540494574,
                    "acc_norm": 0.7171717171717171, "acc_norm_stderr": 0.009241472775328205}}
FIVE_SHOT = [  # path in the public tree, model_args, shots; suite, model, release, collection, step, tokens
    ("pythia-v1/pythia-12b/five-shot/12b-5shot_step143000.json",
     "pretrained=EleutherAI/pythia-v1.1-12b,revision=step143000", 5,
     ("pythia", "12b", "v1", "five-shot", 143000, 143000 * 2**21)),
    ("pythia-v1/pythia-410m-deduped/five-shot/410m-deduped-5shot_step3000.json",
     "pretrained=EleutherAI/pythia-v1.1-410m-deduped,revision=step3000,use_accelerate=True", 5,
     ("pythia-deduped", "410m", "v1", "five-shot", 3000, 3000 * 2**21)),
    ("pythia-v1/pythia-1b-bf16/five-shot/1b-5shot_step13000.json",
     "pretrained=EleutherAI/pythia-v1.1-1b-bf16,revision=step13000", 5,
     ("pythia", "1b", "v1", "five-shot", 13000, 13000 * 2**21)),
    ("pythia-v1/pythia-160m-0.5MtokBS/160m-0.5MtokBS_step572000.json",
     "pretrained=EleutherAI/pythia-v1.1-160m-0.5MtokBS,revision=step572000", 5,
     ("pythia", "160m-0.5MtokBS", "v1", "batch-size", 572000, 572000 * 2**19)),
    ("pythia-v0/pythia-70m/five-shot/pythia-70m-5shot-global_step103000_eval_results_11-25-2022-07-51-28.json",
     neox("/fsx/hailey/pythia/ckpts/19M", ["pythia-19Mnew.yml"], 103000), 5,
     ("pythia-v0", "70m", "v0", "five-shot", 103000, 103000 * 2**21)),
    ("pythia-v0/pythia-1.4b-deduped/five-shot/pythia-1.4b-deduped-5shot-global_step71500_eval_results_12-29-2022-16-26-51.json",
     neox("/fsx/hailey/pythia/ckpts/1.3B_dedup", ["pythia-dedup-1.3B.yml"], 71500), 0,
     ("pythia-deduped-v0", "1.4b", "v0", "five-shot", 71500, 71500 * 2**22)),
    ("pythia-v0/pythia-6.9b-deduped/zero-shot/pythia-6.9b-deduped-0shot-global_step143000_eval_results_12-12-2022-00-36-54.json",
     neox("/fsx/igor/pythia/staged_model", ["6-7B.yml", "cluster.yml"], 143000), 0,
     ("pythia-deduped-v0", "6.9b", "v0", "zero-shot", 143000, 143000 * 2**21)),
    ("bias-evals/long-intervention-1.4b-deduped-step57000_eval_results_01-21-2023-20-16-29.json",
     neox("/fsx/hailey/pythia/ckpts/1.3B_dedup_genderintervention_56500start", ["pythia-dedup-1.3B.yml"], 57000), 0,
     ("pythia-deduped-v0", "1.4b-intervention-long", "v0", "bias", 57000, 57000 * 2**22)),
    ("bias-evals/pythia-410m-deduped-step66500_eval_results_01-21-2023-20-16-29.json",
     neox("/fsx/hyperion/pythia/ckpts/350M_dedup", ["intervene_350M.yml"], 66500), 0,
     ("pythia-deduped-v0", "410m", "v0", "bias", 66500, 66500 * 2**22)),
]


@pytest.mark.parametrize(("path", "model_args", "shots", "expected"), FIVE_SHOT)
@pytest.mark.parametrize("alone", [False, True])
def test_files_of_either_release_and_any_shots(tmp_path, path, model_args, shots, expected, alone) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(old_file(model_args, ARC, shots))
    frame = pt.published(file if alone else tmp_path)
    assert frame["n_items"].tolist() == [2376, 2376] and frame["metric"].tolist() == ["acc", "acc_norm"]
    assert frame["value"].tolist() == [0.7133838383838383, 0.7171717171717171]
    assert set(frame["shots"]) == {shots}
    assert frame["source"].tolist() == [str(file) if alone else path] * 2
    columns = ["suite", "model", "release", "collection", "step", "tokens"]
    assert tuple(frame[columns].iloc[0]) == expected
    claims = "called five-shot, run with num_fewshot 0" in str(frame["defect"].iloc[0])
    assert claims == (expected[3] == "five-shot" and shots == 0)


def test_the_newest_of_two_files_is_taken(tmp_path: Path) -> None:
    args = neox("/fsx/hailey/pythia/ckpts/19M", ["pythia-19Mnew.yml"], 53000)
    name = "pythia-70m-5shot-global_step53000_eval_results_{}.json"
    for stamp, acc in (("11-25-2022-07-22-36", 0.5), ("12-01-2021-07-22-36", 0.25), ("01-02-2023-00-00-01", 0.75)):
        (tmp_path / name.format(stamp)).write_text(old_file(args, {"piqa": {"acc": acc}}, 5))
    frame = pt.published(tmp_path)
    assert frame["value"].tolist() == [0.75] and "01-02-2023" in frame["source"].iloc[0]


def test_a_zip_is_an_archive_too(tmp_path: Path) -> None:
    path, args, shots, expected = FIVE_SHOT[0]
    with zipfile.ZipFile(tmp_path / "evals.zip", "w") as archive:
        archive.writestr(f"evals/{path}", old_file(args, ARC, shots))
        archive.writestr("evals/README.md", "no results")
    frame = pt.published(tmp_path / "evals.zip")
    assert tuple(frame[["suite", "model"]].iloc[0]) == expected[:2] and frame["source"].iloc[0] == f"evals/{path}"


def test_winobias_tables_with_and_without_a_config(tmp_path: Path) -> None:
    cell = {"wino_bias_type1_pro+refers_to": {"task_name": "wino_bias_type1_pro", "prompt_name": "refers_to",
                                              "em": 0.15656565656565657, "em_stderr": 0.018284173951484795}}
    base = tmp_path / "bias-evals/winobias/1.4B/eval_results_02-15-2023-21-59-54.json"
    swapped = tmp_path / "bias-evals/winobias/intervene_21/1.4B/eval_results_1.4b-deduped-long_114000.json"
    for file in (base, swapped):
        file.parent.mkdir(parents=True)
    base.write_text(json.dumps({"results": [], "table_results": cell, "config": {
        "num_fewshot": 0, "model_args": neox("/fsx/hyperion/pythia/ckpts/1.4b_deduped", ["1.4B-deduped.yml"], 3000)}}))
    swapped.write_text(json.dumps({"table_results": cell, "model_args": {
        "iteration": 114000, "config_files": {"1.4b-deduped-long": None}}}))
    frame = pt.published(tmp_path)
    assert frame[["suite", "model", "step", "subset", "n_items"]].to_numpy().tolist() == [
        ["pythia-deduped", "1.4b", 3000, "refers_to", 396],
        ["pythia-interventions", "1.4b-intervention-long", 114000, "refers_to", 396],
    ]


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"none\.tar\.xz: no such folder, archive or file"):
        pt.published(tmp_path / "none.tar.xz")
    with pytest.raises(DataError, match="no published results in it; known are"):
        pt.published(tmp_path)
    (tmp_path / "bad.tar.xz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"bad\.tar\.xz: not a readable archive"):
        pt.published(tmp_path / "bad.tar.xz")
    good = tmp_path / "evals" / "70m_step1.json"
    good.parent.mkdir()
    good.write_text(old_file("pretrained=EleutherAI/pythia-v1.1-70m,revision=step1", ARC, 0))
    for text, message in (("{", "JSONDecodeError"), ('{"results": {}, "config": {}}', "names no model"),
                          ("[1]", "no JSON object"), ("{}", "holds no `results`")):
        wrong = tmp_path / "evals" / "70m_step2.json"
        wrong.write_text(text)
        with pytest.raises(DataError, match=rf"70m_step2\.json: not a published result.*{message}") as caught:
            pt.published(tmp_path / "evals")
        assert "\n" not in str(caught.value)


def test_an_error_that_fits_no_count_is_said(tmp_path: Path) -> None:
    results = {"piqa": {"acc": 0.6, "acc_stderr": 0.0114}, "wsc": {"acc": 0.5, "acc_stderr": 0.05}}
    (tmp_path / "70m_step1.json").write_text(
        old_file("pretrained=EleutherAI/pythia-v1.1-70m,revision=step1", results, 0))
    frame = pt.published(tmp_path).set_index("task")
    assert frame.loc["piqa", "defect"].startswith("its standard error fits no whole number of items")
    assert frame.loc["wsc", "defect"] == "over 101 items; the task has 104"
