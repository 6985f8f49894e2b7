"""The analyses, a folder each; none imports another. To add one: its folder, and its line in BUILT_IN.

`get(name)` is an analysis, `register(MyAnalysis)` makes one of your own known; packages name theirs as entry points of
the group `pythia_tools.analyses`. `analysis.measure(get(name), checkpoints, …)` gives its item table.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING

from pythia_tools.core.errors import RequestError, unknown

if TYPE_CHECKING:
    from pythia_tools.analysis import AnyAnalysis

BUILT_IN = {
    "memorization": ("Memorization", "extractable and memorized rows over models × steps"),
    "term-frequency": ("TermFrequency", "accuracy per term against exposures over models × steps"),
    "memorization-effects": ("MemorizationEffects", "what consuming a row did: profiles, forgetting, membership"),
    "bias": ("Bias", "gender bias measures over models × steps"),
    "curves": ("Curves", "per-token learning curves: ages of acquisition, forgetting, n-grams, over models × steps"),
    "evaluate": ("Evaluate", "tasks of lm-eval over models × steps, answers kept per document and choice"),
    "losses": ("Losses", "loss on held-out rows, around each checkpoint and over training, over models × steps"),
}
"""Name → class in the folder of that name (or of its first word), and what it does in a few words."""
ROOMS = {name: name.replace("-", "_") for name in BUILT_IN} | {"memorization-effects": "memorization"}
GROUP = "pythia_tools.analyses"
_registered: dict[str, type[AnyAnalysis]] = {}


def register(analysis: type[AnyAnalysis]) -> type[AnyAnalysis]:
    """Make an analysis known to the command line, studies and reports of this process; usable as a decorator."""
    if analysis.name in BUILT_IN or (analysis.name in _registered and _registered[analysis.name] is not analysis):
        raise RequestError(f"an analysis called {analysis.name!r} exists already; give yours another name")
    _registered[analysis.name] = analysis
    return analysis


def names() -> dict[str, str]:
    """Name → what it does, in a few words: built-in, registered, and of other packages."""
    return {**{n: about for n, (_, about) in BUILT_IN.items()}, **{n: a.title() for n, a in _registered.items()},
            **{e.name: f"of {e.dist.name if e.dist else e.value}" for e in _entry_points()
               if e.name not in _registered}}


def get(name: str) -> AnyAnalysis:
    """The analysis of this name. Raises UnknownNameError naming what there is."""
    if name in BUILT_IN:
        module = importlib.import_module(f"{__name__}.{ROOMS[name]}")
        return getattr(module, BUILT_IN[name][0])()  # type: ignore[no-any-return]
    if name in _registered:
        return _registered[name]()
    for entry in _entry_points():
        if entry.name == name:
            return entry.load()()  # type: ignore[no-any-return]
    raise unknown("analysis", name, names())


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    return [e for e in importlib.metadata.entry_points(group=GROUP) if e.name not in BUILT_IN]
