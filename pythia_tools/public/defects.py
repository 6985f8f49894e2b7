"""What is known to be wrong with published numbers, and what their own arithmetic gives away."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from pythia_tools.public.columns import COMPUTED, items

WHOLE = 0.02
"""How far from a whole number a recovered count may be, relative to rounding in the last printed digits."""
_SAME_SEED = 2
"""Before this step runs of one seed may hold the same weights: the first update's learning rate is 0."""
Mark = tuple[pd.Series, str, str]
"""Which rows (boolean, by the frame's index), what is wrong with them, and where that is documented."""


def mark(frame: pd.DataFrame) -> pd.DataFrame:
    """The same frame with `defect` and `defect_source` filled: the readers' own, and those found here."""
    defect, documented = frame["defect"].astype("string"), frame["defect_source"].astype("string")
    for rows, text, where in [*_unlike_their_name(frame), *_counts(frame), *_twins(frame)]:
        both = rows & defect.notna()
        defect = defect.mask(rows & ~both, text).mask(both, defect + "; " + text)
        documented = documented.mask(rows & ~both, where).mask(both, documented + "; " + where)
    return frame.assign(defect=defect, defect_source=documented)


def _unlike_their_name(frame: pd.DataFrame) -> Iterator[Mark]:
    """Files of a five-shot collection that were run without examples, and the other way round."""
    none = frame["shots"].eq(0).fillna(False).astype(bool)
    five = frame["collection"].eq("five-shot") & none
    yield five, "called five-shot, run with num_fewshot 0: its values are zero-shot ones", "the file's config"
    named = ~five & none & frame["source"].str.rpartition("/")[2].str.contains("-5shot", regex=False)
    yield named, "its name says 5shot, its config num_fewshot 0; the values are zero-shot ones", "the file's config"


def _counts(frame: pd.DataFrame) -> Iterator[Mark]:
    """Standard errors that fit no number of items, and fewer items than the task has."""
    found = items(frame["value"], frame["stderr"])
    share = frame["recovered"].astype(bool).to_numpy() & np.isfinite(found)
    odd = share & (np.abs(found - np.rint(found)) > WHOLE + 1e-6 * found)
    yield pd.Series(odd, frame.index), "its standard error fits no whole number of items", COMPUTED
    counted = frame["counted"].astype("Float64").to_numpy(float, na_value=np.nan)
    unlike = share & ~odd & np.isfinite(counted) & (np.rint(found) != counted)
    yield pd.Series(unlike, frame.index), "its standard error fits another number of items than were counted", COMPUTED
    fewer = frame["n_items"].lt(frame["n_published"]).fillna(False).astype(bool)
    for (had, of), part in frame[fewer].groupby(["n_items", "n_published"]):
        yield frame.index.to_series().isin(part.index), f"over {had:,} items; the task has {of:,}", COMPUTED


def _twins(frame: pd.DataFrame) -> Iterator[Mark]:
    """Files of two runs that are equal in every number: one of them holds the other's results."""
    old = frame[frame["release"].notna() & frame["step"].ge(_SAME_SEED).fillna(False) & frame["shots"].notna()]
    rows = pd.util.hash_pandas_object(old[["task", "subset", "metric", "value"]].astype(object), index=False)
    files = old.assign(print=rows).groupby("source", sort=False).agg({
        "print": "sum", "suite": "first", "model": "first",  # a sum, since the order of the rows says nothing
        **dict.fromkeys(("release", "collection", "step", "shots"), "first"),
    })
    for _, alike in files.groupby(["release", "collection", "step", "shots", "print"], sort=False):
        runs = alike["suite"] + "/" + alike["model"]
        for source, run in runs.items():
            others = sorted(set(runs) - {run})
            if others:
                text = f"equal in every number to {', '.join(others)} at the same step: one file is the other's"
                yield frame["source"].eq(str(source)), text, _TWINS


_TWINS = f"{COMPUTED}; EleutherAI/pythia issues 195 and 205 report the same weights under both names"
