"""The loss of every row of a set under every checkpoint, with the bytes of text that its targets spell.

Losses are those of training, of transformers (`labels=`) and of lm-eval: over all logits, padding ids included.
Bytes are those that the tokens stand for, in UTF-8 after the tokenizer's normalisation, counted per id from its
vocabulary once. End-of-text and other special tokens spell no text: their loss counts in nats per token, and neither
their loss nor their name counts in bits per byte, as in lm-eval's bits_per_byte of documents.

Cost: one forward pass per row and checkpoint; a row set of an order is read once, or once per step.
"""

import numpy as np
import pandas as pd
from torch import nn

from pythia_tools.analyses.losses.rows import RowSet
from pythia_tools.analysis import Context, Reading, Task
from pythia_tools.analysis.scores import PART_ROWS, scored
from pythia_tools.core import files, progress
from pythia_tools.core.errors import RequestError
from pythia_tools.core.tables import Column
from pythia_tools.counts.vocabulary import token_bytes
from pythia_tools.models.devices import dtype_name
from pythia_tools.models.streaming import checkpoint_of
from pythia_tools.suites import Checkpoint
from pythia_tools.tokens import Openable, open_tokenizer

NAME = "losses"
COLUMNS = {
    "subset": Column("string", "`heldout`, the batches `before` and `after` the checkpoint, rows of all `training`, or "
                               "a name of one's own"),
    "row": Column("int64", "the row's number in the order (its place, for rows that are in none)"),
    "consumed": Column("boolean", "whether the checkpoint had consumed the row already; <NA> where that is not known"),
    "nll": Column("float64", "mean negative log-likelihood over the row's positions, nats per token"),
    "n": Column("int64", "positions with a finite loss"),
    "text_nats": Column("float64", "summed negative log-likelihood of those that spell text (special tokens do not), "
                                   "nats; NaN where bytes are not known"),
    "bytes": Column("Int64", "UTF-8 bytes of that text; <NA> where the tokenizer is not known or not byte-level"),
    "weights": Column("string", "digest of the weights"),
    "dtype": Column("string", "number format that the model computed in"),
}


def bytes_of_ids(tokenizer: Openable) -> np.ndarray:
    """(vocabulary,) int64 bytes that each id spells, 0 for special tokens, whatever they are called.

    Raises: RequestError when the tokenizer is not byte-level, and what `open_tokenizer` raises.
    """
    opened = open_tokenizer(tokenizer)
    spelled = np.diff(token_bytes(opened).starts).astype(np.int64)
    spelled[[i for i, token in opened.engine.get_added_tokens_decoder().items() if token.special]] = 0
    return spelled


def known_bytes(context: Context) -> np.ndarray | None:
    """Those of the context's tokenizer; None, with a note, where it has none that is byte-level."""
    try:
        return bytes_of_ids(context.tokenizer)
    except RequestError as error:
        progress.note(f"bits per byte are left out: {error}")
        return None


class LossTask(Task):
    """Mean loss of one set's rows in parts of 256. `bytes_of`: (vocabulary,) bytes that ids spell, where known."""

    def __init__(self, rows: RowSet, bytes_of: np.ndarray | None = None):
        self.rows, self.name, self._bytes_of = rows, f"{NAME}/{rows.name}", bytes_of
        most = max((chosen.size for chosen in rows.all), default=0)
        self.parts = -(-most // PART_ROWS)
        self.ids = most * rows.row_tokens
        fixed = rows.fixed.digest if rows.fixed is not None else "by step"
        self.digest = files.digest([fixed, None if bytes_of is None else bytes_of.tolist()])

    def key(self, checkpoint: Checkpoint) -> str | None:
        """The rows this checkpoint is measured on; None when there are none at its step."""
        chosen = self.rows.at(checkpoint)
        return None if chosen is None else chosen.digest

    def readings(self, checkpoint: Checkpoint) -> list[Reading]:
        chosen = self.rows.at(checkpoint)
        return [] if chosen is None else list(chosen.readings)

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        chosen = self.rows.at(checkpoint_of(model))
        assert chosen is not None, "a sweep asks only where there is a key"
        numbers, rows = chosen.read(slice(part * PART_ROWS, (part + 1) * PART_ROWS))
        nll = scored(context, model, rows).nll.astype(np.float64)
        good = ~np.isnan(nll)
        found = pd.DataFrame({"subset": self.rows.name, "row": numbers, "n": good.sum(axis=1)})
        found.insert(2, "nll", np.divide(np.where(good, nll, 0).sum(axis=1), found["n"], where=found["n"] > 0,
                                         out=np.full(len(rows), np.nan)))
        text, spelled = self._text(rows, nll, good)
        return found.assign(text_nats=text, bytes=spelled, weights=str(getattr(model, "weights_digest", "")),
                            dtype=dtype_name(next(model.parameters()).dtype))

    def _text(self, rows: np.ndarray, nll: np.ndarray, good: np.ndarray) -> tuple[np.ndarray, pd.arrays.IntegerArray]:
        """(n,) nats of the targets that spell text, and how many bytes they spell."""
        if self._bytes_of is None:
            return np.full(len(rows), np.nan), pd.array([pd.NA] * len(rows), dtype="Int64")
        targets = np.minimum(rows[:, 1:].astype(np.int64), len(self._bytes_of))
        spelled = np.append(self._bytes_of, 0)[targets] * good  # ids beyond the vocabulary spell nothing
        return np.where(spelled > 0, nll, 0).sum(axis=1), pd.array(spelled.sum(axis=1), dtype="Int64")
