"""Question answering over a file of (question, answers, entities), such as TriviaQA, scored by greedy decoding.

Prompt `Q:{question} A:`, few-shot examples with ` {answer}` behind, joined by blank lines and drawn from a training
file; the exposures of a question are the rows in which all its entities occur. The published TriviaQA runs drew their
examples in a version of the harness whose draws are not recorded, so here they are drawn by one seed, the same for
every checkpoint.

Files: .jsonl, .json (a list), .csv or .parquet with `question`; `answers` (list) or `answer` (text, or TriviaQA's
mapping with `value` and `aliases`); optionally `entities` (list; an entity may be a list of aliases) and `id` (or
`question_id`). In CSV, lists are written with | between entries. Source: Joshi et al. 2017; Kandpal et al. 2023;
Biderman et al. 2023, section 4.3.
"""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythia_tools.analyses.term_frequency.arithmetic import SEED, with_examples
from pythia_tools.analyses.term_frequency.items import Item
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.tables import read_table
from pythia_tools.counts.patterns import CoOccurrence

PROMPT = "Q:{question} A:"


@dataclass(frozen=True)
class Question:
    """One question; `answer` is shown in examples, all `answers` (aliases) are right."""

    name: str
    question: str
    answer: str
    answers: tuple[str, ...]
    entities: tuple[Any, ...] = ()


def read_questions(path: str | os.PathLike[str]) -> list[Question]:
    """Questions of a file. Raises DataError naming the record that is wrong, RequestError for an unknown kind of file.
    """
    file = Path(path)
    questions = [_question(file, n, r) for n, r in enumerate(_records(file))]
    if not questions:
        raise DataError(f"{file}: holds no question")
    if len({q.name for q in questions}) != len(questions):
        raise DataError(f"{file}: two questions have the same id")
    return questions


def question_items(
    questions: Sequence[Question], shots: int = 0, *, examples: Sequence[Question] = (), seed: int = SEED
) -> list[Item]:
    """Items of questions; the term is the question's id. Examples are drawn from `examples`, never the question itself.

    The prompt is the published code's; the paper prints `Q: {question} \\n A:`.
    """
    pool = list(examples) or list(questions)
    if shots and len(pool) < shots + 1:
        raise RequestError(f"{shots} shots need {shots + 1} examples to draw from; there are {len(pool)}")
    draw = random.Random(seed)
    items = []
    for q in questions:
        shown = [e for e in draw.sample(pool, shots + 1) if e != q][:shots] if shots else []
        before = [(PROMPT.format(question=e.question), f" {e.answer}") for e in shown]
        items.append(Item(with_examples(before, PROMPT.format(question=q.question)), q.answers, q.name, q.name))
    return items


def question_patterns(questions: Sequence[Question]) -> list[CoOccurrence]:
    """For `counts.count_terms`: per question, the rows in which all its entities occur; the label is the question's id.
    """
    without = [q.name for q in questions if not q.entities]
    if without:
        raise RequestError(f"question {without[0]!r} names no entities ({len(without)} of {len(questions)}); exposures "
            "cannot be counted"
        )
    return [CoOccurrence(q.entities, label=q.name) for q in questions]


def _records(file: Path) -> list[dict[str, Any]]:
    if file.suffix not in (".jsonl", ".json", ".csv", ".parquet"):
        raise RequestError(f"{file}: questions are read from .jsonl, .json, .csv and .parquet files")
    frame = read_table(file)
    if file.suffix == ".csv":
        listed = frame.columns.intersection(["answers", "entities"])
        frame[listed] = frame[listed].map(lambda cell: [x for x in cell.split("|") if x])
    known = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(k): v for k, v in r.items()} for r in known]


def _question(file: Path, n: int, record: dict[str, Any]) -> Question:
    if not record.get("question"):
        raise DataError(f"{file}: record {n} has no question")
    answers, shown = _answers(record)
    if not answers:
        raise DataError(f"{file}: record {n} has no answer; give `answers` (a list) or `answer`")
    raw = record.get("entities")
    entities = tuple(tuple(map(str, e)) if not isinstance(e, str) else e for e in (raw if raw is not None else ()))
    name = str(record.get("id") or record.get("question_id") or n)
    return Question(name, str(record["question"]), shown, answers, entities)


def _answers(record: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    """The right answers, and the one that examples show."""
    answer: Any = record.get("answer")
    listed: Any = record.get("answers")
    if isinstance(answer, dict):  # TriviaQA's
        answer, listed = answer.get("value"), answer.get("aliases")
    if listed is None or isinstance(listed, str):
        listed = [listed] if listed else []
    answers = tuple(map(str, listed)) or ((str(answer),) if answer else ())
    return answers, str(answer) if answer else "".join(answers[:1])
