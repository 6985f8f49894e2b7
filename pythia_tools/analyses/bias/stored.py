"""The public results of the gender-bias study, read into the same frame as our own: base, 7 % and 21 % runs.

Reads EleutherAI/pythia's `evals/` (a folder or a .tar.xz of it): CrowS-Pairs, LAMBADA and the other zero-shot numbers of
`pythia-v1/*/{zero-shot,baseline,intervention}`, those of the first suite in `bias-evals/*.json`, and the exact-match
WinoBias tables of `bias-evals/winobias`. Branches: `main` (published zero-shot), `main-rerun` (the base model evaluated
again beside the intervention), `swap-7%`, `swap-21%`.
Standard errors are the files' own. Where only a share and its error are given, the number of items follows from them:
n = p (1 − p) / se² + 1.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pythia_tools.core import tables
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.statistics import mean, minimal_detectable_effect, normal_bounds, sign_flip_test
from pythia_tools.suites import load_suite

TASKS = ("lambada_openai", "crows_pairs_english", "wino_bias")
"""Task names (beginnings) that are read by default: what the study is about."""
V1_TOKENS_PER_STEP = 1024 * 2048
_V1 = re.compile(
    r"pythia-v1/pythia-(?P<model>[^/]+)/(?P<kind>zero-shot|baseline|intervention)/(?:[a-z]+-)?(?P<name>.+?)_step(?P<step>\d+)\.json$"
)
_V0 = re.compile(r"bias-evals/(?P<kind>(?:long-)?intervention|pythia)-(?P<model>[^/]+?-deduped)-step(?P<step>\d+)_eval_results[^/]*\.json$")
_WINOBIAS = re.compile(r"bias-evals/winobias/(?:intervene_(?P<share>7|21)/)?(?P<model>[^/]+)/[^/]+\.json$")
_V0_BATCH = {"19m": 1024, "6.9b": 1024, "350m": 2048, "1.3b": 2048}
"""Rows per step: the 4M-token batches of the first suite's 350m and 1.3b."""
COLUMNS = [*tables.IDENTITY, "task", "prompt", "metric", "value", "stderr", "file"]


def read_results(path: str | Path, *, tasks: Iterable[str] = TASKS) -> pd.DataFrame:
    """Every stored number of these tasks: identity, task, prompt (WinoBias), metric, value, stderr, file.

    Raises: RequestError when there is no such folder or archive; DataError when a file in it is damaged, or none is there.
    """
    wanted = tuple(tasks)
    rows = [row for name, text in _files(Path(path)) for row in _rows(name, text, wanted)]
    if not rows:
        raise DataError(f"{path}: no stored results of {', '.join(wanted)}; it should hold pythia-v1/ and bias-evals/ of Pythia's evals/")
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return tables.check_items(frame.sort_values(["suite", "model", "branch", "step", "task", "prompt", "metric"], kind="stable"))


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


def _rows(name: str, text: str, tasks: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    try:
        value = json.loads(text)
        if found := _WINOBIAS.search(name):
            identity = _winobias_identity(found, value)
            metrics = [(r["task_name"], r["prompt_name"], r) for r in value["table_results"].values()]
        else:
            identity = _v1_identity(_V1.search(name)) or _v0_identity(_V0.search(name))
            metrics = [(task, "", numbers) for task, numbers in value["results"].items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{name}: not a stored result ({type(error).__name__}: {error})") from error
    for task, prompt, numbers in metrics:
        if not str(task).startswith(tasks):
            continue
        for metric, number in numbers.items():
            if isinstance(number, int | float) and not metric.endswith("_stderr"):
                error_ = numbers.get(f"{metric}_stderr")
                stderr = float(error_) if error_ is not None else np.nan
                yield {**identity, "task": task, "prompt": prompt, "metric": metric, "value": float(number), "stderr": stderr, "file": name}


def _v1_identity(found: re.Match[str] | None) -> dict[str, Any]:
    if found is None:
        return {}
    swapped = "swap-21%" if found["name"].endswith("-long") else "swap-7%"
    branch = {"zero-shot": "main", "baseline": "main-rerun"}.get(found["kind"], swapped)
    return _identity("pythia", found["model"], int(found["step"]), branch, V1_TOKENS_PER_STEP)


def _v0_identity(found: re.Match[str] | None) -> dict[str, Any]:
    assert found is not None
    branch = {"pythia": "main", "intervention": "swap-7%", "long-intervention": "swap-21%"}[found["kind"]]
    rows = _V0_BATCH.get(found["model"].removesuffix("-deduped"), 1024)
    return {**_identity("pythia-v0", found["model"], int(found["step"]), branch, rows * 2048), "params": pd.NA}


def _winobias_identity(found: re.Match[str], value: dict[str, Any]) -> dict[str, Any]:
    arguments = value.get("model_args") or value["config"]["model_args"]
    branch = f"swap-{found['share']}%" if found["share"] else "main"
    return _identity("pythia", f"{found['model'].lower()}-deduped", int(arguments["iteration"]), branch, V1_TOKENS_PER_STEP)


def _identity(suite: str, model: str, step: int, branch: str, tokens_per_step: int) -> dict[str, Any]:
    params = _params().get(model.split("-")[0], pd.NA)
    return {"suite": suite, "model": model, "params": params, "step": step, "tokens": step * tokens_per_step, "branch": branch}


@cache
def _params() -> dict[str, int | None]:
    """Parameters of each size, from the suite's manifest."""
    return {name: model.params for name, model in load_suite("pythia").models.items()}


def to_summary(results: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Stored results as a summary table: group is the task (and prompt), intervals are ± z standard errors."""
    value, error = results["value"].to_numpy(float), results["stderr"].to_numpy(float)
    share = results["metric"].isin(["acc", "acc_norm", "pct_stereotype", "em"]).to_numpy() & (error > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        n = np.where(share, np.rint(value * (1 - value) / error**2 + 1), np.nan)
    prompt = results["prompt"].astype(str)
    low, high = normal_bounds(value, error, level)
    frame = results[tables.IDENTITY].assign(
        group=np.where(prompt == "", results["task"].astype(str), results["task"].astype(str) + "+" + prompt),
        metric=results["metric"], value=value, low=low, high=high,
        n=pd.array(n, dtype="Float64").astype("Int64"),
        interval=np.where(np.isfinite(error), f"normal{round(100 * level)} of the stored stderr", "none"),
    )
    return tables.check_summary(frame)


def winobias_cells(results: pd.DataFrame) -> pd.DataFrame:
    """Exact match per checkpoint and set, averaged over the two prompts: columns type1_pro, type1_anti, type2_pro, type2_anti,
    `net` (mean over types of pro − anti), `net_stderr` (in quadrature), `mean` (of the four)."""
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
    """Intervention minus base, paired by checkpoint, over all checkpoints that both have: gap, exact match, CrowS-Pairs, LAMBADA.

    CrowS-Pairs and LAMBADA are paired with the re-run base where its files have the number, as it was evaluated beside
    the intervention; the published one is used for those it lacks and named in `control`.
    Returns: suite, model, branch, control, quantity, mean, sd (n − 1), n, low, high, p, minimal_effect.
    Checkpoints of one run are not independent, so p and interval say what these checkpoints show, not other runs.
    """
    rows: list[dict[str, Any]] = []
    if (results["metric"] == "em").any():
        wino = winobias_cells(results)
        for quantity, column in (("winobias pro-anti", "net"), ("winobias exact match", "mean")):
            rows += _changes(wino, column, quantity, level)
    for quantity, task, metric in _PAIRED:
        chosen = results[(results["task"] == task) & (results["metric"] == metric)]
        rows += _changes(chosen, "value", quantity, level)
    return pd.DataFrame(rows)


_PAIRED = (
    ("crows gender pct_stereotype", "crows_pairs_english_gender", "pct_stereotype"),
    ("crows pct_stereotype", "crows_pairs_english", "pct_stereotype"),
    ("lambada acc", "lambada_openai", "acc"),
)


def _changes(frame: pd.DataFrame, column: str, quantity: str, level: float) -> Iterator[dict[str, Any]]:
    for (suite, model), here in frame.groupby(["suite", "model"], sort=False):
        series = {str(b): part.set_index("step")[column] for b, part in here.groupby("branch")}
        for branch in sorted(b for b in series if b.startswith("swap")):
            control = "main-rerun" if "main-rerun" in series else "main"
            if control not in series:
                continue
            both = pd.concat([series[branch], series[control]], axis=1, join="inner").dropna()
            if both.empty:
                continue
            change = (both.iloc[:, 0] - both.iloc[:, 1]).to_numpy(float)
            found = mean(change, unit="checkpoint", level=level)
            yield {
                "suite": suite, "model": model, "branch": branch, "control": control, "quantity": quantity, "mean": found.value,
                "sd": float(change.std(ddof=1)) if change.size > 1 else np.nan, "n": found.n, "low": found.low, "high": found.high,
                "p": sign_flip_test(change), "minimal_effect": minimal_detectable_effect(change, level=level),
            }


def stored_verdicts(results: pd.DataFrame, *, level: float = 0.95) -> list[str]:
    """Sentences on the final checkpoints: each intervention's change against its own standard error, in words."""
    lines: list[str] = []
    for quantity, task, metric in _PAIRED:
        chosen = results[(results["task"] == task) & (results["metric"] == metric)]
        for (suite, model), here in chosen.groupby(["suite", "model"], sort=False):
            lines += _final_verdicts(f"{suite}/{model}, {quantity}", here, level)
    if (results["metric"] == "em").any():
        cells = winobias_cells(results).rename(columns={"net": "value", "net_stderr": "stderr"})
        for (suite, model), here in cells.groupby(["suite", "model"], sort=False):
            lines += _final_verdicts(f"{suite}/{model}, winobias pro-anti (exact match)", here, level)
    return lines


def _final_verdicts(who: str, here: pd.DataFrame, level: float) -> Iterator[str]:
    last = here[here["step"] == here["step"].max()].set_index("branch")
    control = "main-rerun" if "main-rerun" in last.index else "main"
    for branch in sorted(b for b in last.index if str(b).startswith("swap")):
        if control not in last.index:
            continue
        change = float(last.loc[branch, "value"]) - float(last.loc[control, "value"])
        noise = float(normal_bounds(0, np.hypot(last.loc[branch, "stderr"], last.loc[control, "stderr"]), level)[1])
        word = "within noise" if abs(change) <= noise else ("higher" if change > 0 else "lower")
        yield (
            f"{who}: {branch} against {control} at step {int(here['step'].max()):,} is {word}, "
            f"{change:+.4f} (two checkpoints' sampling error: ±{noise:.4f})."
        )
