"""Figures. Every function takes a summary table and optional axes, and returns the axes; no analysis is imported.

Names resolve on first use, so that importing this loads no matplotlib.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what a type checker sees; a figure's own module has more
    from pythia_tools.plots.benchmarks import *  # noqa: F403
    from pythia_tools.plots.bias import *  # noqa: F403
    from pythia_tools.plots.curves import *  # noqa: F403
    from pythia_tools.plots.laws import *  # noqa: F403
    from pythia_tools.plots.memorized import *  # noqa: F403
    from pythia_tools.plots.shapes import *  # noqa: F403
    from pythia_tools.plots.sizes import *  # noqa: F403
    from pythia_tools.plots.style import *  # noqa: F403
    from pythia_tools.plots.term_frequency import *  # noqa: F403
    from pythia_tools.plots.token_curves import *  # noqa: F403
    from pythia_tools.plots.verified import *  # noqa: F403

_HOMES = {
    "benchmarks": ("tasks_over_training",),
    "bias": ("agreement", "by_subset", "interventions"),
    "curves": ("branches_over_training", "by_exposures", "losses", "paired_differences", "panels_over_training"),
    "laws": ("ladder_accuracy", "law_by_compute", "law_held_out", "law_residuals"),
    "memorized": ("forgetting", "membership", "memorization", "memorization_kinds", "memorization_persistence",
                  "memorization_profile", "memorization_scaling", "order_effect", "poisson_panels", "poisson_qq",
                  "predictability"),
    "shapes": ("decisions", "mirage", "phases", "saturation", "seeds", "states"),
    "sizes": ("benchmark_by_size", "benchmark_over_training", "suites_by_size"),
    "style": ("save",),
    "term_frequency": ("accuracy_by_frequency", "accuracy_by_operand", "accuracy_over_training",
                       "correlation_over_training", "gap_over_training", "term_trajectory"),
    "token_curves": ("acquired", "ngram_divergence", "surprisal_curves"),
    "verified": ("verdicts",),
}
__all__ = sorted(name for names in _HOMES.values() for name in names)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"no figure is called {name!r}; there are: {', '.join(__all__)}")
