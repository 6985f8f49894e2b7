"""How far a model's predictions are from those of n-grams: KL(n-gram ‖ model) in bits, over the n-grams' support only.

The n-gram's prediction at a position is the share of each id among all that followed its last n − 1 ids in the rows
counted (see `ngrams`), unsmoothed. Ids that never followed add nothing to this divergence, so the model's
log-probabilities are needed at the others alone: as in Belrose et al. (2024, arXiv:2402.04362), without their dense
tables. Where a context was never seen there is no prediction, and no divergence (NaN).

Cost: for n = 1 one product of the log-probabilities with a vector; else one number looked up per id in a support.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from pythia_tools.analyses.curves.ngrams import Continuations

ENTRIES = 1 << 24
"""Numbers looked up at a time."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """The n-gram predictions of one n, ready to be compared with a model's."""

    table: Continuations

    @cached_property
    def shares(self) -> np.ndarray:
        """(entries,) float32 share of each continuation in its context."""
        return (self.table.count / np.repeat(self.table.totals, np.diff(self.table.begins))).astype(np.float32)

    @cached_property
    def negative_entropy(self) -> np.ndarray:
        """(contexts,) Σ q log q, nats."""
        terms = self.shares.astype(np.float64) * np.log(self.shares)
        sums = np.concatenate([[0.0], np.cumsum(terms)])
        return np.asarray(sums[self.table.begins[1:]] - sums[self.table.begins[:-1]])

    def from_model(self, logp: torch.Tensor, positions: np.ndarray) -> np.ndarray:
        """(k,) bits of KL(n-gram ‖ model) at some of the chosen positions; NaN where the context was never seen.

        logp: (k, vocabulary) natural log-probabilities; positions: (k,) numbers of the chosen positions.
        """
        context, seen = self.table.place[positions], self.table.seen[positions]
        found = np.full(len(positions), np.nan)
        if self.table.n == 1:
            dense = np.zeros(logp.shape[1], dtype=np.float32)
            dense[self.table.token] = self.shares
            whole = torch.from_numpy(dense).to(logp)
            cross = torch.where(whole > 0, logp, 0) @ whole
            found[seen] = self.negative_entropy[0] - cross.cpu().double().numpy()[seen]
        else:
            sizes = np.diff(self.table.begins)[context]
            lines = np.flatnonzero(seen)
            for some in _pieces(lines, sizes[lines]):
                found[some] = self.negative_entropy[context[some]] - self._cross(logp, some, context[some])
        return found / np.log(2)

    def _cross(self, logp: torch.Tensor, lines: np.ndarray, context: np.ndarray) -> np.ndarray:
        """(k,) Σ q log p of these lines of logp."""
        begins, sizes = self.table.begins[context], np.diff(self.table.begins)[context]
        ends = np.cumsum(sizes)
        entry = np.arange(ends[-1]) + np.repeat(begins - ends + sizes, sizes)
        owner = torch.from_numpy(np.repeat(np.arange(len(lines)), sizes)).to(logp.device)
        where = torch.from_numpy(np.repeat(lines, sizes) * logp.shape[1] + self.table.token[entry]).to(logp.device)
        terms = logp.reshape(-1)[where] * torch.from_numpy(self.shares[entry]).to(logp.device)
        sums = torch.zeros(len(lines), dtype=logp.dtype, device=logp.device)
        return sums.index_add_(0, owner, terms).cpu().double().numpy()


def _pieces(lines: np.ndarray, sizes: np.ndarray) -> Sequence[np.ndarray]:
    """Lines in pieces of about ENTRIES entries."""
    if not len(lines):
        return []
    place = np.cumsum(sizes) // ENTRIES
    return np.split(lines, np.flatnonzero(np.diff(place)) + 1)
