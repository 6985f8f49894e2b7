"""Progress on stderr (items, bytes, time left), quiet when asked, and never on stdout.

A terminal gets a live bar; a log file gets a line at most every ten seconds.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

_quiet = False


def set_quiet(quiet: bool) -> None:
    """`--quiet`: no bars and no notes from here on in this process."""
    global _quiet
    _quiet = quiet


def note(message: str) -> None:
    """One line on stderr, unless quiet."""
    if not _quiet:
        tqdm.write(message, file=sys.stderr)


def warn(message: str) -> None:
    """One line on stderr, quiet or not: things a result depends on."""
    tqdm.write(f"warning: {message}", file=sys.stderr)


def bar(total: float | None, label: str, unit: str = "it", *, shown: bool = True) -> Any:
    """A tqdm bar on stderr; `unit="B"` scales to kB, MB, GB. Use as a context manager, call `.update(n)`."""
    live = sys.stderr.isatty()
    return tqdm(
        total=total, desc=label, unit=unit, unit_scale=unit == "B", file=sys.stderr, leave=False,
        disable=_quiet or not shown, mininterval=0.2 if live else 10.0, dynamic_ncols=live,
    )


def track(
    items: Iterable[T], label: str, *, total: int | None = None, unit: str = "it", shown: bool = True
) -> Iterator[T]:
    """Iterate with a bar."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    with bar(total, label, unit, shown=shown) as shown_bar:
        for item in items:
            yield item
            shown_bar.update(1)
