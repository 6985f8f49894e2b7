"""Public tables: term-frequency CSVs, the training maps, and two JSON tables made of the published results.

- `evals/csv/pythia-13b-deduped/term_frquency_all_shots.csv` (spelled so): accuracy per first operand, of seven
  deduplicated models of the first release under their names before January 2023, steps on the scale of 2M tokens.
- `polypythias/data/training_maps.tsv`: a score and a hidden state per seed and step; 410m by the paper's figure, which
  the file does not say.
- `data/deduped.12b.63000-00000-of-00001-….parquet` of EleutherAI/pythia-memorized-evals, and what `memorization
  --exchange` writes like it: a row per memorized row of the training data; only their number is read.
- `{model: {step: {metric: value}}}`: zero-shot numbers of v1 as one table.
- `{TABLE|MODEL|CHECKPOINT: [both, missed, false alarm, neither]}`: predictable memorization, percent of rows.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import pandas as pd

from pythia_tools.core.errors import DataError
from pythia_tools.public import names
from pythia_tools.public.rows import Line

TERM_COLUMNS = ["model", "checkpoint", "task", "fewshot", "acc", "acc_stderr"]
QUESTIONS = 50
"""Second operands of each first one."""
MAP_COLUMNS = ["score", "state", "step", "seed", "group"]
_TASK = r"(num_reasoning_(?:arithmetic|op_infer)_(?:multiplication|addition))_(\d+)"
MEMORIZED_COLUMNS = {"index", "tokens", "__index_level_0__"}
_SPLIT = re.compile(r"(?P<corpus>duped|deduped)\.(?P<size>[\w.]+?)(?:\.(?P<step>\d+))?(?:\.new)?-\d+-of-")
_PERCENT = re.compile(r"memorization_\w+\|[\d.]+[MB]\|\d+m")
_CELLS = ("both", "missed", "false_alarm", "neither")
_STEPS = {"23m": 23_000, "44m": 43_000, "65m": 63_000, "85m": 83_000, "105m": 103_000, "126m": 123_000, "146m": 143_000}
"""Millions of rows, as memorization papers label checkpoints → step."""
_ROWS = 23_552_000
_KEYS = {  # key of the table → task and metric as published
    "lambada_acc": ("lambada_openai", "acc"), "lambada_ppl": ("lambada_openai", "ppl"),
    "crows_en": ("crows_pairs_english", "pct_stereotype"),
    "crows_en_gender": ("crows_pairs_english_gender", "pct_stereotype"),
    "crows_en_likdiff": ("crows_pairs_english", "likelihood_difference"),
}


def term_frequency(name: str, raw: pd.DataFrame) -> pd.DataFrame:
    """Columns of the frame from a term-frequency CSV. Raises: DataError naming the cell that is not the study's."""
    fields = raw["task"].str.extract(rf"^{_TASK}$")
    if fields[0].isna().any():
        raise DataError(f"{name}: task {raw.loc[fields[0].isna(), 'task'].iloc[0]!r} is none of the study's")
    twice = raw.duplicated(["model", "checkpoint", "task", "fewshot"])
    if twice.any():
        first = raw[twice].iloc[0]
        raise DataError(f"{name}: {first['model']} step {first['checkpoint']} {first['task']} "
                        f"{first['fewshot']}-shot is there twice")
    places = {}
    for model, label in raw[["model", "checkpoint"]].drop_duplicates().itertuples(index=False):
        run, step = names.named(f"EleutherAI/{str(model).rpartition('/')[2]}", f"step{label}")
        if run.release is None:
            raise DataError(f"{name}: model {model!r} is not known")
        places[model, label] = run.at(step)
    told = pd.DataFrame([places[key] for key in zip(raw["model"], raw["checkpoint"], strict=True)], index=raw.index)
    return told.assign(
        collection="term-frequency", task=fields[0], subset=fields[1], shots=raw["fewshot"], metric="acc",
        value=raw["acc"], stderr=raw["acc_stderr"], n_published=QUESTIONS, source=name,
    )


def training_map(name: str, raw: pd.DataFrame) -> pd.DataFrame:
    """Columns of the frame from the training maps: metrics `score`, `state` and `stable` (1: not an outlier there)."""
    wide = raw.assign(stable=(raw["group"].astype(str) != "[3, 4]").astype(float))
    long = wide.melt(id_vars=["step", "seed"], value_vars=["score", "state", "stable"], var_name="metric")
    runs = {seed: names.of_suite("pythia-seeds", f"410m-seed{seed}") for seed in long["seed"].unique()}
    told = pd.DataFrame([runs[seed].at(step) for seed, step in zip(long["seed"], long["step"], strict=True)])
    return told.assign(
        collection="training-maps", task="training_map", subset="all", metric=long["metric"],
        value=long["value"].astype(float), source=name,
        note="the file does not name the size; 410m by the paper's figure",
    )


def memorized(name: str, rows: int) -> pd.DataFrame:
    """Columns of the frame from a file of memorized rows: their number. Raises: DataError for another file name."""
    found = _SPLIT.match(PurePosixPath(name).name)
    if not found:
        raise DataError(f"{name}: its name is no split CORPUS.SIZE[.STEP] of duped or deduped models")
    run = names.known("pythia-deduped" if found["corpus"] == "deduped" else "pythia", found["size"])
    step = int(found["step"] or 143_000)
    if not run.step_tokens:  # a model of one's own, in the public layout
        run = names.Run(None, run.model)
    return pd.DataFrame([{
        **run.at(step), "release": None, "collection": "memorized-evals", "task": "memorized",
        "metric": "memorized_rows", "value": float(rows), "source": name,
        "n_published": 1024 * step if run.step_tokens else None,
        "note": "32 tokens after 32, as published; whether v0 or v1, the data set does not say",
    }])


def is_table(value: Mapping[str, object]) -> bool:
    """Whether a JSON object is `{model: {step: {metric: value}}}`."""
    steps = next(iter(value.values()), None)
    return isinstance(steps, dict) and bool(steps) and all(
        str(step).isdigit() and isinstance(metrics, dict) for step, metrics in steps.items()
    )


def table(name: str, value: Mapping[str, Mapping[str, Mapping[str, object]]]) -> Iterator[Line]:
    """The numbers of a JSON table of zero-shot results."""
    for model, steps in value.items():
        for label, metrics in steps.items():
            run, step = names.named(f"EleutherAI/{model}", f"step{label}")
            for key, number in metrics.items():
                task, metric = _KEYS.get(key, (key, "acc"))
                if isinstance(number, int | float) and not isinstance(number, bool):
                    yield {**run.at(step), "collection": "table", "task": task, "subset": "all", "shots": 0,
                           "metric": metric, "value": float(number), "source": name}


def is_confusions(value: Mapping[str, object]) -> bool:
    """Whether a JSON object is the table of predictable memorization."""
    return bool(value) and all(_PERCENT.fullmatch(key) for key in value)


def confusions(name: str, value: Mapping[str, Sequence[float]]) -> Iterator[Line]:
    """Percent of rows, one number to a cell: the model that predicts names the row, the subset which table it is of."""
    for key, cells in value.items():
        subset, size, label = key.removeprefix("memorization_").split("|")
        if len(cells) != len(_CELLS):
            raise DataError(f"{name}: {key} has {len(cells)} cells, not {', '.join(_CELLS)}")
        run = names.pythia(size, deduped=False, v0=True)
        for cell, percent in zip(_CELLS, cells, strict=True):
            yield {
                **run.at(_labelled(run, _STEPS[label])), "collection": "predictable-memorization",
                "task": "predictable_memorization", "subset": subset, "metric": cell, "value": float(percent),
                "n_published": _ROWS, "source": name, **(_SWAPPED if cell in ("missed", "false_alarm") else {}),
            }


def _labelled(run: names.Run, step: int) -> int:
    """The real step of a label on the scale of 2M tokens a step."""
    return step * 2_097_152 // (run.step_tokens or 2_097_152)


_SWAPPED = {
    "defect": "the published figures and tables call this cell by the other one's name: false positives and false "
              "negatives are exchanged there; here they are by their meaning",
    "defect_source": "EleutherAI/pythia predictable-memorization/eval_memorization.py gives (prediction, truth) where "
                     "(truth, prediction) is expected",
}
