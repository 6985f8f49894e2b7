"""Public results of AI2's suites: DataDecide, signal and noise, and the OLMo ladder.

- `allenai/DataDecide-eval-results`, parquet: params (`150M`), data, task, step, seed (`default`, `small aux 2`),
  chinchilla, tokens, compute, and metrics, a text: as Python prints it in `train-*`, JSON in `macro_avg`. 5 shots.
- `allenai/signal-and-noise`, parquet: `core` and its like are wide (model, task, step, mix, size, seed; a column to a
  metric, `primary_score` among them), `random_seeds` is long (task_name, metric, value, run_name, run_type, step).
- `allenai/OLMo-ladder`, `ladder-runs/190M-1xC.csv`: `_step`, `eval/downstream/TASK_len_norm` and its like.
"""

import ast
import json
import re
from functools import cache
from pathlib import PurePosixPath

import pandas as pd

from pythia_tools.core.errors import DataError
from pythia_tools.public import names

DATADECIDE = {"params", "data", "task", "step", "seed", "metrics"}
WIDE = {"model", "task", "step"}
LONG = {"task_name", "metric", "value", "run_name", "step"}
_SEEDS = {"6198": "", "14": "-small-aux-2", "15": "-small-aux-3", "4": "-large-aux-2", "5": "-large-aux-3"}
"""The run's seed → how its model is called in the shipped suites; DataDecide's tables spell some `small aux 2`."""
_NOT_METRICS = {
    "step", "seed", "tokens", "compute", "flops", "num_instances", "chinchilla", "limit", "num_shots", "rank", "idx",
    "task_idx", "model_num_parameters", "params", "size",
}
_LADDER = {  # name → parameters without embeddings, as the ladder counts them, from its src/scaling/utils.py
    "190M": 190354176, "370M": 371262464, "760M": 758220288, "1B": 1279395840, "3B": 3169537280,
    "peteish7": 6887575552, "peteish13": 13202396160,
}
_TOKENS = "throughput/total_tokens"
_ENDINGS = re.compile(r"_(len_norm|soft_log|soft|bpb|acc|pmi_dc|f1)$")


def kind(columns: set[str]) -> str | None:
    """Which of the layouts a table with these columns is: `datadecide`, `wide`, `long`, or None."""
    if columns >= DATADECIDE:
        return "datadecide"
    if columns >= LONG:
        return "long"
    if columns >= WIDE and columns & {"primary_score", "primary_metric"}:
        return "wide"
    return None


def datadecide(name: str, raw: pd.DataFrame) -> pd.DataFrame:
    """Columns of the frame from DataDecide's results; every number of `metrics` is a row. Raises: DataError."""
    metrics = pd.DataFrame([_metrics(name, text) for text in raw["metrics"]], index=raw.index)
    told = pd.DataFrame({"mix": raw["data"], "size": raw["params"], "seed": raw["seed"], "step": raw["step"],
                         "task": raw["task"], "tokens": _column(raw, "tokens")})
    identity = _of_datadecide(told).assign(n_published=_column(metrics, "num_instances"), collection="datadecide")
    return _long(name, identity, metrics)


def wide(name: str, raw: pd.DataFrame) -> pd.DataFrame:
    """Columns of the frame from a wide table of signal and noise; rows with a mix and a size are DataDecide's."""
    raw = raw.reset_index(drop=True)
    told = pd.DataFrame({
        "mix": _column(raw, "mix" if "mix" in raw.columns else "group"), "size": _column(raw, "size"),
        "seed": _column(raw, "seed"), "step": raw["step"], "task": raw["task"], "tokens": _column(raw, "tokens"),
    })
    own = told["mix"].notna() & told["size"].notna()
    others = pd.DataFrame({
        "suite": "signal-and-noise", "model": raw["model"].astype(str), "branch": "main",
        "step": pd.to_numeric(raw["step"], errors="coerce"), "task": raw["task"],
        "seed": pd.to_numeric(told["seed"], errors="coerce"), "tokens": pd.to_numeric(told["tokens"], errors="coerce"),
    })
    parts = [part for part in (_of_datadecide(told[own]), others[~own]) if len(part)]
    identity = pd.concat(parts).sort_index() if parts else others
    identity = identity.assign(n_published=_column(raw, "num_instances"), collection="signal-and-noise")
    return _long(name, identity, raw.select_dtypes("number"))


def long(name: str, raw: pd.DataFrame) -> pd.DataFrame:
    """Columns of the frame from signal and noise's `random_seeds`."""
    return pd.DataFrame({
        "suite": "signal-and-noise", "model": raw["run_name"].astype(str), "branch": "main", "step": raw["step"],
        "tokens": _column(raw, "tokens"), "collection": "signal-and-noise", "task": raw["task_name"], "subset": "all",
        "metric": raw["metric"], "value": raw["value"].astype(float), "source": name,
    })


def is_ladder(columns: list[str]) -> bool:
    """Whether a CSV file is a run of the ladder."""
    return bool({"_step", _TOKENS} & set(columns)) and any(c.startswith("eval/") for c in columns)


def ladder(name: str, raw: pd.DataFrame) -> pd.DataFrame:
    """Columns of the frame from a run of the ladder: task and metric are taken from the columns' names.

    `eval/downstream_bpb/arc_easy_test_rc_5shot_bpb` is task `arc_easy_test_rc_5shot`, metric `bpb`, 5 shots;
    `eval/pile-validation/CrossEntropyLoss` is task `pile-validation`, metric `CrossEntropyLoss`.
    """
    stem = PurePosixPath(name).stem
    size = next((s for s in sorted(_LADDER, key=len, reverse=True) if stem.startswith(s)), None)
    step = raw["_step"] if "_step" in raw.columns else pd.Series(pd.NA, raw.index)
    tokens = raw.get(_TOKENS)
    if tokens is None and "batch_size_in_tokens" in raw.columns:
        tokens = step * raw["batch_size_in_tokens"]
    identity = pd.DataFrame({
        "suite": "olmo-ladder", "model": stem, "params": _LADDER[size] if size else pd.NA, "branch": "main",
        "step": step, "tokens": tokens if tokens is not None else pd.NA, "collection": "ladder",
    })
    parts = []
    for column in (c for c in raw.columns if c.startswith("eval/")):
        group, _, rest = column.removeprefix("eval/").partition("/")
        ending = _ENDINGS.search(rest)
        task, metric = (rest[: ending.start()], ending[1]) if ending else (group, rest)
        shots = re.search(r"(\d+)shot", task)
        told = identity.assign(shots=int(shots[1])) if shots else identity
        values = pd.to_numeric(raw[column], errors="coerce")
        parts.append(told.assign(task=task, subset="all", metric=metric, value=values, source=name)[values.notna()])
    return pd.concat(parts, ignore_index=True)


def _metrics(name: str, text: object) -> dict[str, float]:
    if not isinstance(text, str):
        found = text
    else:
        try:
            found = json.loads(text)
        except ValueError:
            found = _python(name, text)
    if not isinstance(found, dict):
        raise DataError(f"{name}: metrics {str(text)[:60]!r} are no mapping of names to numbers")
    return {k: float(v) for k, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _python(name: str, text: str) -> object:
    """A dictionary as Python prints it; JSON with other quotes is much quicker to read where nothing else differs."""
    try:
        return json.loads(text.replace("'", '"').replace("nan", "NaN").replace("None", "null"))
    except ValueError:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError) as error:
            raise DataError(f"{name}: metrics {text[:60]!r} cannot be read ({error})") from error


def _column(raw: pd.DataFrame, name: str) -> pd.Series:
    """A column, or one of nothing where the table has none."""
    return raw[name] if name in raw.columns else pd.Series(pd.NA, raw.index, dtype="object")


def _of_datadecide(told: pd.DataFrame) -> pd.DataFrame:
    """Identity columns of the shipped suites from mix, size, seed, step, tokens; and task."""
    named = told[["mix", "size", "seed"]].astype("object").fillna("default").astype(str)
    keys = list(named.itertuples(index=False, name=None))
    runs = {key: _run(*key) for key in set(keys)}
    step = pd.to_numeric(told["step"], errors="coerce").astype("Float64")
    per_step = pd.Series([runs[key].step_tokens for key in keys], told.index, dtype="Float64")
    return pd.DataFrame({
        **{field: [getattr(runs[key], field) for key in keys] for field in ("suite", "model", "params", "seed")},
        "branch": "main", "step": step.to_numpy(), "task": told["task"].to_numpy(),
        "tokens": pd.to_numeric(told["tokens"], errors="coerce").astype("Float64").fillna(step * per_step).to_numpy(),
    }, index=told.index)


def _run(mix: str, size: str, seed: str) -> names.Run:
    seed = seed.removesuffix(".0")
    ending = _SEEDS.get(seed, "" if seed == "default" else "-" + seed.replace(" ", "-"))
    suite = "datadecide-seeds" if ending else "datadecide"
    return names.known(suite, f"{_slug(mix)}-{size}{ending}")


@cache
def _slug(data: str) -> str:
    """A mix as the hub's repositories call it: `DCLM-Baseline (QC 7%, FW2)` → `dclm-baseline-qc-7p-fw2`."""
    if data in _MIXES:
        return _MIXES[data]
    plain = data.lower().replace("dolma1.7", "dolma1_7").replace("dolma1.6++", "dolma1_6plus").replace("+cc", "-and-cc")
    plain = plain.replace("%", "p").replace(" / ", "-").replace("(no math, code)", "no-math-code")
    words = re.sub(r"[(),]", "", plain).replace(" ", "-")
    return re.sub(r"(?<=p-)dolma(?=-)", "dolma1.7", words)


_MIXES = {  # names that the project's tables have for the same mixes, from its release/upload_eval.py
    "dolma17": "dolma1_7", "baseline": "dolma1_7", "no_code": "dolma1_7-no-code",
    "no_math_no_code": "dolma1_7-no-math-code", "no_reddit": "dolma1_7-no-reddit", "no_flan": "dolma1_7-no-flan",
    "dolma-v1-6-and-sources-baseline": "dolma1_6plus", "prox_fineweb_pro": "fineweb-pro",
    "fineweb_edu_dedup": "fineweb-edu", "falcon_and_cc": "falcon-and-cc",
    "falcon_and_cc_eli5_oh_top10p": "falcon-and-cc-qc-10p", "falcon_and_cc_eli5_oh_top20p": "falcon-and-cc-qc-20p",
    "falcon_and_cc_og_eli5_oh_top10p": "falcon-and-cc-qc-orig-10p",
    "falcon_and_cc_tulu_qc_top10": "falcon-and-cc-qc-tulu-10p", "DCLM-baseline": "dclm-baseline",
    "dolma17-75p-DCLM-baseline-25p": "dclm-baseline-25p-dolma1.7-75p",
    "dolma17-50p-DCLM-baseline-50p": "dclm-baseline-50p-dolma1.7-50p",
    "dolma17-25p-DCLM-baseline-75p": "dclm-baseline-75p-dolma1.7-25p",
    "dclm_ft7percentile_fw2": "dclm-baseline-qc-7p-fw2", "dclm_ft7percentile_fw3": "dclm-baseline-qc-7p-fw3",
    "dclm_fw_top10": "dclm-baseline-qc-fw-10p", "dclm_fw_top3": "dclm-baseline-qc-fw-3p",
    "pos_eli5_oh_neg_dclm_refinedweb_steps_2000_lr3e4_top10p": "dclm-baseline-qc-10p",
    "pos_eli5_oh_neg_dclm_refinedweb_steps_2000_lr3e4_top20p": "dclm-baseline-qc-20p",
}


def _long(name: str, identity: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """One row per number from identity columns and a column to a metric. Raises: DataError when there is none."""
    values = {str(c): metrics[c].astype(float) for c in metrics.columns if c not in _NOT_METRICS}
    parts = [identity.assign(metric=metric, value=value)[value.notna()] for metric, value in values.items()]
    if not parts:
        raise DataError(f"{name}: holds no metric")
    return pd.concat(parts, ignore_index=True).assign(subset="all", source=name)
