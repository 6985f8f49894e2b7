"""Overlays: interventions on the training data, applied to the rows of chosen steps as they are read, with receipts.

    swap = PronounSwap(tokenizer)                                  # he → she, his → her or hers, whole words, case kept
    branch = Overlay(order, swap, steps=range(133_000, 143_000))   # reads like the order it lies on
    branch.batch(140_000); print(branch.receipt()); print(branch.diff(tokenizer))
"""

from pythia_tools.overlays.neox import write_out
from pythia_tools.overlays.overlay import Overlay, roundtrip
from pythia_tools.overlays.placement import Deduplicate, InsertText, RemoveRows, RepeatRows, Reserve
from pythia_tools.overlays.pronouns import PronounSwap
from pythia_tools.overlays.receipts import Lengths, Occurrence, Receipt
from pythia_tools.overlays.rules import ReplaceTerms
from pythia_tools.overlays.words import Spelling

__all__ = [
    "Deduplicate", "InsertText", "Lengths", "Occurrence", "Overlay", "PronounSwap", "Receipt", "RemoveRows",
    "RepeatRows", "ReplaceTerms", "Reserve", "Spelling", "roundtrip", "write_out",
]
