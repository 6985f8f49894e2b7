"""Published tables against themselves: what they say that cannot all be true, without a model and without a network.

- items: a standard error that fits another number of items than the task has, or than its other steps;
- range: shares outside 0 to 1, or no multiple of one item; values that are no numbers;
- chance: untrained models that are better than guessing (a trained one stands there), and, as a note, accuracies below
  what guessing gives (choices of such items are not equally likely for a language model);
- parts: parts of a task with more items than the whole, or whose mean is not the whole's;
- duplicate: two checkpoints with equal or nearly equal results (`pythia_tools.doctor`); as a note, a spike: a
  likelihood that leaves both neighbours behind;
- defect: what is documented, with its source.

What a suite's manifest or the table's reader documents is known, and no news.
Cost: seconds for the results of a whole suite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pandas as pd

from pythia_tools import doctor
from pythia_tools.core import manifests
from pythia_tools.core import words as say
from pythia_tools.core.words import Row
from pythia_tools.suites import Suite, load_suite
from pythia_tools.verification.columns import FINDING
from pythia_tools.verification.outcomes import LIKELIHOOD

FAR = 5.0
"""Standard errors from chance that no table of a few thousand numbers shows by accident."""
UNTRAINED = 1
"""Steps up to this one have learned nothing."""
WHOLES = ("crows_pairs_english", "crows_pairs_french")
"""Tasks that `NAME_…` tasks divide."""
PLACE = ["suite", "model", "step", "collection", "task", "metric"]
LIKELIHOODS = frozenset({"ppl", "likelihood_difference"}) | LIKELIHOOD
CHECKS = {"same results": "duplicate", "near results": "duplicate", "spike": "spike"}
"""A check of `doctor` → the name that it has here."""


def findings(published: pd.DataFrame) -> pd.DataFrame:
    """What a table of published numbers (see `pythia_tools.public`) says against itself: FINDING, the news first."""
    rows = [*_items(published), *_range(published), *_chance(published), *_parts(published), *_equals(published),
            *_defects(published)]
    found = pd.DataFrame(rows, columns=list(FINDING)).astype({n: c.dtype for n, c in FINDING.items()})
    rank = found["severity"].eq("wrong") & ~found["known"].astype(bool)
    return found.assign(rank=~rank).sort_values(["rank", "known", "check"], kind="stable").drop(
        columns="rank").reset_index(drop=True)


def news(found: pd.DataFrame) -> pd.DataFrame:
    """Findings that are wrong and not known."""
    return found[(found["severity"] == "wrong") & ~found["known"].astype(bool)]


def _found(rows: pd.DataFrame, check: str, told: Callable[[Row], str]) -> Iterator[dict[str, object]]:
    """A finding per row, in the words of `told`; known where the reader marked it."""
    for row in say.records(rows):
        known = not pd.isna(row["defect"])
        yield {**{c: row[c] for c in PLACE}, "check": check, "known": known, "severity": "wrong", "detail": told(row),
               "source": row["defect_source"] if known else row["source"]}


def _items(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    counted = table[table["n_items"].notna()]
    usual = counted.groupby(["collection", "task", "subset"])["n_items"].transform(lambda n: n.mode().iloc[0])
    counted = counted.assign(stated=counted["n_published"].fillna(usual))
    off = (counted["n_items"] - counted["stated"]).abs() > _leeway(counted)
    yield from _found(counted[off], "items", lambda row: f"a standard error of {row['n_items']:,} items; there are "
                                                         f"{row['stated']:,}")


def _leeway(counted: pd.DataFrame) -> pd.Series:
    """How far a recovered count may be off where the standard error was printed with few digits."""
    error, half = counted["stderr"], 0.5 * 10.0 ** -_digits(counted["stderr"])
    return (2 * half / error.where(error > 0) * counted["n_items"].astype(float)).fillna(0).clip(lower=0.5)


def _digits(values: pd.Series) -> pd.Series:
    """Digits after the point that each value was printed with."""
    return values.map(lambda v: len(f"{v:.15f}".rstrip("0").partition(".")[2]) if np.isfinite(v) else 15).astype(float)


def _range(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    share = table[table["chance"].notna()]
    outside = share[(share["value"] < 0) | (share["value"] > 1)]
    yield from _found(outside, "range", lambda row: f"{row['value']} is no share")
    yield from _found(table[~np.isfinite(table["value"])], "range", lambda row: "the value is no number")
    n = share["n_items"].astype("Float64").to_numpy(float, na_value=np.nan)
    right = share["value"].to_numpy(float) * n
    odd = np.abs(right - np.rint(right)) > (1e-6 + 0.5 * 10.0 ** -_digits(share["value"]).to_numpy()) * n
    yield from _found(share[odd], "range", lambda row: f"{row['value']} is no multiple of one in {row['n_items']:,}")


def _chance(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    accuracy = table[table["chance"].notna() & table["n_items"].notna() & table["metric"].isin(["acc", "acc_norm"])]
    chance, n = accuracy["chance"], accuracy["n_items"].astype("float64")
    far = (accuracy["value"] - chance) / np.sqrt((chance * (1 - chance)).clip(lower=1e-3) / n)
    early = accuracy["step"].le(UNTRAINED).fillna(False).astype(bool) & (far > FAR)
    yield from _found(accuracy[early], "chance", lambda row: f"{row['value']:.3f} before training, guessing gives "
                                                             f"{row['chance']:g}")
    for (collection, task, metric), part in accuracy[far < -FAR].groupby(["collection", "task", "metric"]):
        detail = (f"{len(part):,} numbers are worse than guessing, by up to {-far[part.index].min():.0f} standard "
                  "errors: choices are not equally likely for a language model")
        yield {"collection": collection, "task": task, "metric": metric, "check": "chance", "known": False,
               "severity": "note", "detail": detail, "source": part["source"].iloc[0]}


def _parts(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    at = ["suite", "model", "branch", "step", "collection", "shots", "metric", "source"]
    shares = table[table["metric"].eq("pct_stereotype") & table["n_published"].notna()]
    shares = shares.assign(items=shares["n_published"].astype("float64"))
    for whole in WHOLES:
        parts = shares[shares["task"].str.startswith(f"{whole}_")].assign(right=lambda p: p["value"] * p["items"])
        sums = parts.groupby(at, dropna=False).agg(n=("items", "sum"), right=("right", "sum")).reset_index()
        both = shares[shares["task"] == whole].merge(sums, on=at)
        both = both.assign(mean=both["right"] / both["n"])
        more, even = both["n"] > both["items"], both["n"] == both["items"]
        yield from _found(both[more], "parts", lambda row: f"{row['n']:.0f} items in the parts, {row['items']:.0f} in "
                                                           "the whole")
        off = even & ((both["mean"] - both["value"]).abs() > 0.5 / both["items"])
        yield from _found(both[off], "parts", lambda row: f"its parts come to {row['mean']:.4f}, the whole is "
                                                          f"{row['value']:.4f}")


def _equals(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    """What the doctor finds in each set of results."""
    marked = _marked(table)
    for (collection, _), part in table.groupby(["collection", "shots"], dropna=False):
        audit = doctor.audit_table(_results(part), str(collection))
        for row in say.records(audit.findings):
            suite, model = str(row["model"]).split("/", 1)
            documented = marked.get((suite, model, int(row["step"]), str(collection))) or documents(
                suite, model, int(row["step"])) or _documents_of_other(str(row["detail"]), int(row["step"]))
            severity = "note" if row["check"] == "spike" else row["severity"]
            yield {"suite": suite, "model": model, "step": row["step"], "collection": collection,
                   "check": CHECKS.get(row["check"], row["check"]), "known": bool(documented), "severity": severity,
                   "detail": row["detail"], "source": documented or part["source"].iloc[0]}


def _results(part: pd.DataFrame) -> dict[str, dict[int, dict[str, float]]]:
    """Checkpoints with a likelihood, the parts of WHOLES left out: equal shares may be coincidence, likelihoods not."""
    pieces = part["task"].str.startswith(tuple(f"{whole}_" for whole in WHOLES))
    known = part[part["step"].notna() & part["suite"].notna() & part["value"].notna() & ~pieces]
    smooth = known["metric"].isin(LIKELIHOODS).groupby([known[c] for c in ("suite", "model", "step")]).transform("any")
    known = known[smooth]
    found: dict[str, dict[int, dict[str, float]]] = {}
    columns = (known[c].tolist() for c in ("suite", "model", "step", "task", "subset", "metric", "value"))
    for suite, model, step, task, subset, metric, value in zip(*columns, strict=True):
        name = f"{task}/{subset}/{'likdiff' if metric.startswith('likelihood') else metric}"
        found.setdefault(f"{suite}/{model}", {}).setdefault(int(step), {})[name] = float(value)
    return found


def _marked(table: pd.DataFrame) -> dict[tuple[str, str, int, str], str]:
    """Checkpoints all of whose numbers the reader knows to be wrong → where that is documented."""
    rows = table[table["defect"].notna() & table["step"].notna() & table["suite"].notna()]
    first = rows.drop_duplicates(["suite", "model", "step", "collection"])
    return {(r["suite"], r["model"], int(r["step"]), r["collection"]): r["defect_source"] for r in say.records(first)}


@cache
def _shipped() -> frozenset[str]:
    return frozenset(manifests.names("suites"))


def documents(suite: str, model: str, step: int) -> str | None:
    """Where a suite's manifest says that the weights of a checkpoint are not what the name says; None where not."""
    if suite not in _shipped() or model not in _suite(suite).models:
        return None
    sources = [d.source for d in _suite(suite).models[model].defects if d.covers(step) and d.steps is not None]
    return "; ".join(dict.fromkeys(sources)) or None


@cache
def _suite(name: str) -> Suite:
    return load_suite(name)


def _documents_of_other(detail: str, step: int) -> str | None:
    """The same of the checkpoint that a finding names."""
    for word in detail.replace("'s", " ").split():
        suite, slash, model = word.strip(".,()").partition("/")
        if slash and suite in _shipped():
            return documents(suite, model, step)
    return None


def _defects(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    """What the reader knows, once for each set of results."""
    known = table[table["defect"].notna()]
    for (collection, defect), part in known.groupby(["collection", "defect"]):
        models = ", ".join(sorted(part["model"].dropna().unique())[:4])
        yield {"collection": collection, "check": "defect", "known": True, "severity": "wrong",
               "detail": f"{len(part):,} numbers ({models}): {defect}", "source": part["defect_source"].iloc[0]}
