"""The step language: which checkpoints of a model a request means.

| request | means |
|---|---|
| `all` | every step of the model |
| `log` | the first step, about one per doubling, and the last |
| `first`, `last` | the ends |
| `512`, `step512` | that step; the nearest one, with a warning, when it is not on the grid |
| `1000:143000:10000` | 1000, 11000, … up to 143000 (both ends included) where the model has them |
| `1000:143000` | every step from 1000 to 143000, both included |
| `tokens=2B` | nearest to that many training tokens (k, M, B, T); also `tokens=1B:10B:1B` |
| `10%` | nearest to that share of the run |
| a list, or items joined by commas | their union |

The axis that suites share is tokens: `tokens=2B` means the same amount of training everywhere.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError

Request = str | int | Iterable["str | int"]
ALLOWED = "all, log, first, last, 512, 1000:143000:10000, tokens=2B, 10%, or a list of these"
NEAR = 0.05
"""A token or percent request may miss its target by this share before a warning is due."""
MOST = 1_000_000
"""Steps of one model at most: what a manifest lists beyond that is a mistake, and would fill the memory."""
_NUMBER = "[0-9]{1,18}"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def expand(values: Iterable[int | str]) -> tuple[int, ...]:
    """Steps of a manifest, ascending: whole numbers and inclusive ranges `"1000:143000:1000"`.

    Raises: ValueError naming the item that is neither.
    """
    steps: set[int] = set()
    for value in values:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            steps.add(value)
        elif isinstance(value, str) and re.fullmatch(f"{_NUMBER}:{_NUMBER}:[1-9][0-9]{{0,17}}", value):
            start, stop, stride = map(int, value.split(":"))
            if (stop - start) // stride >= MOST:
                raise ValueError(f"step {value!r} is more than {MOST:,} steps; a model has that many at most")
            steps.update(range(start, stop + 1, stride))
        else:
            raise ValueError(f"step {value!r} is neither a whole number nor a range 'first:last:stride'")
    return tuple(sorted(steps))


def select(
    request: Request, grid: Sequence[int], *, tokens_per_step: int | None, who: str, lenient: bool = False,
) -> list[int]:
    """The steps of `grid` (ascending) that `request` means, ascending, without repeats.

    `who` names the model in messages. `lenient` (branches, which begin late) drops what lies outside the
    grid's range, with one warning, where a main run raises. Raises: RequestError.
    """
    if not grid:
        return _unlisted(request, who)
    model = _Grid(grid, tokens_per_step, who, [] if lenient else None)
    chosen = {step for item in _items(request) for step in model.select(item)}
    if model.left_out:
        progress.warn(
            f"{who} has checkpoints from step {grid[0]} to step {grid[-1]}; left out: {', '.join(model.left_out)}")
    return sorted(chosen)


def _unlisted(request: Request, who: str) -> list[int]:
    """Where a manifest lists no steps, they are taken as named; the hub has the last word."""
    items = _items(request)
    if not all(re.fullmatch(_NUMBER, item) for item in items):
        raise RequestError(f"{who}: its manifest lists no steps, so name them one by one (1000,2000); "
                           "`pythia-tools suites NAME --online` shows what the hub holds")
    return sorted({int(item) for item in items})


def _items(request: Request) -> list[str]:
    if isinstance(request, int | str):
        request = [request]
    texts = [part.strip() for item in request for part in str(item).split(",")]
    if not texts or not all(texts):
        raise RequestError(f"steps {request!r} is empty in part; allowed: {ALLOWED}")
    return texts


@dataclass
class _Grid:
    """The steps of one model. `left_out` gathers requests outside their range; None: such a request is an error."""

    steps: Sequence[int]
    tokens_per_step: int | None
    who: str
    left_out: list[str] | None

    def select(self, item: str) -> list[int]:
        named = {"all": self.steps, "first": self.steps[:1], "last": self.steps[-1:]}
        if item in named:
            return list(named[item])
        if item == "log":
            return self.doublings()
        if match := re.fullmatch(f"(?:step)?({_NUMBER})", item):
            return self.exact(int(match[1]))
        if match := re.fullmatch(f"({_NUMBER}):({_NUMBER})(?::({_NUMBER}))?", item):
            return self.between(int(match[1]), int(match[2]), match[3])
        if item.startswith("tokens="):
            return self.by_tokens(item)
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)%", item):
            share = float(match[1])
            if share > 100:
                raise RequestError(f"steps {share:g}%: a share of the run is 0% to 100%")
            return self.close(share / 100 * self.steps[-1], f"{share:g}%")
        raise RequestError(f"steps {item!r} is not understood; allowed: {ALLOWED}")

    def doublings(self) -> list[int]:
        """The ends, and the nearest step to each power of two that has one within half an octave."""
        nearest = {2**k: self.nearest(2**k) for k in range(self.steps[-1].bit_length())}
        near = [step for power, step in nearest.items() if power / 2**0.5 <= step <= power * 2**0.5]
        return [self.steps[0], *near, self.steps[-1]]

    def exact(self, step: int) -> list[int]:
        if not self.covers(step, f"step {step}"):
            return []
        near = self.nearest(step)
        if near != step:
            progress.warn(f"step {step} has no checkpoint in {self.who}; taking the nearest, {near}")
        return [near]

    def between(self, start: int, stop: int, stride: str | None) -> list[int]:
        asked = f"{start}:{stop}" + (f":{stride}" if stride else "")
        if stop < start or (stride is not None and int(stride) == 0):
            raise RequestError(f"steps {asked}: the range is first:last:stride with first ≤ last and stride ≥ 1")
        if stride is None:
            return [s for s in self.steps if start <= s <= stop]
        wanted = range(start, stop + 1, int(stride))
        found = [s for s in self.steps if s in wanted]
        if gone := len(wanted) - len(found):
            progress.warn(
                f"{self.who}: {gone} of the {len(wanted)} steps of {asked} have no checkpoint and are left out")
        return found

    def by_tokens(self, item: str) -> list[int]:
        if not self.tokens_per_step:
            raise RequestError(f"{item}: the tokens per step of {self.who} are not known; ask by step")
        counts = [_count(part, item) for part in item.removeprefix("tokens=").split(":")]
        if len(counts) == 3 and counts[0] <= counts[1] and counts[2] > 0:
            counts = self.deciding(range(counts[0], counts[1] + 1, counts[2]), self.tokens_per_step)
        elif len(counts) != 1:
            raise RequestError(f"steps {item!r}: tokens are one amount or first:last:stride, "
                               "for example tokens=2B or tokens=1B:10B:1B")
        return [step for tokens in counts for step in self.close(tokens / self.tokens_per_step, item)]

    def deciding(self, amounts: range, per_step: int) -> list[int]:
        """The amounts that decide which steps are nearest to any: the ends, and those just below and above a step."""
        if len(amounts) <= 2 * len(self.steps) + 2:
            return list(amounts)
        below = [(step * per_step - amounts.start) // amounts.step for step in self.steps]
        places = {0, len(amounts) - 1, *below, *(k + 1 for k in below)}
        return [amounts[k] for k in sorted(places) if 0 <= k < len(amounts)]

    def close(self, target: float, what: str) -> list[int]:
        """The step nearest to a target, with a warning when it is not near; none when the target is left out."""
        near = self.nearest(target)
        if abs(near - target) > NEAR * max(target, 1.0):
            if not self.covers(target, what):
                return []
            progress.warn(f"{what} is step {target:.0f} of {self.who}; the nearest checkpoint is step {near}")
        return [near]

    def covers(self, step: float, what: str) -> bool:
        """Whether a step lies in the range of the grid; raises, or is noted as left out, when not."""
        first, last = self.steps[0], self.steps[-1]
        if first <= step <= last:
            return True
        if self.left_out is None:
            raise RequestError(f"{what} lies outside {self.who}, whose checkpoints run from step {first} to step "
                               f"{last}; allowed: {ALLOWED}")
        self.left_out.append(what)
        return False

    def nearest(self, target: float) -> int:
        """The grid's nearest member; the earlier one on a tie."""
        i = bisect_left(self.steps, target)
        return min(self.steps[max(i - 1, 0) : i + 1], key=lambda s: (abs(s - target), s))


def _count(text: str, item: str) -> int:
    match = re.fullmatch(rf"({_NUMBER}(?:\.{_NUMBER})?)([kmbt]?)", text.strip().lower())
    if not match:
        raise RequestError(f"steps {item!r}: {text!r} is not an amount of tokens such as 2B, 500M, 3e9 written as 3B")
    return min(round(Fraction(match[1]) * _UNITS[match[2]]), MOST * 10**12)
