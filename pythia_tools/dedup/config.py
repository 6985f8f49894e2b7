"""What decides a deduplication's result: one frozen record, checked when built, saved with the result.

Presets:
  exact        every pair with J ≥ threshold, no probability involved; the first member of a cluster is kept
  datasketch   MinHashLSH of datasketch 2.0 with 128 permutations (0.87 gives 7 bands of 18), first member kept
  pile_dedupe  the settings of EleutherAI's pile_dedupe: 10 permutations, scheme legacy, last member kept. Words are
               str.split() here and NLTK's there, so it is that recipe's setting, not its output
None of them claims to be what was done to Pythia's Pile: which code and settings were used is not recoverable.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from pythia_tools.core.errors import RequestError, unknown

PRESETS: dict[str, dict[str, Any]] = {
    "exact": {"method": "exact", "keep": "first"},
    "datasketch": {"method": "lsh", "num_perm": 128, "scheme": "affine32", "keep": "first"},
    "pile_dedupe": {"method": "lsh", "num_perm": 10, "scheme": "legacy", "keep": "last"},
}


@dataclass(frozen=True)
class DedupConfig:
    """Options of a deduplication; see near_duplicates for their meaning. `bands` and `rows` come with each other or not at all."""

    method: str = "exact"
    threshold: float = 0.87
    ngram: int = 5
    unit: str = "word"
    num_perm: int = 128
    seed: int = 1
    scheme: str = "affine32"
    hashing: str = "sha1"
    bands: int | None = None
    rows: int | None = None
    verify: bool = False
    keep: str = "first"
    tokenizer: str | None = None
    text_key: str = "text"
    id_key: str | None = None
    group_by: str | None = None
    pack: str = ""
    part_bytes: int = 64 << 20
    memory_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        _check_choices(self)
        if not 0 < self.threshold <= 1:
            raise RequestError(f"threshold is {self.threshold}; it must lie above 0 and at most at 1")
        if min(self.ngram, self.num_perm, self.part_bytes, self.memory_bytes) < 1:
            raise RequestError("ngram, num_perm, part_bytes and memory_bytes must be at least 1")
        if (self.bands is None) != (self.rows is None):
            raise RequestError("bands and rows come together: give both or neither")
        if self.bands is not None and self.rows is not None and not 0 < self.bands * self.rows <= self.num_perm:
            raise RequestError(f"{self.bands} bands of {self.rows} rows need that many hashes; num_perm is {self.num_perm}")
        if (self.unit == "token") != (self.tokenizer is not None):
            raise RequestError("unit 'token' needs a tokenizer, and a tokenizer is for unit 'token' only")

    @property
    def needs_sets(self) -> bool:
        """Whether exact similarities are computed, for which documents are kept as sets of shingle hashes."""
        return self.method == "exact" or self.verify

    def bands_and_rows(self) -> tuple[int, int]:
        """As asked, else as datasketch chooses for the threshold."""
        from pythia_tools.dedup.lsh import choose_bands

        if self.bands is not None and self.rows is not None:
            return self.bands, self.rows
        return choose_bands(self.threshold, self.num_perm)

    def similarity_kind(self) -> str:
        """What the similarity written beside a dropped document is."""
        return "exact" if self.needs_sets else f"estimated from {self.num_perm} hashes ({self.scheme}, {self.hashing})"

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def preset(name: str, **changes: Any) -> DedupConfig:
    """A preset with some options changed. Raises UnknownNameError listing the presets."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return DedupConfig(**{**PRESETS[name], **changes})


def _check_choices(config: DedupConfig) -> None:
    choices = {
        "method": ("exact", "lsh"), "unit": ("word", "char", "token"), "scheme": ("affine32", "legacy"),
        "hashing": ("sha1", "mix64"),        "keep": ("first", "last", "longest"), "pack": ("", ".gz", ".zst"),
    }
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise RequestError(f"{name} is {getattr(config, name)!r}; it is one of {', '.join(repr(a) for a in allowed)}")
