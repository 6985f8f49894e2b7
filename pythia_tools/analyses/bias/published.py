"""The published results of the gender-bias study, as its analyses take them: base, 7 % and 21 % runs.

`pythia_tools.published` reads them; here are CrowS-Pairs, LAMBADA and the exact-match WinoBias tables. Branches: `main`
(published zero-shot), `main-rerun` (the base model evaluated again beside the intervention), `swap-7%`, `swap-21%`.
Standard errors are the files' own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from pythia_tools import plots
from pythia_tools.analyses.bias.columns import summary
from pythia_tools.analyses.bias.statistics import comparison_summary, effect
from pythia_tools.analysis import Sentence
from pythia_tools.core import files, progress, tables
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.results import Run, RunFolder
from pythia_tools.core.statistics import normal_bounds, series_mean
from pythia_tools.public import SHARES, items, published

TASKS = ("lambada_openai", "crows_pairs_english", "wino_bias")
"""Task names (beginnings) that are read: what the study is about."""
_COLLECTIONS = {"v1": ("zero-shot", "baseline", "intervention", "winobias"), "v0": ("bias", "winobias")}
"""Release → its collections in which base models and interventions were evaluated alike."""
_BRANCHES = {"intervention": "swap-7%", "intervention-long": "swap-21%"}
ITEMS = [*tables.IDENTITY, "task", "prompt", "metric", "value", "stderr", "file"]
Identity: TypeAlias = dict[str, object]


def read_published(path: str | Path) -> pd.DataFrame:
    """Every published number of TASKS: identity, task, prompt (WinoBias), metric, value, stderr, file.

    A base model and its interventions have one name here, and the release is their suite (`pythia`, `pythia-v0`).
    Raises: RequestError when there is no such folder or archive; DataError when a file in it is damaged, or none is
    there.
    """
    results = of_study(published(path))
    if results.empty:
        holds = "it should hold pythia-v1/ and bias-evals/ of Pythia's evals/"
        raise DataError(f"{path}: no published results of {', '.join(TASKS)}; {holds}")
    return results


def of_study(frame: pd.DataFrame) -> pd.DataFrame:
    """The study's numbers of a frame of public results, as `read_published` gives them."""
    asked = frame["task"].str.startswith(TASKS)
    inside = [frame["release"].eq(r) & frame["collection"].isin(c) for r, c in _COLLECTIONS.items()]
    found = frame[asked & (inside[0] | inside[1]).fillna(False)]
    deduped = found["suite"].str.contains("deduped|interventions").map({True: "-deduped", False: ""})
    rows = found.assign(
        suite=found["release"].map({"v1": "pythia", "v0": "pythia-v0"}),
        model=found["model"].str.removesuffix("-long").str.removesuffix("-intervention") + deduped,
        branch=found["branch"].replace(_BRANCHES).mask(found["collection"] == "baseline", "main-rerun"),
        prompt=found["subset"].replace("all", ""), file=found["source"],
    )[ITEMS].astype({"prompt": "str", "task": "str", "metric": "str", "file": "str"})
    return tables.check_items(rows.sort_values(["suite", "model", "branch", "step", "task", "prompt", "metric"],
                                               kind="stable"))


def to_summary(results: pd.DataFrame) -> pd.DataFrame:
    """Published results as a summary table: subset is WinoBias' prompt, intervals are ± z standard errors."""
    value, error = results["value"].to_numpy(float), results["stderr"].to_numpy(float)
    n = np.where(results["metric"].isin(SHARES), np.rint(items(value, error)), np.nan)
    low, high = normal_bounds(value, error)
    frame = results[[*tables.IDENTITY, "task", "metric", "value"]].assign(
        subset=results["prompt"].where(results["prompt"] != "", "all"), low=low, high=high,
        n=pd.array(n, dtype="Float64").astype("Int64"), unit="item",
        interval=np.where(np.isfinite(error), "normal95 of the published stderr", "none"),
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
    named = em.assign(cell=em["task"].str.removeprefix("wino_bias_"), square=em["stderr"] ** 2)
    means = named.groupby([*tables.IDENTITY, "cell"], dropna=False)["value"].mean().unstack("cell")
    square = named.groupby(tables.IDENTITY, dropna=False)["square"].sum()
    return means.assign(
        net=((means["type1_pro"] - means["type1_anti"]) + (means["type2_pro"] - means["type2_anti"])) / 2,
        net_stderr=np.sqrt(square) / 4,  # each of the 8 cells enters the mean difference with weight 1/4
        mean=means[["type1_pro", "type1_anti", "type2_pro", "type2_anti"]].mean(axis=1),
    ).reset_index()


def paired_changes(results: pd.DataFrame) -> pd.DataFrame:
    """Intervention minus base, paired by checkpoint, averaged over all checkpoints that both have: gap, exact match,
    CrowS-Pairs, LAMBADA; then the mean of that over the models of a suite.

    CrowS-Pairs and LAMBADA are paired with the re-run base where its files have the number, as it was evaluated beside
    the intervention; the published one is used for those it lacks and named in `reference`.
    Returns: suite, model, params, branch, reference, task, quantity, value, low, high, n, unit, interval, p,
    minimal_effect, as rows for `comparison_summary`; checkpoints, and sd over them (n − 1). Checkpoints of one run are
    alike the nearer they are, so n is how many independent ones they are worth (see `statistics.series_mean`); p and
    interval are missing where that is too few, and never speak of other runs. The rows over all models of a suite
    (model <NA>, unit model) do.
    """
    rows = []
    for named, here in _compared(results):
        for branch, control in _branches(here):
            values = [here[here["branch"] == b].set_index("step")["value"] for b in (branch, control)]
            both = pd.concat(values, axis=1, join="inner").dropna().sort_index().to_numpy(float)
            if len(both):
                change = both[:, 0] - both[:, 1]
                told = {"branch": branch, "reference": control, "quantity": "outcome", "checkpoints": len(change)}
                sd = float(change.std(ddof=1)) if change.size > 1 else np.nan
                found, p, least = series_mean(change, unit="checkpoint")
                rows.append(named | told | {"sd": sd} | found.columns() | {"p": p, "minimal_effect": least})
    single = pd.DataFrame(rows)
    keys = ["suite", "branch", "task", "quantity"]
    joined = [
        dict(zip(keys, key, strict=True)) | effect(part["value"].to_numpy(float), "model")
        for key, part in single.groupby(keys, sort=False) if len(part) > 1
    ]
    return pd.concat([single, pd.DataFrame(joined)], ignore_index=True)


def _compared(results: pd.DataFrame) -> Iterator[tuple[Identity, pd.DataFrame]]:
    """Suite, model, size and task of each number that interventions are compared by, and its rows: step, branch, value,
    stderr.
    """
    compared = []
    if (results["metric"] == "em").any():
        cells = winobias_cells(results)
        compared = [("winobias_em_gap", cells.rename(columns={"net": "value", "net_stderr": "stderr"})),
                    ("winobias_em", cells.rename(columns={"mean": "value"}).assign(stderr=np.nan))]
    for task, metric in _PAIRED.items():
        compared.append((task, results[(results["task"] == task) & (results["metric"] == metric)]))
    for task, frame in compared:
        for (suite, model), here in frame.groupby(["suite", "model"], sort=False):
            yield {"suite": suite, "model": model, "params": here["params"].iloc[0], "task": task}, here


_PAIRED = {
    "crows_pairs_english_gender": "pct_stereotype", "crows_pairs_english": "pct_stereotype", "lambada_openai": "acc",
}
"""Task → metric."""


def _branches(here: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Each intervention of a model, and its control."""
    has = sorted(map(str, here["branch"].unique()))
    control = "main-rerun" if "main-rerun" in has else "main"
    return ((branch, control) for branch in has if control in has and branch not in ("main", "main-rerun"))


def final_verdicts(results: pd.DataFrame) -> Iterator[Sentence]:
    """Sentences on the final checkpoints: each intervention's change against its own standard error, in words.

    Their rows are those of `to_summary(results)`.
    """
    for named, here in _compared(results):
        if named["task"] not in _CALLED:  # exact match itself has no error of its own here; its gap has
            continue
        step, task = here["step"].max(), str(named["task"])
        last = here[here["step"] == step].set_index("branch")[["value", "stderr"]]
        asked = (results["metric"] == _PAIRED.get(task, "em")) & ((results["task"] == task) | (task not in _PAIRED))
        same = (results["suite"] == named["suite"]) & (results["model"] == named["model"]) & (results["step"] == step)
        for branch, control in _branches(last.reset_index()):
            change = float(last.loc[branch, "value"] - last.loc[control, "value"])
            noise = float(normal_bounds(0, np.hypot(*last.loc[[branch, control], "stderr"]))[1])
            word = "within noise" if abs(change) <= noise else ("higher" if change > 0 else "lower")
            text = (
                f"{named['suite']}/{named['model']}, {_CALLED[task]}: {branch} against {control} "
                f"at step {step:,} is {word}, {change:+.4f} (two checkpoints' sampling error: ±{noise:.4f})."
            )
            yield Sentence.of(text, results[asked & same & results["branch"].isin([branch, control])])


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


def with_changes(results: pd.DataFrame) -> pd.DataFrame:
    """The study's results as a summary, and what the interventions changed."""
    return tables.concat([to_summary(results), comparison_summary(paired_changes(results))])


def draw(whole: pd.DataFrame, folder: Path) -> None:
    """The paper's panels of the intervention into a folder, from `with_changes`; those whose numbers are there."""
    public = whole[whole["suite"] == "pythia"]
    swapped = public[public["model"].isin(public.loc[public["reference"].notna(), "model"])]
    for metric, task, subset, label, reference in _FIGURES:
        rows = swapped[swapped["task"] == task]
        if len(rows):
            drawn = plots.interventions(rows, metric, subset=subset, label=label, reference=reference,
                                        from_step=113_000)
            plots.save(drawn, folder, f"{metric}_{task}")


def publish_run(source: Path, folder: RunFolder) -> Run:
    """The published results as a run: items are its numbers, the summary their intervals and the interventions' changes
    over checkpoints, sentences what they show. Raises what `read_published` raises.
    """
    results = read_published(source)
    whole = with_changes(results)
    draw(whole, folder.figures)
    told = list(final_verdicts(results))
    for sentence in told:
        progress.note(str(sentence))
    return folder.finish(
        results, whole, data={"results": files.sha256_file(source) if source.is_file() else str(source)},
        extra={
            "title": "Published results on gender bias",
            "sentences": [{"text": s.text, "rows": list(s.rows)} for s in told],
        },
    )
