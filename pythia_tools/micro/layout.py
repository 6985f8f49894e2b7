"""Which document lands in which row: sizes first, GPT-NeoX's index maps from the sizes, contents last.

All lengths are multiples of the row length, so every row's first tokens are one whole stretch of one document, and
where a one-row document lands is known before anything is written in it. That is how bursts are placed.
"""

from dataclasses import dataclass

import numpy as np

from pythia_tools.core.errors import RequestError
from pythia_tools.micro.recipe import Recipe
from pythia_tools.order import IndexMaps, build_index_maps


class TooLittleText(RequestError):
    """The text that was read does not fill the run."""


@dataclass(frozen=True)
class Layout:
    """`sizes` (n,) tokens per document; `maps`; `landing` (n,) the order row of a one-row document.

    `landing` is -1 for documents that are longer or never consumed.
    """

    sizes: np.ndarray
    maps: IndexMaps
    landing: np.ndarray

    @property
    def slots(self) -> np.ndarray:
        """One-row documents that training consumes, by rising row."""
        found = np.flatnonzero(self.landing >= 0)
        return found[np.argsort(self.landing[found], kind="stable")]


def lay_out(recipe: Recipe, background_rows: list[int], singles: int, rng: np.random.Generator) -> Layout:
    """A layout with `singles` one-row documents and background documents of the given numbers of rows, mixed.

    Background documents are taken in order (the last one cut) until the run's rows are filled.
    Raises: RequestError when planted items need more rows than the run has, or the text is too short.
    """
    total = recipe.num_samples + 1
    room = total - singles
    if room < 0:
        raise RequestError(f"recipe: planted items fill {singles} rows of {total}; plant less or train more steps")
    if sum(background_rows) < room:
        have = f"the standard library gives {sum(background_rows)}"
        raise TooLittleText(f"recipe: the run needs {room} rows of real text, {have}; train fewer steps")
    ends = np.minimum(np.cumsum([0, *background_rows]), room)
    rows = [n for n in np.diff(ends).tolist() if n]
    sizes = rng.permutation(np.array(rows + [1] * singles, dtype=np.int32)) * recipe.seq_length
    maps = build_index_maps(sizes, seq_length=recipe.seq_length, seed=recipe.seed, num_samples=recipe.num_samples)
    return Layout(sizes, maps, landing_rows(sizes, maps, recipe.seq_length, recipe.rows))


def landing_rows(sizes: np.ndarray, maps: IndexMaps, seq_length: int, rows: int) -> np.ndarray:
    """(n,) the order row whose inputs are document d; -1 for longer documents, and for rows from `rows` on."""
    in_stream = sizes[maps.doc_idx].astype(np.int64) // seq_length
    first = np.cumsum(in_stream) - in_stream
    row_of = np.full(int(in_stream.sum()), -1, dtype=np.int64)
    row_of[np.asarray(maps.shuffle_idx)] = np.arange(len(maps.shuffle_idx))
    landing = np.full(len(sizes), -1, dtype=np.int64)
    landing[maps.doc_idx] = np.where(in_stream == 1, row_of[first], -1)
    landing[landing >= rows] = -1
    return landing


def place_bursts(recipe: Recipe, layout: Layout) -> list[list[int]]:
    """Documents for each burst canary of the plan: one copy in each of the last batches before its step.

    A batch with too few one-row documents passes its turn to the one before it.
    Raises: RequestError when there are too few batches before the step.
    """
    by_batch: dict[int, list[int]] = {}
    for d in layout.slots:
        by_batch.setdefault(int(layout.landing[d]) // recipe.batch_rows, []).append(int(d))
    return [_one_per_batch(copies, by_batch, step) for copies, step in recipe.canaries.plan if step is not None]


def _one_per_batch(copies: int, by_batch: dict[int, list[int]], step: int) -> list[int]:
    places: list[int] = []
    for batch in range(step - 1, -1, -1):
        if by_batch.get(batch):
            places.append(by_batch[batch].pop())
        if len(places) == copies:
            return places
    raise RequestError(f"recipe: canaries: too few places for bursts in the batches before step {step}; plant fewer")
