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

from pythia_tools.analyses.term_frequency.items import Item
from pythia_tools.core.errors import RequestError, unknown

SEED = 42
OPERATIONS = {
    "multiplication": ("times", "*"), "addition": ("plus", "+"), "hidden-multiplication": ("#", "*"),
    "hidden-addition": ("#", "+"),
}
"""Operation → how its questions word it, and its sign."""
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
    word, sign = OPERATIONS[operation]
    firsts, seconds = list(operands), list(second)

    def question(x: int, y: int) -> tuple[str, str]:
        return f"Q:What is {x} {word} {y}? A:", str(x * y if sign == "*" else x + y)

    items = []
    for x in firsts:
        others = [(other, y) for other in firsts if other != x for y in seconds]
        shown = dict(_examples(others, seconds, shots, seed))
        for y in seconds:
            asked, answer = question(x, y)
            prompt = with_examples([question(*pair) for pair in shown[y]], asked)
            items.append(Item(prompt, (answer,), str(x), f"{x}{sign}{y}"))
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
        others = [(other, 0) for other in xs if other != x]
        for k, (_, shown) in enumerate(_examples(others, range(repeats if shots else 1), shots, seed)):
            examples = [(question(other), str(other * factor)) for other, _ in shown]
            name = f"{x} {unit} #{k}" if shots else f"{x} {unit}"
            items.append(Item(with_examples(examples, question(x)), (str(x * factor),), str(x), name))
    return items


def with_examples(examples: Sequence[tuple[str, str]], question: str) -> str:
    """Examples (question, target), each with its target directly behind, and the question, joined by blank lines."""
    return "".join(f"{q}{target}\n\n" for q, target in examples) + question


def _examples(
    others: Sequence[tuple[int, int]], asked: Iterable[int], shots: int, seed: int
) -> list[tuple[int, list[tuple[int, int]]]]:
    """What is asked, in the order the harness shuffles it into, each with its draw from the other operands' pairs."""
    if shots < 0:
        raise RequestError(f"shots must be 0 or more; got {shots}")
    if shots and len(others) < shots + 1:
        raise RequestError(f"{shots} shots need {shots + 1} examples of other operands; there are {len(others)}")
    draw, order = random.Random(seed), list(asked)
    draw.shuffle(order)
    return [(one, draw.sample(others, shots + 1)[:shots] if shots else []) for one in order]
