"""Tasks that ship with this package: those of Pythia's published results whose present namesakes ask something else.

    pythia-tools evaluate pythia-deduped --models 70m --steps last --tasks pythia_sciq pythia_hendrycksTest_anatomy

Definitions are lm-eval's YAML, in `tasks/`, each with what differs and why; `published` in their metadata is the name
in the published files. Prompts follow lm-evaluation-harness of February 2023 (commit 3d14707a1, version 0 of each
task); which examples a few-shot prompt holds cannot be repeated, since its random state was never recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from datasets import Dataset
    from lm_eval.api.group import Group

FOLDER = Path(__file__).parent / "tasks"
PLACEHOLDER = "SUBJECT"
_MANY = "pythia_hendrycksTest"


@cache
def names() -> tuple[str, ...]:
    """Every task and group by name.

    >>> "pythia_sciq" in names() and "pythia_hendrycksTest_anatomy" in names(), len(names())
    (True, 60)
    """
    single = [path.stem for path in FOLDER.glob("*.yaml") if path.stem != _MANY]
    return (*sorted(single), _MANY, *(f"{_MANY}_{subject}" for subject in _subjects()))


def definition(name: str) -> dict[str, object]:
    """One task's definition as lm-eval reads it, for `TaskManager.load`; changed at will before that."""
    from lm_eval.tasks._yaml_loader import load_yaml

    subject = name.removeprefix(f"{_MANY}_")
    made: dict[str, object] = load_yaml(FOLDER / f"{_MANY if subject != name else name}.yaml")
    made.pop("subjects", None)
    return {key: _filled(value, subject) for key, value in made.items()}


def specification(name: str) -> dict[str, object] | Group:
    """What `TaskManager.load` takes for a name: a definition, or the group with its tasks (which reads their data)."""
    if name != _MANY:
        return definition(name)
    from lm_eval.api.group import Group
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.config.group import AggMetricConfig

    group = Group(_MANY, aggregate_metric_list=[AggMetricConfig("acc"), AggMetricConfig("acc_norm")])
    for subject in _subjects():
        group.add(ConfigurableTask(config=definition(f"{_MANY}_{subject}")))
    return group


def _subjects() -> list[str]:
    return list(yaml.safe_load((FOLDER / f"{_MANY}.yaml").read_text(encoding="utf-8"))["subjects"])


def _filled(value: object, subject: str) -> object:
    if isinstance(value, Mapping):
        return {key: _filled(some, subject) for key, some in value.items()}
    return value.replace(PLACEHOLDER, subject) if isinstance(value, str) else value


def answered_by_yes(documents: Dataset) -> Dataset:
    """The documents of WSC in which the pronoun stands for the noun."""
    return documents.filter(lambda document: document["label"])


def marked_pronoun(document: Mapping[str, str | int]) -> str:
    """WSC's prompt: the passage with *the pronoun* marked, and whether it stands for the noun.

    The index of a span counts words; where the span begins follows from the words before it, joined by single spaces.
    """
    from lm_eval.utils import general_detokenize

    text, noun, pronoun = str(document["text"]), document["span1_text"], str(document["span2_text"])
    before = " ".join(text.split()[: int(document["span2_index"])])
    rest = text[len(before) + 1 + len(pronoun):]
    passage = general_detokenize(f"{before} *{pronoun}*{rest}")
    question = f'In the passage above, does the pronoun "*{pronoun}*" refer to "*{noun}*"?'
    return f"Passage: {passage}\nQuestion: {question}\nAnswer:"
