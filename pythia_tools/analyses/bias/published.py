"""The published results of the gender-bias study, read into the same frame as our own: base, 7 % and 21 % runs.

Reads EleutherAI/pythia's `evals/` (a folder or a .tar.xz of it): CrowS-Pairs, LAMBADA and the other zero-shot numbers
of `pythia-v1/*/{zero-shot,baseline,intervention}`, those of the first suite in `bias-evals/*.json`, and the exact-match
WinoBias tables of `bias-evals/winobias`. Branches: `main` (published zero-shot), `main-rerun` (the base model evaluated
again beside the intervention), `swap-7%`, `swap-21%`.
Standard errors are the files' own. Where only a share and its error are given, the number of items follows from them:
n = p (1 − p) / se² + 1.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from pythia_tools import plots
from pythia_tools.analyses.bias.columns import summary
from pythia_tools.analysis import Sentence
from pythia_tools.analysis.words import records
from pythia_tools.core import files, progress, tables
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.results import Run, RunFolder
from pythia_tools.core.statistics import mean, minimal_detectable_effect, normal_bounds, sign_flip_test
from pythia_tools.suites import load_suite

TASKS = ("lambada_openai", "crows_pairs_english", "wino_bias")
"""Task names (beginnings) that are read by default: what the study is about."""
V1_TOKENS_PER_STEP = 1024 * 2048
_V1 = re.compile(
    r"pythia-v1/pythia-(?P<model>[^/]+)/(?P<kind>zero-shot|baseline|intervention)/"
    r"(?:[a-z]+-)?(?P<name>.+?)_step(?P<step>\d+)\.json$"
)
_V0 = re.compile(
    r"bias-evals/(?P<kind>(?:long-)?intervention|pythia)-(?P<model>[^/]+?-deduped)-"
    r"step(?P<step>\d+)_eval_results[^/]*\.json$"
)
_WINOBIAS = re.compile(r"bias-evals/winobias/(?:intervene_(?P<share>7|21)/)?(?P<model>[^/]+)/[^/]+\.json$")
_V0_BATCH = {"19m": 1024, "6.9b": 1024, "350m": 2048, "1.3b": 2048}
"""Rows per step: the 4M-token batches of the first suite's 350m and 1.3b."""
ITEMS = [*tables.IDENTITY, "task", "prompt", "metric", "value", "stderr", "file"]
Identity: TypeAlias = dict[str, object]


def read_published(path: str | Path, *, tasks: Iterable[str] = TASKS) -> pd.DataFrame:
    """Every published number of these tasks: identity, task, prompt (WinoBias), metric, value, stderr, file.

    Raises: RequestError when there is no such folder or archive; DataError when a file in it is damaged, or none is
    there.
    """
    wanted = tuple(tasks)
    rows = [row for name, text in _files(Path(path)) for row in _rows(name, text, wanted)]
    if not rows:
        named = ", ".join(wanted)
        holds = "it should hold pythia-v1/ and bias-evals/ of Pythia's evals/"
        raise DataError(f"{path}: no published results of {named}; {holds}")
    frame = pd.DataFrame(rows, columns=ITEMS)
    return tables.check_items(frame.sort_values(["suite", "model", "branch", "step", "task", "prompt", "metric"],
                                                kind="stable"))


def _files(path: Path) -> Iterator[tuple[str, str]]:
    """(name below the root, text) of each JSON file that may hold results."""
    if path.is_dir():
        for file in sorted(path.rglob("*.json")):
            name = file.relative_to(path).as_posix()
            if _kind(name):
                yield name, file.read_text("utf-8")
        return
    if not path.is_file():
        raise RequestError(f"{path}: no such folder or archive")
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() and _kind(member.name) else None
                if content is not None:
                    yield member.name, io.TextIOWrapper(content, "utf-8").read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path}: not a readable archive ({error})") from error


def _kind(name: str) -> bool:
    return bool(_V1.search(name) or _V0.search(name) or _WINOBIAS.search(name))


def _rows(name: str, text: str, tasks: tuple[str, ...]) -> Iterator[Identity]:
    try:
        value = json.loads(text)
        if found := _WINOBIAS.search(name):
            identity = _winobias_identity(found, value)
            metrics = [(r["task_name"], r["prompt_name"], r) for r in value["table_results"].values()]
        else:
            identity = _v1_identity(_V1.search(name)) or _v0_identity(_V0.search(name))
            metrics = [(task, "", numbers) for task, numbers in value["results"].items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{name}: not a published result ({type(error).__name__}: {error})") from error
    for task, prompt, numbers in metrics:
        if not str(task).startswith(tasks):
            continue
        for metric, number in numbers.items():
            if isinstance(number, int | float) and not metric.endswith("_stderr"):
                error_ = numbers.get(f"{metric}_stderr")
                stderr = float(error_) if error_ is not None else np.nan
                yield {**identity, "task": task, "prompt": prompt, "metric": metric, "value": float(number),
                       "stderr": stderr, "file": name}


def _v1_identity(found: re.Match[str] | None) -> Identity:
    if found is None:
        return {}
    swapped = "swap-21%" if found["name"].endswith("-long") else "swap-7%"
    branch = {"zero-shot": "main", "baseline": "main-rerun"}.get(found["kind"], swapped)
    return _identity("pythia", found["model"], int(found["step"]), branch, V1_TOKENS_PER_STEP)


def _v0_identity(found: re.Match[str] | None) -> Identity:
    assert found is not None
    branch = {"pythia": "main", "intervention": "swap-7%", "long-intervention": "swap-21%"}[found["kind"]]
    rows = _V0_BATCH.get(found["model"].removesuffix("-deduped"), 1024)
    return {**_identity("pythia-v0", found["model"], int(found["step"]), branch, rows * 2048), "params": pd.NA}


def _winobias_identity(found: re.Match[str], value: dict[str, Any]) -> Identity:
    arguments = value.get("model_args") or value["config"]["model_args"]
    branch = f"swap-{found['share']}%" if found["share"] else "main"
    return _identity("pythia", f"{found['model'].lower()}-deduped", int(arguments["iteration"]), branch,
                     V1_TOKENS_PER_STEP)


def _identity(suite: str, model: str, step: int, branch: str, tokens_per_step: int) -> Identity:
    params = _params().get(model.split("-")[0], pd.NA)
    return {"suite": suite, "model": model, "params": params, "step": step, "tokens": step * tokens_per_step,
            "branch": branch}


@cache
def _params() -> dict[str, int | None]:
    """Parameters of each size, from the suite's manifest."""
    return {name: model.params for name, model in load_suite("pythia").models.items()}


def to_summary(results: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Published results as a summary table: subset is WinoBias' prompt, intervals are ± z standard errors."""
    value, error = results["value"].to_numpy(float), results["stderr"].to_numpy(float)
    share = results["metric"].isin(["acc", "acc_norm", "pct_stereotype", "em"]).to_numpy() & (error > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        n = np.where(share, np.rint(value * (1 - value) / error**2 + 1), np.nan)
    low, high = normal_bounds(value, error, level)
    frame = results[[*tables.IDENTITY, "task", "metric", "value"]].assign(
        subset=results["prompt"].where(results["prompt"] != "", "all"), low=low, high=high,
        n=pd.array(n, dtype="Float64").astype("Int64"), unit="item",
        interval=np.where(np.isfinite(error), f"normal{round(100 * level)} of the published stderr", "none"),
    )
    return summary(frame.to_dict("records"))  # type: ignore[arg-type]


def winobias_cells(results: pd.DataFrame) -> pd.DataFrame:
    """Exact match per checkpoint and set, averaged over the two prompts.

    Columns: type1_pro, type1_anti, type2_pro, type2_anti, `net` (mean over types of pro − anti), `net_stderr` (in
    quadrature), `mean` (of the four).
    """
    em = results[results["metric"] == "em"]
    if em.empty:
        raise RequestError("these results hold no WinoBias exact match (metric em)")
    cell = em["task"].str.removeprefix("wino_bias_")
    keys = tables.IDENTITY
    means = em.assign(cell=cell).groupby([*keys, "cell"], dropna=False)["value"].mean().unstack("cell")
    square = (em["stderr"] ** 2).groupby([em[k] for k in keys], dropna=False).sum()
    means["net"] = ((means["type1_pro"] - means["type1_anti"]) + (means["type2_pro"] - means["type2_anti"])) / 2
    means["net_stderr"] = np.sqrt(square) / 4  # each of the 8 cells enters the mean difference with weight 1/4
    means["mean"] = means[["type1_pro", "type1_anti", "type2_pro", "type2_anti"]].mean(axis=1)
    return means.reset_index()


def paired_changes(results: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Intervention minus base, paired by checkpoint, over all checkpoints that both have: gap, exact match,
    CrowS-Pairs, LAMBADA.

    CrowS-Pairs and LAMBADA are paired with the re-run base where its files have the number, as it was evaluated beside
    the intervention; the published one is used for those it lacks and named in `reference`.
    Returns: suite, model, params, branch, reference, task, value, low, high, n, unit, interval, p, minimal_effect, sd
    (n − 1).
    Checkpoints of one run are not independent, so p and interval say what these checkpoints show, not other runs.
    """
    return pd.DataFrame([
        {**named, **found} for named, here, column in _compared(results) for found in _changes(here, column, level)
    ])


def _compared(results: pd.DataFrame) -> Iterator[tuple[Identity, pd.DataFrame, str]]:
    """Suite, model, size and task of each number that interventions are compared by, its rows, and their column."""
    asked = [(results["task"] == task) & (results["metric"] == metric) for task, metric in _PAIRED]
    compared = [(task, results[rows], "value") for (task, _), rows in zip(_PAIRED, asked, strict=True)]
    if (results["metric"] == "em").any():
        cells = winobias_cells(results)
        compared = [("winobias_em_gap", cells, "net"), ("winobias_em", cells, "mean"), *compared]
    for task, frame, column in compared:
        for (suite, model), here in frame.groupby(["suite", "model"], sort=False):
            yield {"suite": suite, "model": model, "params": here["params"].iloc[0], "task": task}, here, column


_PAIRED = (
    ("crows_pairs_english_gender", "pct_stereotype"), ("crows_pairs_english", "pct_stereotype"),
    ("lambada_openai", "acc"),
)
"""Task and metric."""


def _branches(here: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Each intervention of a model, and its control."""
    has = sorted(map(str, here["branch"].unique()))
    control = "main-rerun" if "main-rerun" in has else "main"
    for branch in has:
        if branch not in ("main", "main-rerun") and control in has:
            yield branch, control


def _changes(here: pd.DataFrame, column: str, level: float) -> Iterator[Identity]:
    series = {str(b): part.set_index("step")[column] for b, part in here.groupby("branch")}
    for branch, control in _branches(here):
        both = pd.concat([series[branch], series[control]], axis=1, join="inner").dropna()
        if len(both):
            change = (both.iloc[:, 0] - both.iloc[:, 1]).to_numpy(float)
            yield {
                "branch": branch, "reference": control, **mean(change, unit="checkpoint", level=level).columns(),
                "p": sign_flip_test(change), "minimal_effect": minimal_detectable_effect(change, level=level),
                "sd": float(change.std(ddof=1)) if change.size > 1 else np.nan,
            }


def changes_summary(changes: pd.DataFrame) -> pd.DataFrame:
    """Paired changes as summary rows: `outcome_paired_difference` over checkpoints, its p-value and minimal effect."""
    rows: list[Identity] = []
    for record in ({str(k): v for k, v in row.items()} for row in records(changes)):
        bare = {**record, "low": np.nan, "high": np.nan, "interval": "none"}
        rows += [
            {**record, "metric": "outcome_paired_difference"},
            {**bare, "metric": "outcome_paired_p", "value": record["p"]},
            {**bare, "metric": "outcome_minimal_detectable_effect", "value": record["minimal_effect"]},
        ]
    return summary(rows)


def final_verdicts(results: pd.DataFrame, *, level: float = 0.95) -> list[Sentence]:
    """Sentences on the final checkpoints: each intervention's change against its own standard error, in words.

    Their rows are those of `to_summary(results)`.
    """
    found = []
    for named, here, column in _compared(results):
        if column == "mean":  # exact match itself has no error of its own here; its gap has
            continue
        step = here["step"].max()
        last = here[here["step"] == step].set_index("branch")
        metric = "em" if column == "net" else here["metric"].iloc[0]
        error = last["net_stderr" if column == "net" else "stderr"]
        same = (results["suite"] == named["suite"]) & (results["model"] == named["model"]) & (results["step"] == step)
        used = results[same & (results["metric"] == metric)]
        if column != "net":
            used = used[used["task"] == named["task"]]
        for branch, control in _branches(last.reset_index()):
            change = float(last.loc[branch, column]) - float(last.loc[control, column])
            noise = float(normal_bounds(0, np.hypot(error[branch], error[control]), level)[1])
            word = "within noise" if abs(change) <= noise else ("higher" if change > 0 else "lower")
            text = (
                f"{named['suite']}/{named['model']}, {_CALLED[str(named['task'])]}: {branch} against {control} "
                f"at step {step:,} is {word}, {change:+.4f} (two checkpoints' sampling error: ±{noise:.4f})."
            )
            found.append(Sentence.of(text, used[used["branch"].isin([branch, control])]))
    return found


_CALLED = {
    "winobias_em_gap": "winobias pro-anti (exact match)", "crows_pairs_english_gender": "crows gender pct_stereotype",
    "crows_pairs_english": "crows pct_stereotype", "lambada_openai": "lambada acc",
}
_PROMPT = "What does p stand for"
_FIGURES = (
    ("pct_stereotype", "crows_pairs_english_gender", "all", "CrowS-Pairs gender: share stereotyped", 0.5),
    ("acc", "lambada_openai", "all", "LAMBADA accuracy", None),
    ("em", "wino_bias_type1_pro", _PROMPT, "WinoBias type 1 pro: exact match", None),
    ("em", "wino_bias_type1_anti", _PROMPT, "WinoBias type 1 anti: exact match", None),
)
"""Metric, task, subset, label, and where there is no bias."""


def publish_run(source: Path, folder: RunFolder) -> Run:
    """The published results as a run: items are its numbers, the summary their intervals and the interventions' changes
    over checkpoints, sentences what they show. Raises what `read_published` raises.
    """
    results = read_published(source)
    whole = tables.concat([to_summary(results), changes_summary(paired_changes(results))])
    public = whole[whole["suite"] == "pythia"]
    swapped = public[public["model"].isin(public.loc[public["reference"].notna(), "model"])]
    for metric, task, subset, label, reference in _FIGURES:
        drawn = plots.interventions(
            swapped[swapped["task"] == task], metric, subset=subset, label=label, reference=reference, from_step=113_000
        )
        plots.save(drawn, folder.figures, f"{metric}_{task}")
    told = final_verdicts(results)
    for sentence in told:
        progress.note(str(sentence))
    return folder.finish(
        results, whole, data={"results": files.sha256_file(source) if source.is_file() else str(source)},
        extra={
            "title": "Published results on gender bias",
            "sentences": [{"text": s.text, "rows": list(s.rows)} for s in told],
        },
    )
