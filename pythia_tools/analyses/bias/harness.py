"""Any task of lm-evaluation-harness on the live, streamed model: its task names, its metrics, its JSON.

The model object is handed to the harness as it is, so a sweep over checkpoints loads each of them once and the harness
never touches a file of weights. Needs the extra `lm-eval`. Data sets of its tasks come through `datasets`, as always.
Cost: the harness' own; use the measures of this package where they exist.
"""

import contextlib
import io
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from torch import nn

from pythia_tools.analyses.bias.columns import NAME
from pythia_tools.analysis import Context, Task
from pythia_tools.core.errors import EnvironmentFailure, RequestError
from pythia_tools.core.files import digest
from pythia_tools.core.results.provenance import version_of
from pythia_tools.tokens import Openable, open_tokenizer

BATCH = 32


class HarnessTask(Task):
    """lm-eval tasks as a sweep's task, all in one part.

    tasks: names the harness knows, or mappings in its own schema (a task from a local file). limit: as the harness
    takes it. Items: one per task × metric, with `score`, `stderr`, `samples`, and the harness' whole result as `json`
    on the first.
    """

    name = f"{NAME}/lm_eval"

    def __init__(self, tokenizer: Openable, tasks: Sequence[str | Mapping[str, Any]], *, limit: int | None = None):
        opened = open_tokenizer(tokenizer)
        self.tokenizer = opened.for_transformers()
        self.tasks = [t if isinstance(t, str) else dict(t) for t in tasks]
        self.limit = limit
        named = [t if isinstance(t, str) else {k: str(v) for k, v in t.items()} for t in self.tasks]
        self.digest = digest([version_of("lm-eval") or "none", named, limit, opened.digest])
        self._prepared: Any = None

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        result = self.evaluate(model, batch_size=context.execution.batch_size or BATCH)
        kept = {k: v for k, v in result.items() if k not in ("samples", "config")}
        text = json.dumps(kept, default=str, sort_keys=True)
        rows: list[dict[str, object]] = []
        for task, metrics in result["results"].items():
            samples = (result.get("n-samples") or {}).get(task, {}).get("effective", 0)
            for metric, value in metrics.items():
                name, comma, chosen = metric.partition(",")  # the harness writes `acc,none`, `acc_stderr,none`
                if not comma or name.endswith("_stderr") or not isinstance(value, int | float):
                    continue
                error = metrics.get(f"{name}_stderr,{chosen}")
                rows.append({
                    "task": task, "subset": "all", "item": name if chosen == "none" else f"{name}[{chosen}]",
                    "score": float(value), "outcome": math.nan, "kept": True,
                    "stderr": float(error) if isinstance(error, int | float) else math.nan,
                    "samples": int(samples), "json": "" if rows else text,
                })
        return pd.DataFrame(rows)

    def evaluate(self, model: nn.Module, *, log_samples: bool = False, batch_size: int = BATCH) -> dict[str, Any]:
        """The harness' own result on a live model.

        Raises EnvironmentFailure when the harness or a data set is missing, RequestError for tasks it does not run.
        """
        try:
            import lm_eval
            from lm_eval.models.huggingface import HFLM
            from lm_eval.tasks import TaskManager
        except ImportError as error:
            extra = "pip install 'pythia-tools[lm-eval]'"
            raise EnvironmentFailure(f"lm-eval is not installed; install it with `{extra}`") from error
        with _quiet():
            if self._prepared is None:
                self._prepared = TaskManager()
            try:
                wrapped = HFLM(pretrained=model, tokenizer=self.tokenizer, batch_size=batch_size)
                found = lm_eval.simple_evaluate(
                    model=wrapped, tasks=self.tasks, limit=self.limit, log_samples=log_samples,
                    task_manager=self._prepared, bootstrap_iters=1000, verbosity="ERROR",
                )
            except (KeyError, ValueError) as error:
                raise RequestError(f"lm-eval does not run {self.tasks}: {str(error)[:200]}") from error
            except (OSError, ConnectionError) as error:
                raise EnvironmentFailure(f"lm-eval cannot get the data of {self.tasks}: {str(error)[:200]}") from error
        return dict(found)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The harness prints bars and logs for every task and model; ours show the progress."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
