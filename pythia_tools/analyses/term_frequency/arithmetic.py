"""The paper's arithmetic questions: first operand 0 … 99 (the term), second 1 … 50, and conversions of time units.

Prompts, examples and answers are those of the published study: `Q:What is 12 times 7? A:`, few-shot examples the same
with the answer's digits directly behind, joined by blank lines and drawn from other first operands. The draws are those
of its evaluation harness: for each operand one generator seeded with 42 shuffles the fifty questions (the ten repeats
of a time unit), then draws shots + 1 examples for each in turn from the 4,950 (99) of the other operands in order, and
leaves the last one out.

What was checked: all 100,000 arithmetic and 17,500 time-unit prompts of shots 0, 2, 4, 8 and 16 equal, text for text,
those that lm-evaluation-harness 0.3.0 makes of the study's published tasks (release 0.2.0 draws alike). What cannot be:
the study did not record which commit of the harness it ran, and published accuracies, no prompts.

Sources: Biderman et al. 2023, section 4.3, and EleutherAI/pythia, case-studies/term_frequency; Razeghi et al. 2022 for
the hidden-operator and time-unit variants.
"""

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pythia_tools.analyses.term_frequency.items import Item
from pythia_tools.core.errors import RequestError, unknown

SEED = 42


class Operation(NamedTuple):
    """How a question is worded, and the sign of its item names; `product` or sum."""

    word: str
    sign: str
    product: bool


OPERATIONS = {
    "multiplication": Operation("times", "*", True),
    "addition": Operation("plus", "+", False),
    "hidden-multiplication": Operation("#", "*", True),
    "hidden-addition": Operation("#", "+", False),
}
CONVERSIONS = {
    "minutes-seconds": 60, "hours-minutes": 60, "days-hours": 24, "weeks-days": 7, "months-weeks": 4,
    "years-months": 12, "decades-years": 10
}


def arithmetic_items(
    operation: str = "multiplication", shots: int = 16, *, operands: Iterable[int] = range(100),
    second: Iterable[int] = range(1, 51), seed: int = SEED
) -> list[Item]:
    """5,000 questions by default: 50 for each first operand, which is the term. Raises RequestError for an unknown
    operation.
    """
    if operation not in OPERATIONS:
        raise unknown("operation", operation, OPERATIONS)
    op = OPERATIONS[operation]
    firsts, seconds = list(operands), list(second)
    items = []
    for x1 in firsts:
        pool = [(x, y) for x in firsts if x != x1 for y in seconds]
        draw = random.Random(seed)
        asked = list(seconds)
        draw.shuffle(asked)
        made = {}
        for x2 in asked:
            examples = _draw(draw, pool, shots)
            prompt = with_examples(
                [(_question(op, x, y), str(_answer(op, x, y))) for x, y in examples], _question(op, x1, x2)
            )
            made[x2] = Item(prompt, (str(_answer(op, x1, x2)),), str(x1), f"{x1}{op.sign}{x2}")
        items += [made[x2] for x2 in seconds]
    return items


def time_unit_items(
    conversion: str = "minutes-seconds", shots: int = 16, *, operands: Iterable[int] = range(100), repeats: int = 10,
    seed: int = SEED
) -> list[Item]:
    """`Q:What is 5 minutes in seconds? A:`, x = 0 … 99 the term, each asked `repeats` times with other examples (once
    without any).
    """
    if conversion not in CONVERSIONS:
        raise unknown("conversion", conversion, CONVERSIONS)
    factor = CONVERSIONS[conversion]
    unit, into = conversion.split("-")
    xs = list(operands)

    def question(x: int) -> str:
        return f"Q:What is {x} {unit} in {into}? A:"

    items = []
    for x in xs:
        draw = random.Random(seed)
        draw.shuffle(list(range(repeats)))  # as the harness does: what follows depends on it
        pool = [(y, 0) for y in xs if y != x]
        for k in range(repeats if shots else 1):
            examples = [(question(y), str(y * factor)) for y, _ in _draw(draw, pool, shots)]
            name = f"{x} {unit} #{k}" if shots else f"{x} {unit}"
            items.append(Item(with_examples(examples, question(x)), (str(x * factor),), str(x), name))
    return items


def with_examples(examples: Sequence[tuple[str, str]], question: str) -> str:
    """Examples (question, target), each with its target directly behind, and the question, joined by blank lines."""
    return "".join(f"{q}{target}\n\n" for q, target in examples) + question


def _draw(draw: random.Random, pool: Sequence[tuple[int, int]], shots: int) -> list[tuple[int, int]]:
    if shots < 0:
        raise RequestError(f"shots must be 0 or more; got {shots}")
    if shots == 0:
        return []
    if len(pool) < shots + 1:
        raise RequestError(f"{shots} shots need {shots + 1} examples of other operands; there are {len(pool)}")
    return draw.sample(pool, shots + 1)[:shots]


def _question(op: Operation, x1: int, x2: int) -> str:
    return f"Q:What is {x1} {op.word} {x2}? A:"


def _answer(op: Operation, x1: int, x2: int) -> int:
    return x1 * x2 if op.product else x1 + x2
