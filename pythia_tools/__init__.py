"""pythia_tools: when and why did a language model learn something?

The front door. Names resolve on first use, so `import pythia_tools` loads neither torch nor matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_ROOMS = {
    **{room: room for room in ("analyses", "analysis", "counts", "dedup", "fitting", "hub", "micro", "models")},
    **{room: room for room in ("order", "overlays", "plots", "public", "report", "study", "suites", "tokens")},
    "verification": "verification",
    **{room: f"core.{room}" for room in ("errors", "results", "statistics", "tables")},
    **{room: f"analyses.{room}" for room in ("bias", "curves", "memorization", "term_frequency")},
}
_NAMES = {
    "evaluate": "analyses.evaluate",
    "fit": "fitting",
    "load_suite": "suites",
    "load_order": "order",
    "load_run": "core.results",
    "published": "public",
    "losses": "analyses.losses",
    "register": "analyses",
    "stream": "models",
    "token_scores": "analysis",
    "token_curves": "analyses.curves",
    "verify": "verification",
}

if TYPE_CHECKING:
    from pythia_tools.analyses import register
    from pythia_tools.analyses.curves import token_curves
    from pythia_tools.analyses.evaluate import evaluate
    from pythia_tools.analyses.losses import losses
    from pythia_tools.analysis import token_scores
    from pythia_tools.core.results import load_run
    from pythia_tools.fitting import fit
    from pythia_tools.models import stream
    from pythia_tools.order import load_order
    from pythia_tools.public import published
    from pythia_tools.suites import load_suite
    from pythia_tools.verification import verify

__all__ = [  # noqa: PLE0604
    "__version__", "evaluate", "fit", "load_order", "load_run", "load_suite", "losses", "published", "register",
    "stream", "token_curves", "token_scores", "verify", *_ROOMS,
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"pythia_tools.{_ROOMS[name]}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"pythia_tools.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'pythia_tools' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
