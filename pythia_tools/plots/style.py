"""One look for every figure: a step axis that shows 0, a colour ramp by size, ribbons for intervals.

Colours follow model size from light to dark (viridis, perceptually even and safe for colour blindness),
so that the same model has the same colour in every figure of a report. Branches differ by line style.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from pythia_tools.core.errors import RequestError

RC: Any = {
    "figure.dpi": 110, "savefig.dpi": 160, "savefig.bbox": "tight", "font.size": 10, "axes.titlesize": 11,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "grid.linewidth": 0.6,
    "legend.frameon": False, "legend.fontsize": 9, "lines.linewidth": 1.8, "lines.markersize": 4,
    "svg.hashsalt": "pythia_tools",
    "axes.prop_cycle": cycler(color=["#3b6ea8", "#c8553d", "#3f8f5f", "#8a6bb1", "#a8803b", "#5c6670"])
}
NOTE: Any = {"fontsize": 8, "color": "0.4"}
LINE_STYLES = ["-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1, 1, 1))]


def axes(ax: Axes | None = None, *, size: tuple[float, float] = (6.4, 4.0)) -> Axes:
    """The given axes, or new ones in the house style."""
    if ax is not None:
        return ax
    with mpl.rc_context(RC):
        _, fresh = plt.subplots(figsize=size, layout="constrained")
    return fresh


def row_of_panels(many: int, *, size: tuple[float, float] = (3.6, 3.0)) -> tuple[Figure, list[Axes]]:
    """So many panels side by side that share their y axis."""
    with mpl.rc_context(RC):
        shape = (size[0] * many, size[1])
        figure, grid = plt.subplots(1, many, figsize=shape, layout="constrained", squeeze=False, sharey=True)
    return figure, list(grid.flat)


def panels_by(
    table: pd.DataFrame, column: str = "model", *, columns: int = 3, size: tuple[float, float] = (3.6, 3.0),
    **options: Any,
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A titled panel per model (from small to large) or value of another column, in a grid, and the rows of each."""
    names = by_size(table) if column == "model" else list(dict.fromkeys(table[column].astype(str)))
    columns = max(1, min(columns, len(names)))
    rows = max(1, -(-len(names) // columns))
    with mpl.rc_context(RC):
        shape = (size[0] * columns, size[1] * rows)
        figure, grid = plt.subplots(rows, columns, figsize=shape, layout="constrained", squeeze=False, **options)
    for spare in grid.flat[len(names):]:
        spare.remove()
    panels = [(ax, table[table[column] == name]) for ax, name in zip(grid.flat, names, strict=False)]
    for name, (ax, part) in zip(names, panels, strict=True):
        ax.set_title(model_label(name, part["params"].iloc[0]) if column == "model" else name)
    return figure, panels


def require(table: pd.DataFrame, metric: str | Iterable[str]) -> pd.DataFrame:
    """Rows of a summary table with this metric (or these). Raises RequestError naming the metrics it has."""
    wanted = [metric] if isinstance(metric, str) else list(metric)
    rows = table[table["metric"].isin(wanted)]
    if rows.empty:
        has = ", ".join(sorted(map(str, table["metric"].unique()))) or "no rows"
        raise RequestError(f"this summary has no metric {' or '.join(map(repr, wanted))}; it has: {has}")
    return rows


def by_size(table: pd.DataFrame) -> list[str]:
    """Models of a table from the smallest to the largest; unknown sizes last, by name."""
    known = table[["model", "params"]].drop_duplicates().sort_values(["params", "model"], na_position="last")
    return list(dict.fromkeys(known["model"].astype(str)))


def size_colours(table: pd.DataFrame) -> dict[str, Any]:
    """Model → colour. Models of equal size (a branch, a seed) share their colour."""
    first = table.drop_duplicates("model").set_index("model")["params"]
    sizes = sorted(first.dropna().unique())
    colours = ramp(sizes, "viridis", ends=(0.82, 0.08) if len(sizes) > 1 else (0.35, 0.35))
    return {str(m): colours.get(p, "0.45") for m, p in first.items()}


def each_size(
    table: pd.DataFrame, coloured_as: pd.DataFrame | None = None
) -> Iterator[tuple[pd.DataFrame, str, Any]]:
    """Rows, label and colour of every model, from the smallest to the largest.

    coloured_as: a larger table, whose sizes the colours spread over.
    """
    colours = size_colours(table if coloured_as is None else coloured_as)
    for model in by_size(table):
        points = table[table["model"] == model]
        undefined = "value" in points and points["value"].isna().all()
        label = model_label(model, points["params"].iloc[0])
        yield points, f"{label}: undefined" if undefined else label, colours[model]


def one_model(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Rows and label of one model: the largest of those whose size is known, else the first."""
    name = (by_size(rows.dropna(subset=["params"])) or by_size(rows)[:1])[-1]
    own = rows[rows["model"] == name]
    return own, model_label(name, own["params"].iloc[0])


def ramp(values: Sequence[Any], name: str = "plasma", *, ends: tuple[float, float] = (0.85, 0.05)) -> dict[Any, Any]:
    """Value → colour, along a colour map."""
    return dict(zip(values, map(tuple, mpl.colormaps[name](np.linspace(*ends, len(values)))), strict=True))


def spread(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the values, evenly spread, the first and the last among them."""
    return [values[i] for i in np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).astype(int))]


def model_label(model: str, params: Any) -> str:
    """`m (1.1M)`, or the name alone when it already tells the size; `m (size unknown)`."""
    if pd.isna(params):
        return f"{model} (size unknown)"
    size = human_count(int(params))
    return model if model.lower().startswith(size.lower()) else f"{model} ({size})"


def human_count(count: float) -> str:
    """Counts as the field writes them: 90k, 1.1M, 12B."""
    for unit in ("", "k", "M", "B", "T"):
        if abs(count) < 999.5 or unit == "T":
            break
        count /= 1000
    return f"{count:.0f}{unit}" if unit == "" or count >= 10 else f"{count:.1f}{unit}".replace(".0", "")


def error_bars(points: pd.DataFrame) -> np.ndarray:
    """(2, n) lengths of the bars below and above each value, as `errorbar` takes them; NaN draws none."""
    value = points["value"].to_numpy(float)
    return np.clip(np.vstack([value - points["low"].to_numpy(float), points["high"].to_numpy(float) - value]), 0, None)


def curve(
    ax: Axes, points: pd.DataFrame, *, x: str = "step", label: str | None = None, colour: Any = None, style: Any = "-",
    ribbon: float = 0.16,
) -> None:
    """value against x with its interval as a ribbon, points where something was measured."""
    data = points.sort_values(x).dropna(subset=["value"])
    if data.empty:  # the legend says so
        ax.plot([], [], linestyle=style, color=colour, label=label)
        return
    xs, ys = data[x].astype(float).to_numpy(), data["value"].to_numpy()
    (line,) = ax.plot(xs, ys, marker="o", linestyle=style, color=colour, label=label, markersize=3.5)
    low, high = data["low"].to_numpy(float), data["high"].to_numpy(float)
    if np.isfinite(low).any():
        ax.fill_between(xs, low, high, color=line.get_color(), alpha=ribbon, linewidth=0)


def curves(ax: Axes, table: pd.DataFrame, *, x: str = "step", coloured_as: pd.DataFrame | None = None) -> None:
    """A curve per size."""
    for points, label, colour in each_size(table, coloured_as):
        curve(ax, points, x=x, label=label, colour=colour)


def curves_by_kind(
    ax: Axes, table: pd.DataFrame, kinds: pd.Series, names: Mapping[Any, str], *, x: str = "step"
) -> None:
    """A curve per size and kind: colour is size, line style the kind; a branch is dotted.

    kinds: that of each row; names: kind → what the legend calls it, in order, where there are several.
    """
    styles = dict(zip(names, cycle(LINE_STYLES), strict=False))
    for points, label, colour in each_size(table):
        dotted = points["branch"].iloc[0] != "main"
        for number, (kind, look) in enumerate(styles.items()):
            curve(ax, points[kinds[points.index] == kind], x=x, label=None if number else label, colour=colour,
                  style=":" if dotted else look)
    if len(names) > 1:
        for kind, name in names.items():
            ax.plot([], [], color="0.35", linestyle=styles[kind], label=name)


def step_axis(ax: Axes, steps: Iterable[int], *, short: bool = False) -> None:
    """A symmetric-log axis of training steps: 0 is on it, powers of ten beyond; the last step is marked. `short`: a
    short label.
    """
    values = sorted({int(s) for s in steps})
    if not values:
        return
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    first, last = values[0], values[-1]
    shown = {t for t in (0, *(10**k for k in range(8))) if first <= t < 0.45 * last} | {last}
    ticks_at(ax, sorted({0} | shown if len(shown) > 2 else {first, values[len(values) // 3], last}))
    ax.set_xlim(-0.15 if first == 0 else first * 0.9, last * 1.15)
    ax.set_xlabel("training step" if short else "training step (log scale from 1)")


def plain_steps(ax: Axes) -> None:
    """A linear axis of training steps."""
    ax.set_xlabel("training step")
    ax.xaxis.set_major_formatter(lambda v, _: human_count(v))


def plain_losses(ax: Axes) -> None:
    """A logarithmic y axis that spans less than a power of ten, with plain numbers."""
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:g}")


def ticks_at(ax: Axes, places: Sequence[float]) -> None:
    """Ticks of the x axis at these counts and nowhere else."""
    ax.xaxis.set_major_locator(FixedLocator(places))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda v, _: human_count(v))


def legend(ax: Axes, *, title: str | None = None, outside: bool = False) -> None:
    """What the axes' labelled lines are; nothing where none is labelled."""
    if ax.get_legend_handles_labels()[0]:
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)} if outside else {"loc": "best"}
        ax.legend(title=title, frameon=False, fontsize=9, **place)


def finished(
    ax: Axes, ylabel: str, rows: pd.DataFrame | None = None, *, steps: bool = False, xlabel: str | None = None
) -> Axes:
    """The axes with a legend, their labels and the unit of the rows' intervals; `steps`: with the axis of steps."""
    if rows is not None:
        ax.set_title(unit_of(rows), loc="right", **NOTE)
        if steps:
            step_axis(ax, rows["step"])
    if xlabel is not None:
        ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    legend(ax)
    return ax


def name_unit(figure: Figure, rows: pd.DataFrame, ylabel: str = "") -> None:
    """The unit of the rows' intervals, above a figure of panels, and the label of its first one."""
    figure.axes[0].set_ylabel(ylabel)
    figure.suptitle(unit_of(rows), x=0.99, ha="right", **NOTE)


def unit_of(rows: pd.DataFrame) -> str:
    """`independent unit: occupation (n = 24)`, of the rows that have an interval; nothing where none has."""
    said = []
    for unit, n in rows[rows["low"].notna()].groupby("unit", sort=False)["n"]:
        few, most = n.min(), n.max()
        said.append(f"{unit} (n = {few:,} to {most:,})" if most is not pd.NA and most > few else f"{unit} (n = {few})")
    return f"independent unit: {'; '.join(said)}" if said else ""


def save(target: Axes | Figure, folder: str | os.PathLike[str], name: str) -> list[Path]:
    """Write NAME.svg and NAME.png into `folder`, then close the figure. Returns both paths."""
    figure = target if isinstance(target, Figure) else target.figure
    paths = []
    for suffix in ("svg", "png"):
        path = Path(folder) / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(RC):
            figure.savefig(path, metadata={"Date": None} if suffix == "svg" else None)  # type: ignore[union-attr]
        paths.append(path)
    plt.close(figure)  # type: ignore[arg-type]
    return paths
