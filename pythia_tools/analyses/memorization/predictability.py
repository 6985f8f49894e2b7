"""Can memorization be predicted? A smaller model, or an earlier checkpoint, as a predictor of the final large one.

Orientation, everywhere: *truth* is what the model of interest memorized, *prediction* what the cheaper one memorized.
missed (false negative): truth yes, prediction no; false alarm (false positive): truth no, prediction yes. precision =
both / (both + false alarm), recall = both / (both + missed). Published cells come as percentages in the order both,
missed, false alarm, neither; `from_percent` turns them into counts.

Intervals: Wilson for precision and recall, and for F1 too: with J the share of rows that both memorized of those that
either did, F1 = 2 J / (1 + J). Where neither memorized a row, all three are undefined.
Source: Biderman et al. 2023, "Emergent and predictable memorization", arXiv:2304.11158.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pythia_tools.analyses.memorization import declared
from pythia_tools.analyses.memorization.summary import TEXT
from pythia_tools.core.errors import RequestError
from pythia_tools.core.statistics import FEWEST, Estimate, frequencies, from_draws, mean, wilson
from pythia_tools.core.tables import IDENTITY, by_identity


@dataclass(frozen=True)
class Confusion:
    """Rows by truth and prediction: both yes, missed (truth yes only), false_alarm (prediction yes only), neither."""

    both: int
    missed: int
    false_alarm: int
    neither: int

    @property
    def rows(self) -> int:
        return self.both + self.missed + self.false_alarm + self.neither

    def estimates(self) -> dict[str, Estimate]:
        """Metric → estimate: the four counts, precision, recall, f1, predicted_share, true_share."""
        predicted, true = self.both + self.false_alarm, self.both + self.missed
        counts = {name: Estimate(float(n), n=self.rows, unit="row") for name, n in asdict(self).items()}
        return counts | {
            "precision": wilson(self.both, predicted, unit="row"),
            "recall": wilson(self.both, true, unit="row"),
            "f1": _f1(wilson(self.both, self.rows - self.neither, unit="row"), self.rows),
            "predicted_share": wilson(predicted, self.rows, unit="row"),
            "true_share": wilson(true, self.rows, unit="row"),
        }


def confusion(truth: npt.ArrayLike, prediction: npt.ArrayLike) -> Confusion:
    """From two aligned columns of flags; rows that either leaves undecided are left out.

    Raises RequestError on unequal lengths.
    """
    a, b = pd.Series(truth, dtype="boolean").array, pd.Series(prediction, dtype="boolean").array
    if len(a) != len(b):
        raise RequestError(f"truth has {len(a)} rows and prediction {len(b)}; align them by row first")
    known = ~np.asarray(a.isna() | b.isna())
    yes, said = np.asarray(a[known], dtype=bool), np.asarray(b[known], dtype=bool)
    return Confusion(*(int(cell.sum()) for cell in (yes & said, yes & ~said, ~yes & said, ~yes & ~said)))


def from_percent(cells: Sequence[float], rows: int) -> Confusion:
    """Counts of a published table: percentages (both, missed, false alarm, neither) of `rows` rows.

    Raises RequestError unless they are four and add up to 100 within their printed digits.
    """
    if len(cells) != 4 or abs(sum(cells) - 100) > 1e-3:
        raise RequestError(
            f"cells {list(cells)} must be four percentages that add up to 100: both, missed, false alarm, neither"
        )
    both, missed, false_alarm = (round(c / 100 * rows) for c in cells[:3])
    return Confusion(both, missed, false_alarm, rows - both - missed - false_alarm)


def predictability(table: pd.DataFrame, *, model: str | None = None, step: int | None = None) -> pd.DataFrame:
    """How well every other checkpoint of an item table predicts one of them: a summary table.

    model, step: whose memorization is to be predicted; the default is the largest model at its last step. Each line's
    identity is the predictor's, its reference names the checkpoint predicted (`12b/step143000`).
    Raises RequestError when the table holds no such checkpoint.
    """
    name, at = _target(table, model, step)
    target = table[(table["model"] == name) & (table["step"] == at)].set_index("row")["memorized"]
    if not target.index.is_unique:
        raise RequestError(f"{name} step {at} judges some row twice; give each row once")
    lines: list[dict[str, object]] = []
    for identity, _, part in by_identity(table):
        if (identity["model"], identity["step"]) == (name, at):
            continue
        pair = part.join(target.rename("truth"), on="row", how="inner").dropna(subset=["truth", "memorized"])
        found = confusion(pair["truth"], pair["memorized"]).estimates()
        if TEXT in pair.columns and pair[TEXT].duplicated().any():
            found |= _of_texts(pair["truth"].astype(float), pair["memorized"].astype(float), pair[TEXT])
        start = {**identity, "reference": f"{name}/step{at}"}
        lines += [{**start, "metric": metric, **e.columns()} for metric, e in found.items()]
    return declared.summary(lines)


def _of_texts(truth: pd.Series, said: pd.Series, text: pd.Series) -> dict[str, Estimate]:
    """The shares of a confusion and F1 where rows that share a text count as one unit."""
    either = (truth + said) > 0
    wanted = {
        "precision": truth[said > 0], "recall": said[truth > 0], "predicted_share": said, "true_share": truth,
        "f1": (truth * said)[either],
    }
    found = {name: mean(flags, unit=TEXT, clusters=text[flags.index]) for name, flags in wanted.items()}
    return found | {"f1": _f1(found["f1"], text.nunique())}


def _f1(agreed: Estimate, n: int) -> Estimate:
    """F1 by the share of rows said yes by both, of those by either; n: all units. It rises with that share alone, so
    the share's bounds are carried over. Undefined where neither says yes.
    """
    value, low, high = (2 * share / (1 + share) for share in (agreed.value, agreed.low, agreed.high))
    if not (np.isfinite(value) and np.isfinite(low)):
        return Estimate(value, n=n, unit=agreed.unit)
    return Estimate(value, low, high, n, agreed.unit, agreed.interval)


PUBLISHED_ROWS = 23_552_000
"""Rows that the published tables are over: the first 23,000 steps' worth."""
_LAST = 143_000
_TABLES = ("small_model_predict_large_model", "early_checkpoint_predict_last_checkpoint")
_STEPS = {"23m": 23_000, "44m": 43_000, "65m": 63_000, "85m": 83_000, "105m": 103_000, "126m": 123_000, "146m": _LAST}


def published(cells: Mapping[str, Sequence[float]], *, rows: int = PUBLISHED_ROWS) -> pd.DataFrame:
    """Published confusions as a summary table, in the form of `predictability`: counts, precision, recall, F1,
    intervals.

    cells: `TABLE|MODEL|CHECKPOINT` (`…small_model_predict_large_model|70M|146m`) → percentages (both, missed, false
    alarm, neither). The truth is 12B at the same checkpoint where small models predict, the model's own last step where
    its earlier checkpoints do (`…early_checkpoint_predict_last_checkpoint`); what would predict itself is left out.
    Raises RequestError for keys of another shape.
    """
    lines: list[dict[str, object]] = []
    for key, percent in cells.items():
        table, _, rest = key.partition("|")
        model, _, checkpoint = rest.partition("|")
        if checkpoint not in _STEPS or not table.endswith(tuple(_TABLES)):
            raise RequestError(
                f"{key!r} is not like TABLE|70M|146m; tables are {', '.join(_TABLES)}, checkpoints {', '.join(_STEPS)}")
        name, step = model.lower(), _STEPS[checkpoint]
        truth = ("12b", step) if table.endswith(_TABLES[0]) else (name, _LAST)
        if truth == (name, step):
            continue
        start = {
            "suite": "pythia-v0", "model": name, "params": _size(name), "step": step, "tokens": step << 21,
            "branch": "main", "reference": f"{truth[0]}/step{truth[1]}",
        }
        found = from_percent(percent, rows).estimates()
        lines += [{**start, "metric": metric, **e.columns()} for metric, e in found.items()]
    return declared.summary(lines)


def _size(name: str) -> int:
    """Nominal parameters of `70m` or `1.4b`."""
    return round(float(name[:-1]) * {"m": 1e6, "b": 1e9}[name[-1]])


def scaling(table: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How the memorized share grows: exponents of share ~ params^a (per step, over models: model is <NA>) and
    share ~ tokens^b (per model, over steps), as a summary.

    Least squares on logarithms of non-zero shares. Rows (with a column `text`: texts) are resampled with all their
    checkpoints kept together, so the interval knows that the same rows are judged everywhere. Slopes with fewer than
    two points are left out; with two or three points a slope is a description, not a law. A slope that fewer than
    FEWEST units tell, whose share differs between the checkpoints, has no interval. Checkpoints that decided no row are
    left out; without rows that all others decided there are no slopes.
    """
    wide, checkpoints = _wide(table)
    if wide.empty:
        return declared.summary([])
    flags = wide.to_numpy(dtype=bool)
    text = table.drop_duplicates("row").set_index("row").loc[wide.index, TEXT] if TEXT in table.columns else wide.index
    units = pd.DataFrame(flags.astype(np.int64)).assign(rows=1).groupby(np.asarray(text)).sum()
    # Units with the same flags everywhere are interchangeable, so resampling them is a multinomial draw of patterns.
    patterns, counts = np.unique(units.to_numpy(), axis=0, return_counts=True)
    drawn = frequencies(counts, resamples, seed) @ patterns
    shares = np.vstack([flags.mean(axis=0), drawn[:, :-1] / drawn[:, -1:]])
    unit = TEXT if TEXT in table.columns else "row"
    lines = []
    for start, place, size in _families(checkpoints):
        if len(place) < 2 or len(set(size)) < 2:
            continue
        slopes = np.array([_slope(size, line[place]) for line in shares])
        telling = counts[np.ptp(patterns[:, place], axis=1) > 0].sum()
        found = from_draws(slopes[0], slopes[1:] if telling >= FEWEST else [], n=len(units), unit=unit)
        lines.append({**start, **found.columns()})
    return declared.summary(lines)


def _wide(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """rows × checkpoints flags of rows that every checkpoint decided, and the checkpoints' identities in that order."""
    table = table[table.groupby(IDENTITY, dropna=False)["memorized"].transform("count") > 0]
    checkpoints = table[IDENTITY].drop_duplicates().reset_index(drop=True)
    number = table[IDENTITY].merge(checkpoints.reset_index(), on=IDENTITY, how="left")["index"].to_numpy()
    wide = table.assign(checkpoint=number).pivot(index="row", columns="checkpoint", values="memorized")
    return wide.dropna(), checkpoints


def _families(checkpoints: pd.DataFrame) -> Iterator[tuple[dict[str, object], np.ndarray, list[float]]]:
    """(line's beginning, places of the checkpoints, their sizes) of each slope."""
    for _, part in checkpoints.dropna(subset=["params"]).groupby("step", sort=False):
        if not part["model"].duplicated().any():
            first = {**part.iloc[0], "model": pd.NA, "params": pd.NA, "seed": pd.NA, "metric": "parameters_exponent"}
            yield first, part.index.to_numpy(), [float(p) for p in part["params"]]
    for _, part in checkpoints.dropna(subset=["tokens"]).groupby("model", sort=False):
        part = part[part["tokens"] > 0].sort_values("step")
        if len(part):
            last = {**part.iloc[-1], "metric": "tokens_exponent"}
            yield last, part.index.to_numpy(), [float(t) for t in part["tokens"]]


def _slope(sizes: Sequence[float], shares: np.ndarray) -> float:
    some = shares > 0
    if some.sum() < 2:
        return float("nan")
    return float(np.polyfit(np.log(np.asarray(sizes)[some]), np.log(shares[some]), 1)[0])


def _target(table: pd.DataFrame, model: str | None, step: int | None) -> tuple[str, int]:
    if model is None:
        sized = table.dropna(subset=["params"])
        model = str((sized if len(sized) else table).sort_values(["params", "step"])["model"].iloc[-1])
    steps = table.loc[table["model"] == model, "step"]
    if steps.empty or (step is not None and step not in set(steps)):
        has = ", ".join(f"{name}/step{at}" for name, at in table[["model", "step"]].drop_duplicates().to_numpy())
        raise RequestError(f"the table has no {model}{'' if step is None else f'/step{step}'}; it has: {has}")
    return model, int(steps.max()) if step is None else step
