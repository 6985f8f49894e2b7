"""Benchmark tasks of lm-evaluation-harness on checkpoints: built once, answered by one live streamed model.

    items = pt.evaluate(checkpoints, ["lambada_openai", "piqa"])    # one row per checkpoint × document × choice
    evaluate.documents(items)                                       # predictions, right or wrong, Brier score …
    asked = evaluate.ask(evaluate.Wanted(("lambada_openai", "piqa")))
    evaluate.summarize(items, asked)                                # every metric of the tasks, with intervals
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Unpack

import pandas as pd

from pythia_tools.analyses.evaluate.agreement import kappa
from pythia_tools.analyses.evaluate.analysis import Evaluate, EvaluateOptions
from pythia_tools.analyses.evaluate.documents import documents
from pythia_tools.analyses.evaluate.harness import Asked, HarnessTask, Wanted, ask
from pythia_tools.analyses.evaluate.scores import outcomes, summarize
from pythia_tools.analysis import Where, measure
from pythia_tools.suites import Checkpoint
from pythia_tools.tokens import Openable

__all__ = [
    "Asked", "Evaluate", "EvaluateOptions", "HarnessTask", "Wanted", "ask", "documents", "evaluate", "kappa",
    "outcomes", "summarize",
]


def evaluate(
    checkpoints: Iterable[Checkpoint], tasks: Sequence[str], *, num_fewshot: int | None = None,
    include_path: str | None = None, limit: int | None = None, tokenizer: Openable | None = None,
    **where: Unpack[Where],
) -> pd.DataFrame:
    """Tasks of lm-eval on every checkpoint: IDENTITY and the columns of `Evaluate.columns`, a row per document and
    choice.

    tasks: names, groups, tags, or paths of YAML files; num_fewshot, limit and include_path as lm-eval takes them;
    `where`: device, dtype, cells, …, as an `Execution` takes them.
    Raises: RequestError for tasks that do not exist or need more than text, EnvironmentFailure without lm-eval or a
    task's data.
    Cost: building the tasks once, then one pass over all requests per checkpoint.
    """
    return measure(
        Evaluate(), checkpoints, tasks=[tasks] if isinstance(tasks, str) else list(tasks), num_fewshot=num_fewshot,
        include_path=None if include_path is None else str(include_path), limit=limit, tokenizer=tokenizer, **where,
    )
