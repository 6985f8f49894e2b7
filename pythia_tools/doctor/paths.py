"""The path of every tensor through training: what does not lie on it, jumps off it, or stands still on it.

Training moves a tensor step by step, so a checkpoint x between two others a and c lies between them:
- min(|x−a|, |x−c|) / |a−c| is about 0.5 on a straight path, 0.7 on a random walk, at most 1 for noise about a fixed
  point, whatever the spacing; weights that belong elsewhere give more (`detour`);
- x is close to p·a + q·c with p + q = 1; a scaled tensor gives its scale, an unrelated one 0 (`scale`); its norm is
  between theirs, or nearly (`norm`);
- an interval's movement is comparable to its neighbours', by steps or, where the schedule is known, by the sum of
  learning rates: much more is a `jump`, next to nothing a copy of the neighbour (`copy`).
On pythia-micro, at every step and on coarser grids, matrices give at most 0.93, 0.92 to 1.17, 2 %, and 1.6.
The worst offender is set aside before the next is judged, so that a good checkpoint between bad ones is not blamed.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pythia_tools.doctor.evidence import Evidence, Finding
from pythia_tools.models.statistics import SKETCH

NEGLIGIBLE = 1e-3
"""Movements below this share of the norm are not judged."""
JUMP, LEAST_JUMP = 5.0, 0.05
COPY = 0.1
SOME = 0.1
"""Share of the matrices that must stand still, if not bit for bit."""
EARLY = 2
"""Steps up to this one may stand still: the first learning rate is 0, the next below the resolution of float16."""


class Track:
    """One tensor at the checkpoints that hold it: distances, norms and angles, from sketches."""

    def __init__(self, name: str, steps: Sequence[Evidence], weight: np.ndarray) -> None:
        self.steps, self.weight = list(steps), weight
        rows = [e.tensors[name] for e in steps]
        sketches = np.stack([np.frombuffer(row["sketch"], dtype=np.float32) for row in rows]).astype(np.float64)
        self.gram = sketches @ sketches.T
        self.norm = np.array([row["norm"] for row in rows])
        self.matrix = len(rows[0]["shape"]) > 1
        self.numbers = min(SKETCH, int(rows[0]["size"]))
        self.early = EARLY if rows[0]["dtype"] == "float16" else 1
        square = np.diag(self.gram)
        self.distance = np.sqrt(np.clip(square[:, None] + square[None, :] - 2 * self.gram, 0, None))
        self.known: dict[tuple[int, int, int], tuple[float, str]] = {}
        self.stays = [k for k in range(1, len(steps)) if rows[k]["same"] == rows[k - 1]["same"]]
        self.at = [k for k in range(len(steps)) if k not in self.stays]

    def off(self, a: int, x: int, c: int) -> tuple[float, str]:
        """How far x is off the path from a to c, in units of what is allowed, and in words."""
        steps = f"steps {self.steps[a].step} and {self.steps[c].step}"
        direct, near = self.distance[a, c], min(self.distance[a, x], self.distance[x, c])
        if direct == 0 or near < NEGLIGIBLE * self.norm[[a, x, c]].max():
            return 0.0, ""
        detour = near / direct
        allowed = (1.25 + 4 / math.sqrt(2 * self.numbers)) if self.matrix else (1.6 + 6 / math.sqrt(2 * self.numbers))
        found = [(detour / allowed, f"{detour:.1f} times as far from {steps} as these are from each other")]
        if min(self.norm[a], self.norm[c]) > 0:
            cosine = float(np.clip(self.gram[a, c] / math.sqrt(self.gram[a, a] * self.gram[c, c]), 0, 1))
            over = self.norm[x] / np.clip(self.norm[x], *sorted((self.norm[a], self.norm[c])))
            room = 0.05 + 0.3 * (1 - cosine) if self.matrix else 0.3 if cosine > 0.5 else math.inf
            found.append((_log(over) / room, f"norm {self.norm[x]:.3g}, between {self.norm[a]:.3g} and "
                                             f"{self.norm[c]:.3g} at {steps}"))
            if self.matrix:
                scale = self._scale(a, x, c)
                room = min(0.3, 0.06 + 0.4 * (1 - cosine))
                found.append((_log(scale) / room, f"{scale:.2f} times what lies between {steps}"))
        return max(found)

    def _scale(self, a: int, x: int, c: int) -> float:
        """p + q of the p·a + q·c nearest to x."""
        ends = [a, c]
        p, q = np.linalg.lstsq(self.gram[np.ix_(ends, ends)], self.gram[ends, x], rcond=1e-6)[0]
        return float(p + q)

    def outliers(self) -> dict[int, tuple[float, str]]:
        """Places off the path, the worst set aside before the next is judged; the rest becomes the path, `at`."""
        found = {}
        while len(self.at) > 2:
            threes = list(zip(self.at, self.at[1:], self.at[2:], strict=False))
            self.known |= {three: self.off(*three) for three in threes if three not in self.known}
            scores = [self.known[three] for three in threes]
            worst = max(range(len(scores)), key=lambda k: scores[k][0])
            if scores[worst][0] <= 1:
                break
            bad = self._blamed(worst, len(scores))
            found[self.at.pop(bad)] = scores[worst]
        return found

    def _blamed(self, first: int, triples: int) -> int:
        """Which of three places is off when the middle does not lie between the others: it, or the run's very end."""
        a, x, c = self.at[first : first + 3]
        for is_end, end, sure, place in ((first == triples - 1, c, a, 2), (first == 0, a, c, 0)):
            further = abs((self.weight[end] - self.weight[sure]) / (self.weight[x] - self.weight[sure] or 1e-9))
            if is_end and self.distance[end, sure] > self.distance[x, sure] * math.sqrt(further):
                return first + place
        return first + 1

    def jumps(self) -> dict[int, tuple[float, str]]:
        """Places that a matrix jumps to (or from, at its first interval): it moved much more than before and after."""
        found = {}
        for k in range(len(self.at) - 1 if self.matrix else 0):
            moved, beside = self._moved(k), self._beside(k, max)
            least = LEAST_JUMP * max(self.norm[self.at[k]], self.norm[self.at[k + 1]])
            if beside and moved > max(least, JUMP * max(beside)):
                first, then = self.steps[self.at[k]].step, self.steps[self.at[k + 1]].step
                times = moved / max(beside)
                what = f"{times:.0f} times as far from step {first} to {then} as its other movements allow"
                found[self.at[k + 1] if k else self.at[0]] = (times, what)
        return found

    def still(self) -> list[tuple[int, int, float]]:
        """Neighbours on the path and how far they are from each other, in units of what others let expect."""
        if not self.matrix or 2 * len(self.stays) > len(self.steps):  # a vector, or frozen
            return []
        found = [(k - 1, k, 0.0) for k in self.stays
                 if self.steps[k].step > self.early and self.weight[k] > self.weight[k - 1]]
        for k in range(len(self.at) - 1):
            beside = self._beside(k, min)
            if self.steps[self.at[k + 1]].step > self.early and self._share(k) > 0 and beside:
                found.append((self.at[k], self.at[k + 1], self._moved(k) / max(min(beside), 1e-30)))
        return found

    def _beside(self, k: int, limit: Callable[[float, float], float]) -> list[float]:
        """How far the neighbouring intervals let expect that the k-th moved: `max` at most, `min` at least."""
        return [
            self._moved(n) * limit(1.0, self._share(k) / self._share(n)) for n in (k - 1, k + 1)
            if 0 <= n < len(self.at) - 1 and self._share(n) > 0
            and self._moved(n) > NEGLIGIBLE * self.norm[self.at[n + 1]]
        ]

    def _moved(self, k: int) -> float:
        return float(self.distance[self.at[k], self.at[k + 1]])

    def _share(self, k: int) -> float:
        return float(self.weight[self.at[k + 1]] - self.weight[self.at[k]])


def along(steps: Sequence[Evidence], progress: Sequence[float]) -> Iterator[Finding]:
    """Findings of one run's checkpoints, in order of training; `progress`: the sum of learning rates up to each, or its
    step. Those of a branch begin with its base's.
    """
    members: dict[tuple[str, tuple[int, ...]], list[int]] = defaultdict(list)
    for i, e in enumerate(steps):
        for name, tensor in e.tensors.items():
            if tensor["nonfinite"] == 0:
                members[name, tensor["shape"]].append(i)
    off: dict[int, list[tuple[float, str, str]]] = defaultdict(list)
    jumps: dict[int, list[tuple[float, str, str]]] = defaultdict(list)
    copies: dict[tuple[int, int], list[tuple[str, float]]] = defaultdict(list)
    for (name, _), at in members.items():
        track = Track(name, [steps[i] for i in at], np.array([progress[i] for i in at]))
        for k, (amount, what) in track.outliers().items():
            off[at[k]].append((amount, name, what))
        for k, (amount, what) in track.jumps().items():
            jumps[at[k]].append((amount, name, what))
        for j, k, amount in track.still():
            copies[at[j], at[k]].append((name, amount))
    yield from (_finding(steps[i], "path", them) for i, them in off.items())
    yield from (_finding(steps[i], "jump", them) for i, them in jumps.items())
    for (j, k), them in copies.items():
        names = [name for name, amount in them if amount < COPY]
        if any(amount == 0 for _, amount in them) or len(names) >= max(1, SOME * len(them)):
            for e, other in ((steps[j], steps[k]), (steps[k], steps[j])):
                what = f"{_listed(names)} of {len(them)} matrices: no more than noise away from step {other.step}"
                yield Finding(e.model, e.step, "copy", what)


def _finding(e: Evidence, check: str, them: list[tuple[float, str, str]]) -> Finding:
    """The worst tensor's words, after the names of all."""
    _, name, what = max(them)
    more = "" if len(them) == 1 else f"; {_listed([n for _, n, _ in them])} of {len(e.tensors)} tensors"
    return Finding(e.model, e.step, check, f"{name}: {what}{more}")


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"


def _log(ratio: float) -> float:
    return abs(math.log(ratio)) if ratio > 0 else math.inf
