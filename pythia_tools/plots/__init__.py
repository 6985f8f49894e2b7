"""Figures. Every function takes a summary table and optional axes, and returns the axes; no analysis is imported.

Names resolve on first use, so that importing this loads no matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pythia_tools.plots.bias import agreement, by_subset, interventions
    from pythia_tools.plots.curves import branches_over_training, learning, paired_differences
    from pythia_tools.plots.exposures import by_exposures, panels_over_training
    from pythia_tools.plots.memorization_effects import (
        forgetting,
        membership,
        memorization_kinds,
        memorization_persistence,
        memorization_profile,
    )
    from pythia_tools.plots.memorized import (
        memorization,
        memorization_scaling,
        order_effect,
        poisson_panels,
        poisson_qq,
        predictability,
    )
    from pythia_tools.plots.style import save
    from pythia_tools.plots.term_frequency import (
        accuracy_by_frequency,
        accuracy_by_operand,
        accuracy_over_training,
        correlation_over_training,
        gap_over_training,
        term_trajectory,
    )

_MODULES = ("bias", "curves", "exposures", "memorized", "memorization_effects", "style", "term_frequency")

__all__ = [
    "accuracy_by_frequency", "accuracy_by_operand", "accuracy_over_training", "agreement", "branches_over_training",
    "by_exposures", "by_subset", "correlation_over_training", "forgetting", "gap_over_training", "interventions",
    "learning", "membership", "memorization", "memorization_kinds", "memorization_persistence",
    "memorization_profile", "memorization_scaling", "order_effect", "paired_differences", "panels_over_training",
    "poisson_panels", "poisson_qq", "predictability", "save", "term_trajectory",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"no figure is called {name!r}; there are: {', '.join(__all__)}")
    homes = (importlib.import_module(f"{__name__}.{module}") for module in _MODULES)
    return next(getattr(home, name) for home in homes if hasattr(home, name))
