"""lm-evaluation-harness, as far as it is used here: tasks and prompts, tokenization, metrics; never its models.

Tasks come from its TaskManager, prompts and few-shot examples from its own samplers, ids from its own HFLM (which is
given a tokenizer and no model), per-document metrics and aggregations from the tasks themselves. Needs the extra
`lm-eval`.
Cost: seconds to import, and one to find a task among its 14,000 definitions; groups and tags need their index, which
takes ten.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from pythia_tools.analyses.evaluate import kept_data, shipped
from pythia_tools.core.errors import EnvironmentFailure, PythiaToolsError, RequestError, unknown
from pythia_tools.core.files import digest

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks.manager import TaskDict

    from pythia_tools.tokens import Tokenizer

INSTALL = "pip install 'pythia-tools[lm-eval]'"
SEEDS = {"random": 0, "numpy": 1234, "fewshot": 1234}
"""The harness' own defaults."""
PLACES = ("dataset_path", "dataset_name", "dataset_kwargs", "config_source")
"""Where a task's definition and data lie: no part of what it asks."""
Response: TypeAlias = "tuple[float, bool] | float | str"
"""What a model answers to a request: log-likelihood and whether it is greedy, log-likelihood, or text."""
Outcomes: TypeAlias = "dict[tuple[str, str], list[object]]"
"""(metric, filter) → what the task makes of each document, as the harness collects it."""


@dataclass(frozen=True)
class Wanted:
    """Which tasks, and how. tasks: names, groups, tags, or paths of YAML files; limit: documents of each task."""

    tasks: tuple[str, ...]
    num_fewshot: int | None = None
    include_path: str | None = None
    limit: int | None = None


class Asked(NamedTuple):
    """The harness' tasks with their requests, and the groups they were named by."""

    tasks: dict[str, HarnessTask]
    groups: list[Group]


class HarnessTask:
    """One task of the harness with its requests: `instances`, in the order of the documents; `documents` and `numbers`
    have each one's document, and its place within that.
    """

    def __init__(self, task: ConfigurableTask, limit: int | None):
        self.task, self.name, self.limit = task, str(task.config.task), limit
        self.kind, self.shots = str(task.OUTPUT_TYPE), int(task.config.num_fewshot)
        task.build_all_requests(limit=limit)
        self.instances: list[Instance] = sorted(task.instances, key=lambda i: (i.doc_id, i.idx))
        self.documents = [int(i.doc_id) for i in self.instances]
        first = {doc: k for k, doc in reversed(list(enumerate(self.documents)))}
        self.numbers = [k - first[doc] for k, doc in enumerate(self.documents)]
        self._remember_choices()

    def _remember_choices(self) -> None:
        """Each document's choices and target are rendered once, whatever the number of checkpoints."""
        for name in ("doc_to_choice", "doc_to_target"):
            setattr(self.task, name, _remembered(getattr(self.task, name), [i.doc for i in self.instances]))

    @cached_property
    def about(self) -> dict[str, str | int | None]:
        """What decides the requests and the metrics: digests of definition and documents, version, shots, seed."""
        return {
            "task": self.name, "lm_eval": version(), "version": str(self.task.VERSION), "shots": self.shots,
            "limit": self.limit, "fewshot_seed": SEEDS["fewshot"],
            "definition": digest(_plain(_without_places(self.task.dump_config()))),
            "documents": digest([_plain(i.doc) for i in self.instances]),
            "requests": digest([[i.request_type, i.doc_id, i.idx, _plain(i.args)] for i in self.instances]),
        }

    @property
    def receipt(self) -> dict[str, object]:
        """`about`, and of a data set from the hub the sha256 under which each split is kept."""
        splits = kept_data.source(self.task)
        return {**self.about, "data": None if splits is None else {name: dict(s) for name, s in splits.items()}}

    def choices(self, instance: Instance) -> list[str] | None:
        """The texts of a document's choices; None for tasks without choices."""
        return list(self.task.doc_to_choice(instance.doc)) if self.kind == "multiple_choice" else None

    def gold(self, instance: Instance) -> list[int]:
        """Numbers of the right choices of a document of multiple choice, as the harness reads them."""
        read = self.task.doc_to_text if getattr(self.task, "multiple_input", 0) else self.task.doc_to_target
        stated, choices = read(instance.doc), self.choices(instance) or []
        found = stated if isinstance(stated, list) else [stated]
        return [(choices.index(g) if g in choices else -1) if isinstance(g, str) else int(g) for g in found]

    def outcomes(self, responses: Sequence[Response | None]) -> tuple[list[int], Outcomes]:
        """Documents that have all their responses, and what the task's own metrics make of each of them."""
        by_doc: dict[int, list[Instance]] = {}
        for instance, response in zip(self.instances, responses, strict=True):
            repeats = instance.repeats or 1
            instance.resps, instance.filtered_resps = [response] * repeats, {}
            by_doc.setdefault(instance.doc_id, []).append(instance)
        kept = {doc: some for doc, some in by_doc.items() if all(i.resps[0] is not None for i in some)}
        found: Outcomes = {}
        if not kept:
            return [], found
        self.task._instances = [i for some in kept.values() for i in some]
        self.task.apply_filters()
        for name in self.task._instances[0].filtered_resps:
            for some in kept.values():
                made = self.task.process_results(some[0].doc, [i.filtered_resps[name] for i in some])
                for metric, value in made.items():
                    found.setdefault((metric, name), []).append(value)
        return list(kept), found


def _remembered(method: object, documents: Sequence[object]) -> object:
    """A method of one document that computes its answer once for each of these; others pass through."""
    known = {id(document) for document in documents}
    answers: dict[int, object] = {}

    def remembering(document: object, *more: object) -> object:
        if more or id(document) not in known:
            return method(document, *more)  # type: ignore[operator]
        if id(document) not in answers:
            answers[id(document)] = method(document)  # type: ignore[operator]
        return answers[id(document)]

    return remembering


def ask(wanted: Wanted) -> Asked:
    """The tasks with their requests, built once; no tokenizer and no model is needed.

    Raises: RequestError for tasks that do not exist or cannot be asked of a text model offline; EnvironmentFailure
    when the harness or the data of a task is missing.
    """
    if not wanted.tasks:
        raise RequestError("no lm-eval task was named; give --tasks, for example --tasks lambada_openai piqa")
    _need()
    with quiet(), seeded(), compiled_once(), kept_data.keeping():
        try:
            loaded = _load(wanted)
            for name, task in loaded["tasks"].items():
                _check(name, task)
                _set_shots(task, wanted.num_fewshot)
            tasks = {name: HarnessTask(task, wanted.limit) for name, task in loaded["tasks"].items()}
        except PythiaToolsError:
            raise
        except _faults() as error:
            raise RequestError(f"lm-eval does not build {' '.join(wanted.tasks)}: {_line(error)}") from error
        except OSError as error:
            hint = "reach its hub once from here, or give local definitions and files with --include-path"
            raise EnvironmentFailure(
                f"lm-eval cannot read the data of {' '.join(wanted.tasks)} ({_line(error)}); {hint}"
            ) from error
    return Asked(tasks, list(loaded.get("groups", {}).values()))


def _faults() -> tuple[type[Exception], ...]:
    """What a mistake in a definition raises, in any of its languages."""
    from jinja2 import TemplateError
    from yaml import YAMLError

    return TemplateError, YAMLError, LookupError, ValueError, TypeError, AttributeError, AssertionError


def _load(wanted: Wanted) -> TaskDict:
    """Own definitions first, then the harness' files of these names; its whole index only for groups and tags."""
    from lm_eval.tasks import TaskManager

    if wanted.include_path is not None and not Path(wanted.include_path).is_dir():
        raise RequestError(f"--include-path {wanted.include_path}: no such folder")
    own = TaskManager(include_path=wanted.include_path, include_defaults=False)
    ours = {t: shipped.specification(t) for t in wanted.tasks if t in shipped.names() and t not in own.all_tasks}
    missing = [t for t in wanted.tasks if t not in own.all_tasks and t not in ours and not Path(t).is_file()]
    files = _files(missing) if missing else {}
    if set(files) == set(missing):
        return own.load([ours.get(task, files.get(task, task)) for task in wanted.tasks])
    whole = TaskManager(include_path=wanted.include_path)
    for name in missing:
        if name not in whole.task_index:
            raise unknown("lm-eval task", name, [*whole.all_tasks, *shipped.names()])
    return whole.load([ours.get(task, task) for task in wanted.tasks])


def _files(names: Sequence[str]) -> dict[str, str]:
    """Name → the harness' file that defines this task. Reading them all takes a second, indexing them ten."""
    import lm_eval

    found = {}
    line = re.compile(rf"^task:[ \t]*[\"']?({'|'.join(map(re.escape, names))})[\"']?[ \t]*(?:#.*)?$", re.MULTILINE)
    for path in sorted((Path(lm_eval.__file__).parent / "tasks").rglob("*.yaml")):
        for name in line.findall(path.read_text(encoding="utf-8", errors="replace")):
            found[name] = str(path)
    return found


def _check(name: str, task: ConfigurableTask) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise RequestError(f"{name} runs code that models write; evaluate it with lm-eval itself, in a sandbox")
    if getattr(task, "MULTIMODAL", False):
        raise RequestError(f"{name} shows pictures or sound; only tasks of text are evaluated here")


def _set_shots(task: ConfigurableTask, shots: int | None) -> None:
    """As the harness does it: a task that states zero keeps zero."""
    stated = task.get_config("num_fewshot")
    if stated is None or (shots is not None and stated != 0):
        task.set_config(key="num_fewshot", value=shots or 0)
    task.set_fewshot_seed(seed=SEEDS["fewshot"])


@cache
def _encoder_class() -> type[HFLM]:
    from lm_eval.models.huggingface import HFLM

    class Encoder(HFLM):
        """The harness' tokenization without its model: what it would score is handed back as ids."""

        def __init__(self, tokenizer: Tokenizer):
            self.tokenizer, self.backend, self.truncation = tokenizer.for_transformers(), "causal", False
            self.add_bos_token = self.enable_thinking = None
            self.custom_prefix_token_id = tokenizer.beginning

        def _loglikelihood_tokens(
            self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: object
        ) -> list[tuple[list[int], list[int]]]:
            return [(context, continuation) for _, context, continuation in requests]

    return Encoder


def encoder(tokenizer: Tokenizer) -> HFLM:
    """The harness' HFLM with a tokenizer and no model. Raises EnvironmentFailure without the harness, RequestError for
    a tokenizer without an id to stand before a text.
    """
    _need()
    if tokenizer.beginning is None:
        raise RequestError(f"{tokenizer.source} has no end-of-text token, which lm-eval puts before empty contexts")
    with quiet():
        return _encoder_class()(tokenizer)


def version() -> str:
    """The installed harness' version. Raises EnvironmentFailure when there is none."""
    try:
        return importlib.metadata.version("lm-eval")
    except importlib.metadata.PackageNotFoundError as error:
        raise EnvironmentFailure(f"lm-eval is not installed; install it with `{INSTALL}`") from error


def _need() -> None:
    """Raises EnvironmentFailure when the harness, or what it needs for models of text, is missing."""
    version()
    try:
        import accelerate  # noqa: F401
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise EnvironmentFailure(f"lm-eval lacks {error.name}; install it with `{INSTALL}`") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The harness prints bars and logs for every task; ours show the progress."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """Each template of a definition is compiled once, not for every document as the harness does it."""
    from lm_eval.utils import env

    outermost = "from_string" not in vars(env)
    if outermost:
        env.from_string = cache(env.from_string)
    try:
        yield
    finally:
        if outermost:
            del env.from_string


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """The global generators as the harness sets them before it builds tasks; as they were afterwards."""
    drawn, state = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(SEEDS["random"])
    np.random.seed(SEEDS["numpy"])  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(drawn)
        np.random.set_state(state)  # noqa: NPY002


def _without_places(config: Mapping[str, object]) -> dict[str, object]:
    """A task's configuration, wherever its files lie."""
    kept = {key: value for key, value in config.items() if key not in PLACES}
    return {key: _without_places(value) if isinstance(value, Mapping) else value for key, value in kept.items()}


def _plain(value: object) -> object:
    """As JSON; whatever JSON does not know by its type and text, without addresses in memory."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return getattr(value, "__qualname__", None) or f"{type(value).__name__} {str(value).partition(' at 0x')[0]}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:240]
