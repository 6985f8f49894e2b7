"""Any task of lm-evaluation-harness on the live, streamed model: its task names, its metrics, its JSON.

The model object is handed to the harness as it is, so a sweep over checkpoints loads each of them once and the harness
never touches a file of weights. Needs the extra `lm-eval`. Data sets of its tasks come through `datasets`, as always.
Cost: the harness' own; use the measures of this package where they exist.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from torch import nn

from pythia_tools.analysis import Context, Task
from pythia_tools.core.errors import EnvironmentFailure, RequestError
from pythia_tools.core.files import digest

MEASURE = "lm_eval"


class HarnessTask(Task):
    """lm-eval tasks as a sweep's task, all in one part.

    Args:
        tokenizer: a PreTrainedTokenizerFast, or a tokenizers.Tokenizer (then `<|endoftext|>` begins and ends texts).
        tasks: names the harness knows, or mappings in its own schema (a task from a local file).
        include_path: a folder with more task files.
        num_fewshot, limit, batch_size: as the harness takes them.
    Items: one per task × metric, with `score`, `stderr`, `samples`, and the harness' whole result as `json` on the first.
    """

    name = MEASURE
    parts = 1

    def __init__(
        self, tokenizer: Any, tasks: Sequence[str | Mapping[str, Any]], *, include_path: str | None = None,
        num_fewshot: int | None = None, limit: int | None = None, batch_size: int = 32,
    ):
        if not tasks:
            raise RequestError("no lm-eval task was named")
        self.tokenizer = hf_tokenizer(tokenizer)
        self.tasks = [t if isinstance(t, str) else dict(t) for t in tasks]
        self.include_path, self.num_fewshot, self.limit, self.batch_size = include_path, num_fewshot, limit, batch_size
        named = [t if isinstance(t, str) else {k: str(v) for k, v in t.items()} for t in self.tasks]
        backend = self.tokenizer.backend_tokenizer.to_str()
        self.digest = digest([MEASURE, _version(), named, include_path, num_fewshot, limit, digest(backend)])
        self._prepared: Any = None

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        result = self.evaluate(model)
        kept = {k: v for k, v in result.items() if k not in ("samples", "config")}
        text = json.dumps(kept, default=str, sort_keys=True)
        rows: list[dict[str, Any]] = []
        for task, metrics in result["results"].items():
            samples = (result.get("n-samples") or {}).get(task, {}).get("effective", 0)
            for metric, value in metrics.items():
                if "," not in metric or metric.split(",")[0].endswith("_stderr") or not isinstance(value, int | float):
                    continue
                name, _, chosen = metric.partition(",")
                error = metrics.get(f"{name}_stderr,{chosen}")
                rows.append({
                    "measure": MEASURE, "group": task, "item": name if chosen == "none" else f"{name}[{chosen}]", "score": float(value),
                    "outcome": math.nan, "kept": True, "stderr": float(error) if isinstance(error, int | float) else math.nan,
                    "samples": int(samples), "json": "" if rows else text,
                })
        return pd.DataFrame(rows)

    def evaluate(self, model: Any, *, log_samples: bool = False) -> dict[str, Any]:
        """The harness' own result on a live model. Raises EnvironmentFailure when the harness or a data set is missing."""
        lm_eval = _harness()
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        with _quiet():
            if self._prepared is None:
                self._prepared = TaskManager(include_path=self.include_path)
            try:
                wrapped = HFLM(pretrained=model, tokenizer=self.tokenizer, batch_size=self.batch_size)
                found = lm_eval.simple_evaluate(
                    model=wrapped, tasks=self.tasks, num_fewshot=self.num_fewshot, limit=self.limit, log_samples=log_samples,
                    task_manager=self._prepared, bootstrap_iters=1000, verbosity="ERROR",
                )
            except (KeyError, ValueError) as error:
                raise RequestError(f"lm-eval does not run {self.tasks}: {str(error)[:200]}") from error
            except (OSError, ConnectionError) as error:
                raise EnvironmentFailure(f"lm-eval cannot get the data of {self.tasks}: {str(error)[:200]}") from error
        return dict(found)


def hf_tokenizer(tokenizer: Any) -> Any:
    """A PreTrainedTokenizerFast round a tokenizers.Tokenizer; others are returned as they are."""
    if hasattr(tokenizer, "backend_tokenizer"):
        return tokenizer
    from transformers import PreTrainedTokenizerFast

    end = next((t for t in ("<|endoftext|>", "</s>", "<s>") if tokenizer.token_to_id(t) is not None), None)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, pad_token=end)


def equivalent_command(repo: str, revision: str, tasks: Sequence[str], *, dtype: str = "float32", batch_size: int = 32) -> str:
    """The `lm_eval` command that asks the same of one checkpoint, for those who run it elsewhere."""
    arguments = f"pretrained={repo},revision={revision},dtype={dtype}"
    asked = f"--tasks {','.join(tasks)} --batch_size {batch_size}"
    return f"lm_eval --model hf --model_args {arguments} {asked} --output_path results --log_samples"


def _harness() -> Any:
    try:
        import lm_eval
    except ImportError as error:
        raise EnvironmentFailure("lm-eval is not installed; install it with `pip install 'pythia-tools[lm-eval]'`") from error
    return lm_eval


def _version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("lm-eval")
    except importlib.metadata.PackageNotFoundError:
        return "none"


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
