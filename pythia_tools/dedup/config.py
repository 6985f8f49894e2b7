"""What decides a deduplication's result: one frozen record, checked when built, saved with the result.

Presets:
  exact        every pair with J ≥ threshold, no probability involved; the first member of a cluster is kept
  datasketch   MinHashLSH of datasketch 2.0 with 128 permutations (0.87 gives 7 bands of 18), first member kept
  pile_dedupe  the settings of EleutherAI's pile_dedupe: 10 permutations, scheme legacy, last member kept. Words are
               str.split() here and NLTK's there, so it is that recipe's setting, not its output
None of them claims to be what was done to Pythia's Pile: which code and settings were used is not recoverable.

A signature is cut into `bands` of `rows` values, and documents that agree on all values of a band are candidates. A
pair of Jaccard similarity J becomes one with probability 1 − (1 − J^rows)^bands. Bands and rows are chosen as in
datasketch's MinHashLSH: the sum of false positives below the threshold and false negatives above it, as areas under
that curve, is least.
"""

import functools
from dataclasses import dataclass
from typing import Any

from pythia_tools.core.errors import RequestError, unknown

PRESETS: dict[str, dict[str, Any]] = {
    "exact": {"method": "exact", "keep": "first"},
    "datasketch": {"method": "lsh", "num_perm": 128, "scheme": "affine32", "keep": "first"},
    "pile_dedupe": {"method": "lsh", "num_perm": 10, "scheme": "legacy", "keep": "last"},
}
UNITS = ("word", "char", "token")
HASHES = ("sha1", "mix64")
_CHOICES = {
    "method": ("exact", "lsh"), "unit": UNITS, "scheme": ("affine32", "legacy"), "hashing": HASHES,
    "clustering": ("components", "stars"), "keep": ("first", "last", "longest"), "pack": ("", ".gz", ".zst"),
}


@dataclass(frozen=True)
class DedupConfig:
    """Options of a deduplication.

    method: `exact` finds every pair; `lsh` takes documents that share a band of their MinHash signatures.
    threshold: Jaccard similarity of the sets of shingles, in (0, 1].
    ngram, unit: units per shingle, and what a unit is: `word` (str.split, joined by one space), `char` (characters as
        they stand) or `token` (ids; a shingle's bytes are its ids as little-endian uint32).
    num_perm, seed, scheme: of the signatures, as in datasketch: `affine32` since its 2.0, `legacy` before.
    hashing: `sha1`, as datasketch, or `mix64`, faster and our own.
    bands, rows: of a signature, both or neither; by default chosen for the threshold as datasketch does.
    verify: for `lsh`, join candidates only if their exact similarity reaches the threshold.
    clustering: `components` joins chains of near-duplicates, so a dropped document may lie below the threshold to the
        kept one; `stars` drops a document only when its exact similarity to the kept one reaches the threshold.
    keep: the member of a cluster that stays: `first` or `last` in the order of the input, or `longest` in bytes (the
        first of these).
    tokenizer, text_key, id_key, group_by: how files are read (run_stages); group_by is a metadata field for the report.
    pack: suffix of the files written: none, `.gz` or `.zst`.
    judged: for `lsh` on files, documents whose near-duplicates are found exactly, for an estimate of recall; 0: none.
    part_bytes, memory_bytes: text that is signed at once, and memory for one task's buckets (which changes no result).
    """

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
    clustering: str = "components"
    keep: str = "first"
    tokenizer: str | None = None
    text_key: str = "text"
    id_key: str | None = None
    group_by: str | None = None
    pack: str = ""
    judged: int = 500
    part_bytes: int = 64 << 20
    memory_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for name in _CHOICES:
            check_choice(name, getattr(self, name))
        check_threshold(self.threshold)
        for name in ("ngram", "num_perm", "part_bytes", "memory_bytes"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.judged < 0:
            raise RequestError(f"judged is {self.judged}; it must be 0 or more")
        if (self.bands is None) != (self.rows is None):
            raise RequestError("bands and rows come together: give both or neither")
        if self.bands is not None and self.rows is not None and not 0 < self.bands * self.rows <= self.num_perm:
            raise RequestError(
                f"{self.bands} bands of {self.rows} rows need that many hashes; num_perm is {self.num_perm}"
            )

    @property
    def needs_sets(self) -> bool:
        """Whether exact similarities are computed, for which documents are kept as sets of shingle hashes."""
        return self.method == "exact" or self.verify or self.clustering == "stars"

    @property
    def judges(self) -> bool:
        """Whether recall is estimated on a sample."""
        return self.method == "lsh" and self.judged > 0

    def bands_and_rows(self) -> tuple[int, int]:
        """As asked, else as datasketch chooses for the threshold."""
        return (self.bands, self.rows) if self.bands and self.rows else choose_bands(self.threshold, self.num_perm)

    def similarity_kind(self) -> str:
        """What the similarity written beside a dropped document is."""
        return "exact" if self.needs_sets else f"estimated from {self.num_perm} hashes ({self.scheme}, {self.hashing})"


def preset(name: str, **changes: Any) -> DedupConfig:
    """A preset with some options changed. Raises UnknownNameError listing the presets."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return DedupConfig(**{**PRESETS[name], **changes})


def check_choice(name: str, value: str) -> None:
    """Raises RequestError naming what is allowed."""
    if value not in _CHOICES[name]:
        raise RequestError(f"{name} is {value!r}; it is one of {', '.join(map(repr, _CHOICES[name]))}")


def check_threshold(threshold: float) -> None:
    if not 0 < threshold <= 1:
        raise RequestError(f"threshold is {threshold}; it must lie above 0 and at most at 1")


@functools.lru_cache(maxsize=256)
def choose_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """(bands, rows) of datasketch's MinHashLSH(threshold, num_perm): (0.87, 128) gives (7, 18).

    Unlike datasketch it allows a single band, which is what (0.87, 10) comes to.
    Raises: RequestError when either is out of range.
    """
    from scipy.integrate import quad

    check_threshold(threshold)
    if num_perm < 1:
        raise RequestError(f"num_perm is {num_perm}; it must be at least 1")

    def error(setting: tuple[int, int]) -> float:
        bands, rows = map(float, setting)
        missed, _ = quad(lambda s: (1 - s**rows) ** bands, threshold, 1.0)
        false, _ = quad(lambda s: 1 - (1 - s**rows) ** bands, 0.0, threshold)
        return float(0.5 * false + 0.5 * missed)

    return min(((b, r) for b in range(1, num_perm + 1) for r in range(1, num_perm // b + 1)), key=error)


def hit_probability(similarity: float, bands: int, rows: int) -> float:
    """Chance that a pair of this Jaccard similarity shares a bucket."""
    return 1.0 - (1.0 - similarity**rows) ** bands


def curve_in_words(threshold: float, bands: int, rows: int) -> str:
    """What a setting finds, as sentences: at the threshold, around it, and where a pair's chance is one half."""
    half = (1.0 - 0.5 ** (1.0 / bands)) ** (1.0 / rows)
    points = sorted({0.5, 0.7, 0.8, 0.9, 0.95, 1.0} - {threshold})
    others = ", ".join(f"{hit_probability(s, bands, rows):.3g} at {s:g}" for s in points)
    return (
        f"{bands} bands of {rows} rows ({bands * rows} hashes): a pair at J = {threshold:g} is found with probability "
        f"{hit_probability(threshold, bands, rows):.2f}; {others}. Even chance at J = {half:.3f}. "
        "The threshold is where the search is aimed, not a guarantee: method 'exact' finds every pair."
    )


DEFAULT = DedupConfig()
