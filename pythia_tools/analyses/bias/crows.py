"""CrowS-Pairs: which of two sentences that differ in a group's name is likelier.

`score` is ll(sent_more) − ll(sent_less) with the total log-likelihood of each whole sentence after the beginning-of-text
id, `outcome` whether it is above zero, `difference` its absolute value: pct_stereotype and likelihood_difference as
lm-eval computes them. Sums favour shorter sentences, so two more scores are kept: over the ids that both sentences
share (longest matching blocks), and per id.
Sources: Nangia et al. 2020 (data); Névéol et al. 2022 (the 1,677-pair edition of lm-eval).
Cost: two sentences per pair.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from pythia_tools.analyses.bias.choices import judged
from pythia_tools.analyses.bias.sets import load_set, read_table
from pythia_tools.analyses.bias.texts import Encoder
from pythia_tools.analysis import Context, Task
from pythia_tools.core.files import digest
from pythia_tools.models.continuations import Scorer

PART_PAIRS = 512
COLUMNS = ("sent_more", "sent_less", "bias_type")


def read_pairs(path: str | Path | None = None) -> pd.DataFrame:
    """Pairs with columns sent_more, sent_less, bias_type: from a file (csv, jsonl, parquet), else the manifest's 1,508."""
    if path is not None and Path(path).is_file():
        return read_table(Path(path), COLUMNS)
    found = load_set("crows_pairs", path)
    return read_table(found["crows_pairs_anonymized.csv"], COLUMNS)


class CrowsPairs(Task):
    """CrowS-Pairs as a sweep's task. `pairs`: a frame of `read_pairs`; groups are the bias types."""

    name = "crows_pairs"

    def __init__(self, tokenizer: Any, pairs: pd.DataFrame, *, batch_size: int | None = None):
        encoder = tokenizer if isinstance(tokenizer, Encoder) else Encoder(tokenizer)
        self.pairs = pairs.reset_index(drop=True)
        sentences = [("", str(s)) for s in pd.concat([self.pairs["sent_more"], self.pairs["sent_less"]])]
        requests = encoder.requests(sentences)
        self.n = len(self.pairs)
        self.parts = -(-self.n // PART_PAIRS)
        self._spans = [slice(p * PART_PAIRS, min(self.n, (p + 1) * PART_PAIRS)) for p in range(self.parts)]
        more, less = requests[: self.n], requests[self.n :]
        self._shared = [_shared(list(a.continuation), list(b.continuation)) for a, b in zip(more, less, strict=True)]
        self._scorers = [Scorer([*more[s], *less[s]], batch_size=batch_size) for s in self._spans]
        self.digest = digest(["crows_pairs", 1, [s.digest for s in self._scorers], self.pairs["bias_type"].tolist()])

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        span = self._spans[part]
        n = span.stop - span.start
        found = self._scorers[part](model)
        more, less = found.total[:n], found.total[n:]
        shared = self._shared[span]
        shared_more = np.array([float(found.tokens[k][a].sum(dtype=np.float64)) for k, (a, _) in enumerate(shared)])
        shared_less = np.array([float(found.tokens[n + k][b].sum(dtype=np.float64)) for k, (_, b) in enumerate(shared)])
        lengths = np.array([len(t) for t in found.tokens])
        per_more, per_less = more / lengths[:n], less / lengths[n:]
        pairs = self.pairs.iloc[span]
        kept = np.isfinite(more) & np.isfinite(less)
        alike = kept & np.array([len(a) > 0 for a, _ in shared])
        return pd.DataFrame({
            "measure": self.name,
            "group": pairs["bias_type"].astype(str).to_numpy(),
            "item": [f"pair {i}" for i in range(span.start, span.stop)],
            "score": more - less,
            "outcome": judged(more > less, kept),
            "kept": kept,
            "ll_more": more,
            "ll_less": less,
            "difference": np.abs(more - less),
            "score_shared": np.where(alike, shared_more - shared_less, np.nan),
            "outcome_shared": judged(shared_more > shared_less, alike),
            "score_per_token": per_more - per_less,
            "outcome_per_token": judged(per_more > per_less, kept),
            "cut": found.cut[:n] + found.cut[n:],
        })


def _shared(first: list[int], second: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Positions in each of two id lists of what both hold in the same order (longest matching blocks first)."""
    blocks = SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    a = [i for block in blocks for i in range(block.a, block.a + block.size)]
    b = [i for block in blocks for i in range(block.b, block.b + block.size)]
    return np.array(a, dtype=np.int64), np.array(b, dtype=np.int64)
