"""Tables of other projects, and lm-eval's own files of today: written small in the layouts that they have."""

from __future__ import annotations

import doctest
import importlib
import json
from pathlib import Path

import pandas as pd
import pytest

import pythia_tools as pt
from pythia_tools.core.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def results(model_args: object, tasks: dict[str, dict[str, object]], **more: object) -> str:
    """A results file of lm-eval 0.4."""
    return json.dumps({
        "results": tasks, "n-shot": dict.fromkeys(tasks, 0), "config": {"model": "hf", "model_args": model_args},
        "lm_eval_version": "0.4.13", **more})


def share(p: float, n: int) -> dict[str, object]:
    """Accuracy and its standard error as the harness computes it."""
    return {"alias": "x", "acc,none": p, "acc_stderr,none": (p * (1 - p) / (n - 1)) ** 0.5}


ACC = share(0.25, 5153) | {"perplexity,none": 90.5, "perplexity_stderr,none": 3.1}


def test_polypythias_by_model_args_and_the_newest_file(tmp_path: Path) -> None:
    seed = tmp_path / "pythia-410m-seed3/step110000/EleutherAI__pythia-410m-seed3"
    base = tmp_path / "pythia-410m-seed3/step110000/EleutherAI__pythia-410m"
    seed.mkdir(parents=True)
    base.mkdir()
    args = "pretrained=EleutherAI/pythia-410m-seed3,revision=step110000"
    stamped = [("2024-08-15T07-01-02.100001", 0.1), ("2024-09-20T00-00-00.01", 0.3), ("2024-08-30T23-59-59.9", 0.2)]
    for stamp, acc in stamped:
        tasks = {"lambada_openai": ACC | share(acc, 5153)}
        if stamp.startswith("2024-08-15"):
            tasks["wsc"] = share(0.5, 104)  # only the oldest has it: it stays
        (seed / f"results_{stamp}.json").write_text(results(args, tasks))
    (base / "results_2024-08-15T00-00-00.000001.json").write_text(
        results({"pretrained": "EleutherAI/pythia-410m", "revision": "step110000"}, {"lambada_openai": ACC}))
    frame = pt.published(tmp_path)
    acc = frame[frame["metric"] == "acc"].set_index(["suite", "model", "task"])
    assert acc["value"].to_dict() == {
        ("pythia", "410m", "lambada_openai"): 0.25, ("pythia-seeds", "410m-seed3", "lambada_openai"): 0.3,
        ("pythia-seeds", "410m-seed3", "wsc"): 0.5,
    }
    assert acc["seed"].tolist() == [1234, 3, 3] and set(frame["step"]) == {110000}
    assert set(frame["tokens"]) == {110000 * 2**21}
    misplaced = acc["defect"].notna()
    assert misplaced.tolist() == [True, False, False]
    assert "lies in the folder of pythia-410m-seed3/step110000" in acc.loc[misplaced, "defect"].iloc[0]
    assert "2024-09-20" in acc["source"].iloc[1]
    assert (frame["match"] == "same").all() and (frame["metric_now"] == frame["metric"]).all()


def test_results_of_ones_own_with_samples(tmp_path: Path) -> None:
    flags = [1, 0, 0, 1, 1, 0, 1, 1]
    mean = sum(flags) / 8
    stamp = "2026-11-21T10-00-00.5"
    text = results(
        {"pretrained": "runs/tiny/xs/step12", "dtype": "float32"},
        {"facts": share(mean, 8),
         "sums": {"exact_match,strict-match": 0.75, "exact_match,flexible": 0.5},
         "both": {"acc,none": mean, "acc_stderr,none": 0.123}},
        **{"n-samples": {"facts": {"original": 20, "effective": 8}, "sums": {"original": 4, "effective": 4}},
           "group_subtasks": {"both": ["facts", "sums"], "facts": []}, "n-shot": {"facts": 2, "sums": 0}})
    (tmp_path / f"results_{stamp}.json").write_text(text)
    rows = [{"doc_id": i, "filter": "none", "metrics": ["acc"], "acc": float(flag)} for i, flag in enumerate(flags)]
    (tmp_path / f"samples_facts_{stamp}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows = [{"doc_id": i, "filter": f, "metrics": ["exact_match"], "exact_match": float(i < 2)}
            for f in ("strict-match", "flexible") for i in range(4)]
    (tmp_path / f"samples_sums_{stamp}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    frame = pt.published(tmp_path).set_index(["task", "subset"])
    assert frame[["suite", "model", "step"]].drop_duplicates().to_numpy().tolist() == [["tiny", "xs", 12]]
    facts = frame.loc[("facts", "all")]
    assert (facts["n_items"], facts["n_published"], facts["shots"]) == (8, 20, 2)
    assert facts["defect"] == "over 8 items; the task has 20"
    both = frame.loc[("both", "all")]
    assert (both["n_items"], both["n_published"]) == (12, 24), "a group's items are its tasks'"
    assert frame.loc[("sums", "strict-match"), "defect"] == "not the mean of the samples beside it"
    assert pd.isna(frame.loc[("sums", "flexible"), "defect"]) and frame.loc[("sums", "flexible"), "n_items"] == 4
    (tmp_path / f"samples_sums_{stamp}.jsonl").write_text('{"doc_id": 0, "filter": "none"}\nnot json\n')
    with pytest.raises(DataError, match=rf"samples_sums_{stamp}\.jsonl: line 2 is no sample"):
        pt.published(tmp_path)


def test_lm_evals_own_file(tmp_path: Path) -> None:
    """A file that lm-eval wrote itself, of a task of ours, for a random model."""
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    (tmp_path / "tiny.yaml").write_text(
        "task: tiny_facts\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'd.jsonl'}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_target: a\n"
        "doc_to_choice: [' yes', ' no']\nmetric_list: [{metric: acc}, {metric: acc_norm}]\n")
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps({"q": f"Is {i} even?", "a": i % 2}) for i in range(9)))
    tasks = TaskManager(include_path=str(tmp_path), include_defaults=False)
    tracker = EvaluationTracker(output_path=str(tmp_path / "out"))
    found = lm_eval.simple_evaluate(model="dummy", tasks=["tiny_facts"], task_manager=tasks, log_samples=True)
    samples = found.pop("samples")
    found["config"]["model_args"] = "pretrained=EleutherAI/pythia-14m-seed2,revision=step512"
    tracker.save_results_aggregated(results=found, samples=samples)
    for task, rows in samples.items():
        tracker.save_results_samples(task_name=task, samples=rows)
    frame = pt.published(tmp_path / "out")
    assert frame[["suite", "model", "step", "seed"]].drop_duplicates().to_numpy().tolist() == [
        ["pythia-seeds", "14m-seed2", 512, 2]]
    for metric in ("acc", "acc_norm"):
        row = frame[frame["metric"] == metric].iloc[0]
        assert row["value"] == found["results"]["tiny_facts"][f"{metric},none"]
        assert (row["n_items"], row["n_published"], row["shots"]) == (9, 9, 0)
    assert frame["defect"].isna().all()


def metrics(acc: float) -> dict[str, object]:
    return {"primary_metric": acc, "acc_raw": acc, "correct_prob_per_char": float("nan"), "num_instances": 1838,
            "predicted_index_raw": None}


def test_datadecide(tmp_path: Path) -> None:
    cells = [("150M", "DCLM-Baseline (QC 7%, FW2)", "default", "dclm-baseline-qc-7p-fw2-150M", 6198),
             ("1B", "DCLM-Baseline 25% / Dolma 75%", "large aux 2", "dclm-baseline-25p-dolma1.7-75p-1B-large-aux-2", 4),
             ("4M", "Dolma1.7 (no math, code)", "small aux 3", "dolma1_7-no-math-code-4M-small-aux-3", 15),
             ("4M", "Dolma1.6++", "default", "dolma1_6plus-4M", 6198),
             ("4M", "Falcon+CC (QC Orig 10%)", "default", "falcon-and-cc-qc-orig-10p-4M", 6198),
             ("4M", "FineWeb-Edu", "default", "fineweb-edu-4M", 6198),
             ("4M", "DCLM-Baseline (QC FW 3%)", "default", "dclm-baseline-qc-fw-3p-4M", 6198)]
    rows = [{"params": size, "data": data, "task": "piqa", "step": 1250, "seed": seed, "chinchilla": "5xC",
             "tokens": 1250 * 7, "compute": 1e15,
             "metrics": repr(metrics(0.5)) if k % 2 else json.dumps(metrics(0.5))}
            for k, (size, data, seed, *_) in enumerate(cells)]
    pd.DataFrame(rows).to_parquet(tmp_path / "train-00000-of-00004.parquet")
    frame = pt.published(tmp_path)
    got = frame[frame["metric"] == "primary_metric"].set_index("model")
    suites = pt.load_suite("datadecide").models | pt.load_suite("datadecide-seeds").models
    for _, _, _, model, seed in cells:
        assert model in suites and got.loc[model, "seed"] == seed
        assert got.loc[model, "suite"] == ("datadecide-seeds" if "aux" in model else "datadecide")
    assert set(frame["metric"]) == {"primary_metric", "acc_raw"} and set(frame["tokens"]) == {8750}
    assert set(frame["n_published"]) == {1838} and set(frame["collection"]) == {"datadecide"}
    pd.DataFrame(rows[:1]).assign(metrics="nothing").to_parquet(tmp_path / "train-00000-of-00004.parquet")
    with pytest.raises(DataError, match=r"train-00000-of-00004\.parquet: metrics 'nothing' cannot be read"):
        pt.published(tmp_path)


def test_signal_and_noise(tmp_path: Path) -> None:
    core = pd.DataFrame([
        {"model": "DataDecide-c4-150M", "task": "arc_easy", "step": 38157.0, "mix": "c4", "size": "150M",
         "model_type": "datadecide", "primary_score": 0.41, "logits_per_byte_corr": 1.2, "num_instances": 2376},
        {"model": "OLMo-2-1124-13B", "task": "arc_easy", "step": None, "mix": None, "size": None,
         "model_type": "external", "primary_score": 0.884259, "logits_per_byte_corr": None, "num_instances": 2376},
    ])
    core.to_parquet(tmp_path / "core-00000-of-00001.parquet")
    pd.DataFrame([{"run_name": "seed-7", "run_type": "seed", "task_name": "boolq", "metric": "acc", "value": 0.6,
                   "step": 69000}]).to_parquet(tmp_path / "random_seeds-00000-of-00001.parquet")
    frame = pt.published(tmp_path).set_index(["suite", "model", "task", "metric"])
    assert frame.loc[("datadecide", "c4-150M", "arc_easy", "primary_score"), "value"] == 0.41
    assert frame.loc[("datadecide", "c4-150M", "arc_easy", "logits_per_byte_corr"), "step"] == 38157
    outside = frame.loc[("signal-and-noise", "OLMo-2-1124-13B", "arc_easy", "primary_score")]
    assert outside["value"] == 0.884259 and pd.isna(outside["step"]) and outside["n_published"] == 2376
    assert frame.loc[("signal-and-noise", "seed-7", "boolq", "acc"), "value"] == 0.6
    assert len(frame) == 4 and set(frame["collection"]) == {"signal-and-noise"}


@pytest.mark.skipif(not (SHARED / "ladder").is_dir(), reason="the ladder's runs are not here")
def test_the_ladder() -> None:
    file = SHARED / "ladder/ladder-runs/190M-1xC.csv"
    frame, raw = pt.published(file), pd.read_csv(file)
    final = frame[frame["step"] == raw["_step"].max()].set_index(["task", "metric"])
    last = raw.iloc[raw["_step"].idxmax()]
    arc = final.loc[("arc_easy_test_rc_5shot", "bpb")]
    assert arc["value"] == last["eval/downstream_bpb/arc_easy_test_rc_5shot_bpb"]
    assert (arc["model"], arc["params"], arc["shots"]) == ("190M-1xC", 190354176, 5)
    assert arc["tokens"] == last["throughput/total_tokens"]
    assert final.loc[("boolq_val_rc_5shot", "acc"), "value"] == last["eval/downstream/boolq_val_rc_5shot_acc"]
    assert final.loc[("pile-validation", "CrossEntropyLoss"), "value"] == last["eval/pile-validation/CrossEntropyLoss"]
    evals = [c for c in raw.columns if c.startswith("eval/")]
    assert len(frame) == raw[evals].notna().sum().sum(), "every number, once"


@pytest.mark.skipif(not (SHARED / "pythia").is_dir(), reason="the public tables are not here")
def test_maps_and_tables() -> None:
    maps = pt.published(SHARED / "pythia/training_maps.tsv").set_index(["seed", "step", "metric"])["value"]
    assert maps[1234, 0, "score"] == -1.1311438344908555 and maps[1234, 143000, "state"] == 4
    assert (maps[3, 143000, "state"], maps[4, 143000, "state"]) == (1, 0) and len(maps) == 810
    assert sorted({seed for seed, _, m in maps.index if m == "stable" and not maps[seed, 0, m]}) == [3, 4]
    table = pt.published(SHARED / "pythia/published_evals_v1.json")
    stored = pt.published(SHARED / "pythia/evals-zero-shot.tar.xz")
    zero = stored[stored["collection"] == "zero-shot"]
    keys = ["suite", "model", "step", "task", "metric"]
    both = table.merge(zero, on=keys, suffixes=("", "_file"))
    assert len(both) == len(table) == 16 * 27 * 12 and (both["value"] == both["value_file"]).all()
    cells = pt.published(SHARED / "pythia/predictable_memorization_confusions.json")
    small = cells[(cells["model"] == "70m") & (cells["subset"] == "small_model_predict_large_model")]
    final = small[small["step"] == 143000].set_index("metric")
    assert final["value"].to_dict() == {"both": 0.30428, "missed": 1.24136, "false_alarm": 0.01389, "neither": 98.44047}
    assert final["defect"].notna().to_dict() == {"both": False, "missed": True, "false_alarm": True, "neither": False}


def test_term_frequency(tmp_path: Path) -> None:
    folder = tmp_path / "csv/pythia-350m-deduped"
    folder.mkdir(parents=True)
    (folder / "term_frquency_all_shots.csv").write_text(
        "model,checkpoint,task,fewshot,acc,acc_stderr\n"
        "EleutherAI/pythia-350m-deduped,143000,num_reasoning_arithmetic_addition_7,16,0.92,0.03875617133214441\n")
    row = pt.published(tmp_path).iloc[0]
    assert row[["suite", "model", "step", "tokens"]].tolist() == ["pythia-deduped-v0", "410m", 71500, 143000 * 2**21]
    assert row[["task", "subset", "shots", "n_items"]].tolist() == ["num_reasoning_arithmetic_addition", "7", 16, 50]


def test_files_of_other_kinds_are_left_out_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model": {}}')
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    (tmp_path / "results_2024-01-01T00-00-00.0.json").write_text(
        results("pretrained=EleutherAI/pythia-70m,revision=step1", {"lambada_openai": ACC}))
    assert len(pt.published(tmp_path)) == 2
    assert "left out, of no known layout: rows.csv, tokenizer.json" in capsys.readouterr().err


def test_memorized_rows_are_counted(tmp_path: Path) -> None:
    rows = pd.DataFrame({"index": [3, 9, 12], "tokens": [[1] * 64] * 3, "__index_level_0__": [0, 1, 2]})
    rows.to_parquet(tmp_path / "deduped.12b.63000-00000-of-00001-abc.parquet")
    rows[:2].to_parquet(tmp_path / "duped.1.4b-00000-of-00001.parquet")
    frame = pt.published(tmp_path)
    assert frame[["suite", "model", "step", "value", "n_published"]].to_numpy().tolist() == [
        ["pythia", "1.4b", 143000, 2.0, 146_432_000], ["pythia-deduped", "12b", 63000, 3.0, 64_512_000]]
    rows.to_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"other\.parquet: its name is no split"):
        pt.published(tmp_path)


@pytest.mark.parametrize("module", ["columns", "names", "reader", "rows", "tasks"])
def test_the_examples_in_the_code_hold(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"pythia_tools.public.{module}"))
    assert found.attempted and not found.failed
