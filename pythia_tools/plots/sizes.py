"""Benchmarks over sizes and steps, from summary tables whose suites differ in their corpus or data.

A curve is a model's value with its interval; chance is a dashed line.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pythia_tools.plots import style


def benchmark_over_training(table: pd.DataFrame, *, label: str, chance: float | None = None) -> Figure:
    """A panel per suite: one metric of one task by step, a curve per size (darker: larger) with its interval."""
    figure, panels = style.panels_by(table, "suite", columns=2, size=(4.6, 3.4), sharey=True)
    for ax, here in panels:
        style.curves(ax, here, coloured_as=table)
        _chance(ax, chance)
        style.step_axis(ax, here["step"], short=True)
    _logarithmic(figure, table)
    style.name_unit(figure, table, label)
    style.legend(figure.axes[-1], title="size", outside=True)
    return figure


def benchmark_by_size(table: pd.DataFrame, *, label: str, chance: float | None = None, steps: int = 6) -> Figure:
    """A panel per suite: one metric of one task against parameters, a curve per step (darker: later); at most `steps`
    of those that all models have, without the first hundredth of training, in which little is learned.
    """
    late = table[table["step"] >= table["step"].max() / 100]
    common = late.groupby("step")["model"].nunique()
    ramp = style.ramp(style.spread(sorted(common[common == common.max()].index), steps), "viridis", ends=(0.9, 0.05))
    figure, panels = style.panels_by(table, "suite", columns=2, size=(4.6, 3.4), sharey=True)
    for ax, here in panels:
        for step, colour in ramp.items():
            points = here[here["step"] == step].sort_values("params")
            ax.errorbar(points["params"].astype(float), points["value"], yerr=style.error_bars(points), marker="o",
                        capsize=2, color=colour, label=f"{step:,}", linewidth=1.4, elinewidth=0.9)
        _chance(ax, chance)
        _sizes(ax, here["params"])
    _logarithmic(figure, table)
    style.name_unit(figure, table, label)
    style.legend(figure.axes[-1], title="step", outside=True)
    return figure


def suites_by_size(table: pd.DataFrame, *, label: str, chances: dict[str, float] | None = None) -> Figure:
    """A panel per task: one metric against parameters, a curve per suite (deduplicated against standard), with
    intervals.
    """
    figure, panels = style.panels_by(table, "task", size=(3.1, 2.4))
    for ax, here in panels:
        for number, (suite, points) in enumerate(here.groupby("suite", sort=True)):
            points = points.sort_values("params")
            x = points["params"].astype(float) * (1.04 if number else 0.96)  # side by side, not one over the other
            ax.errorbar(x, points["value"], yerr=style.error_bars(points), marker="os^D"[number % 4], capsize=2,
                        linewidth=1.3, elinewidth=0.9, label=str(suite))
        _chance(ax, (chances or {}).get(str(here["task"].iloc[0])))
        _sizes(ax, here["params"])
    figure.supylabel(label, fontsize=10)
    style.name_unit(figure, table)
    lines, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=len(names), frameon=False)
    return figure


def _chance(ax: Axes, chance: float | None) -> None:
    if chance is not None:
        ax.axhline(chance, color="0.5", linewidth=0.9, linestyle=(0, (3, 3)))


def _sizes(ax: Axes, params: pd.Series) -> None:
    """A logarithmic axis of parameters, with a few sizes on it."""
    ax.set_xscale("log")
    style.ticks_at(ax, style.spread(sorted({float(p) for p in params.dropna()}), 4))
    ax.set_xlabel("parameters")


def _logarithmic(figure: Figure, table: pd.DataFrame) -> None:
    """A logarithmic value axis where values span more than two powers of ten (perplexities)."""
    if table["value"].min() > 0 and table["value"].max() > 100 * table["value"].min() > 1:
        for ax in figure.axes:
            ax.set_yscale("log")
