"""What counts as a right answer to a decoded text.

| rule | the answer that is read | right when |
|---|---|---|
| digits | the first run of one to five digits (none: empty) | equal to an answer, as text: `07` is not `7` |
| normalized | the text to the end of its line | equal to an alias, in lower case, without punctuation and articles |
| exact | the text to the end of its line, white space around it removed | equal to an answer likewise |

Sources: `digits` is the rule of the Pythia paper's arithmetic tasks, `normalized` that of TriviaQA (Joshi et al. 2017),
with aliases sorted and those left out that an earlier one begins.
"""

import re
import string
from collections.abc import Sequence


def read_answer(output: str, rule: str) -> str:
    """The answer in a decoded output; everything from the first newline on is no part of it."""
    line = output.split("\n")[0]
    if rule == "digits":
        found = re.search(r"\d{1,5}", line)
        return found.group() if found else ""
    return line if rule == "normalized" else line.strip()


def is_right(read: str, answers: Sequence[str], rule: str) -> bool:
    """Whether what `read_answer` returned is right."""
    if rule == "normalized":
        return any(normalize(read) == normalize(a) for a in distinct_aliases(answers))
    if rule == "digits":
        return read in answers
    return read in [a.strip() for a in answers]


def is_settled(output: str, rule: str) -> bool:
    """Whether more decoding can no longer change the answer: saves steps, never a result."""
    if "\n" in output:
        return True
    if rule != "digits":
        return False
    found = re.search(r"\d{1,5}", output)
    if found is None:
        return False
    return len(found.group()) == 5 or (found.end() < len(output) and output[found.end()] != "�")


def normalize(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles, single spaces."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def distinct_aliases(aliases: Sequence[str]) -> list[str]:
    """Aliases sorted, without those that begin with the one kept before."""
    kept: list[str] = []
    for alias in sorted(aliases):
        if not kept or not alias.startswith(kept[-1]):
            kept.append(alias)
    return kept
