"""A lower-precision screen: a bfloat16 copy of the model rejects most rows, the model itself judges all others.

What is certain:
- A row is called memorized only by the model in its own format. The screen rejects; it never accepts.
- A rejection stands only where some position's margin is below −doubt, after positions whose margins are all above
  doubt. So a memorized row is lost only if the two passes' margins differ there by more than `doubt`.

What is measured, and how far it carries:
- doubt is at least SAFETY times the largest difference found on CALIBRATION rows drawn at random from those asked
  about, and always at least twice the largest found since, on doubtful rows and on the audit. A difference grows out
  of thousands of roundings, so SAFETY times the largest of a hundred or more lies some ten standard deviations out
  (`doubt` / `spread`). That is an estimate, no proof: no useful bound is known for the rounding of a whole network,
  and a row of unlike numbers could go beyond.
- The audit assumes nothing: of the rejected rows one in AUDIT, drawn at random, is judged by the model itself. With m
  of them and none overturned, at most 3 / m of all rejections are wrong, with 95 % confidence. `Screening` counts
  them, item tables keep the columns `decided` and `doubt`, summaries the metric `screen_overturned` with its interval.
  One overturned row is warned about, put right, and widens the doubt for all others.

Where flags must be those of float32 without an if, do not screen. Cost: a second copy of the weights, CALIBRATION rows
twice, rows in doubt twice. When the calibration says that too many will be in doubt (most rows memorized), or rows are
few, nothing is screened.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pythia_tools.analyses.memorization.extract import Extraction, Screening, Window, judge_windows, prepare, record
from pythia_tools.core import progress
from pythia_tools.models.decode import Decoder
from pythia_tools.models.devices import dtype_name, inference_mode
from pythia_tools.models.head import Verdict
from pythia_tools.models.score import automatic_batch_size

SAFETY = 4.0
CALIBRATION = 32
"""Rows on which both passes judge the first POSITIONS continuation positions."""
POSITIONS = 4
AUDIT = 128
"""One in so many rejections is judged again by the model itself."""
WORTH = 0.4
"""Share of calibration rows not clearly rejected above which the screen would cost more than it saves."""
EXACT, SCREEN, DOUBTFUL, AUDITED = "exact", "screen", "doubtful", "audit"


@inference_mode
def screened(
    model: nn.Module, rows: Any, window: Window | None = None, *, dtype: str = "bfloat16",
    batch_size: int | None = None, seed: int = 0,
) -> Extraction:
    """As `extract`, with a copy of the model in `dtype` that rejects most rows first (see the module's first lines).

    The result's `dtype` says for each row which format decided it, `screening` how, and how wide the doubt was. The
    window keeps no masks: their positions would all be judged, and nothing screened.
    """
    window = window or Window()
    windows, usable, result = prepare(model, rows, window)
    size = batch_size or automatic_batch_size(model, window.length)
    screen = _Screen(Decoder(model, window.vocabulary), windows, window, result, size, np.random.default_rng(seed))
    quick = Decoder(reduced(model, dtype), window.vocabulary) if len(usable) >= 4 * CALIBRATION else None
    if quick is not None and screen.calibrate(usable, quick):
        screen.run(usable, dtype)
    else:
        screen.judge(usable)
    decided = screen.decided.astype(str)
    result.screening = Screening(decided, screen.doubt, screen.largest, screen.spread, screen.overturned)
    return result


def reduced(model: nn.Module, dtype: str) -> nn.Module:
    """A copy with parameters in `dtype`. Buffers keep their format, rotary frequencies above all: rounded, they turn
    far positions.
    """
    memo = {id(p): nn.Parameter(p.detach().to(getattr(torch, dtype)), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, memo)  # type: ignore[arg-type]


@dataclass
class _Screen:
    """One screening under way. decided (n,): what settled each row so far."""

    exact: Decoder
    windows: np.ndarray
    window: Window
    result: Extraction
    size: int
    rng: np.random.Generator
    quick: Decoder | None = None
    doubt: float = float("nan")
    largest: float = float("nan")
    spread: float = float("nan")
    overturned: int = 0

    def __post_init__(self) -> None:
        self.decided = np.full(len(self.windows), EXACT, dtype=object)
        self.settled = np.zeros(0, np.int64)
        self.own_format = dtype_name(next(self.exact.model.parameters()).dtype)

    def calibrate(self, usable: np.ndarray, quick: Decoder) -> bool:
        """Set the doubt from rows drawn at random; whether screening is worth while. Rows that the model itself
        rejects are settled.
        """
        sample = np.sort(self.rng.choice(usable, CALIBRATION, replace=False))
        verdict, other = (_verdict(r, self.windows[sample], self.window) for r in (self.exact, quick))
        exact, quickly = verdict.margin.cpu().numpy(), other.margin.cpu().numpy()
        differences = np.abs(exact - quickly)[np.isfinite(exact) & np.isfinite(quickly)]
        if not len(differences):
            return False
        self.quick, self.largest, self.spread = quick, float(differences.max()), float(np.sqrt((differences**2).mean()))
        doubt = max(SAFETY * self.largest, float(np.finfo(np.float32).tiny))
        rejected = ((quickly < -doubt) & (np.cumsum(~(quickly > doubt), axis=1) == 1)).any(axis=1)
        if (~rejected).mean() > WORTH:
            return False
        self.doubt = doubt
        going_on, _ = record(verdict, 0, sample, self.window, self.result, 0.0)
        self.settled = sample[~going_on]
        return True

    def run(self, usable: np.ndarray, dtype: str) -> None:
        """Screen, settle what is in doubt, audit; as long as differences are found that ask for more doubt."""
        assert self.quick is not None
        usable = np.setdiff1d(usable, self.settled)
        self.decided[usable], self.result.dtype[usable] = SCREEN, dtype
        unsure = judge_windows(self.quick, self.windows, usable, self.window, self.result, self.size, doubt=self.doubt)
        self.settle(unsure, usable)
        rejected = usable[self.decided[usable] == SCREEN]
        audit = np.sort(self.rng.choice(rejected, -(-len(rejected) // AUDIT), replace=False))
        self.judge(audit, AUDITED)
        self.overturned = int(self.result.memorized[audit].sum())
        if self.overturned:
            wrong = f"{self.overturned} of {len(audit)} audited rejections by the {dtype} screen were wrong"
            progress.warn(f"{wrong}; do not screen here")
        self.settle(np.zeros(0, np.int64), usable)

    def settle(self, unsure: np.ndarray, usable: np.ndarray) -> None:
        """Judge the unsure rows exactly; widen the doubt while it is less than twice the largest difference met."""
        self.judge(unsure, DOUBTFUL)
        while 2 * self.largest > self.doubt:
            self.doubt = SAFETY * self.largest
            self.judge(usable[(self.decided[usable] == SCREEN) & (self.result.edge[usable] <= self.doubt)], DOUBTFUL)

    def judge(self, index: np.ndarray, why: str = EXACT) -> None:
        """Judge rows by the model itself, and learn from how far the screen's margins were off."""
        before, judged = self.result.margin[index], self.result.judged[index]
        self.result.dtype[index], self.decided[index] = self.own_format, why
        judge_windows(self.exact, self.windows, index, self.window, self.result, self.size)
        seen = np.abs(before - self.result.margin[index])[judged == self.result.judged[index]]
        self.largest = max(self.largest, float(np.nanmax(seen, initial=0.0))) if why != EXACT else self.largest


def _verdict(decoder: Decoder, windows: np.ndarray, window: Window) -> Verdict:
    """(n, p) verdicts on the first few continuation positions under teacher forcing."""
    last = window.context + min(POSITIONS, window.continuation)
    ids = torch.from_numpy(windows).to(decoder.device)
    decoder.start()
    return decoder.feed(ids[:, : last - 1], ids[:, window.context : last])
