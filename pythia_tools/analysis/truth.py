"""Exposures that an analysis counted in the order, beside those that were planted there: rows of its summary.

Exposures are always counted; the truth manifest is only compared with.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pythia_tools.analysis.context import Context
from pythia_tools.core.tables import Metric

TRUTH_METRICS = {
    "exposures_counted": Metric("exposures", "exposures of all items of a table up to the step, counted in the order"),
    "exposures_planted": Metric("exposures", "the same, as the truth manifest lists them"),
    "items_that_differ": Metric("items", "items whose counted and planted exposures differ"),
}


def compare_with_truth(context: Context, table: str, counted: npt.ArrayLike) -> Iterator[dict[str, object]]:
    """Summary rows of one table of the truth manifest at the last of the context's steps.

    counted: (n,) exposures up to that step of the table's items, in its order.
    """
    step = context.steps[-1]
    planted, found = context.need_truth("planted items").exposures(table, step), np.asarray(counted)
    shared = {"suite": context.name, "branch": "main", "step": step, "task": table}
    shared |= {"n": len(planted), "unit": "item", "interval": "none"}
    yield {**shared, "metric": "exposures_counted", "value": float(found.sum())}
    yield {**shared, "metric": "exposures_planted", "value": float(planted.sum())}
    yield {**shared, "metric": "items_that_differ", "value": float((planted != found).sum())}
