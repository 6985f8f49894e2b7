"""Did an intervention change what is memorized? A branch against the run it left, row by row at the same step.

Cost: one pass over the table. The interval is Agresti and Min's (2005) for paired shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pythia_tools.core import tables
from pythia_tools.core.statistics import paired_shares


def branch_differences(items: pd.DataFrame, bases: Mapping[str, str]) -> pd.DataFrame:
    """Summary rows `memorized_difference`: share of rows a branch memorized minus its base's, paired by row.

    items: an item table of `measure` that holds both; bases: branch model → the model it left (`m-swap` → `m`). One line
    per branch and step that both have; its group names the base (`minus m`). Rows that either leaves undecided are left out.
    """
    lines: list[dict[str, Any]] = []
    known = items[items["memorized"].notna()]
    for keys, part in known[known["model"].isin(list(bases))].groupby(tables.IDENTITY, sort=False, dropna=False):
        identity = dict(zip(tables.IDENTITY, keys, strict=True))
        base = bases[str(identity["model"])]
        other = known[(known["model"] == base) & (known["step"] == identity["step"])]
        pair = pd.concat({"branch": part.set_index("row")["memorized"], "base": other.set_index("row")["memorized"]}, axis=1).dropna()
        if len(pair):
            change = pair["branch"].astype(int) - pair["base"].astype(int)
            estimate = paired_shares(int((change > 0).sum()), int((change < 0).sum()), len(change), unit="row")
            lines.append({**identity, "group": f"minus {base}", "metric": "memorized_difference", **estimate.columns()})
    return tables.summary(lines)
