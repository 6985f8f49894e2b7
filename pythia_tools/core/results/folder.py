"""Writing and reading a run's folder.

    config.json     the resolved request, written first
    cells/          computed cells, keyed by weights digest and task (see cells.py); what resume reads
    items.parquet   one row per checkpoint × item
    summary.csv     tidy numbers (tables.SUMMARY)
    figures/        *.png and *.svg
    run.json        last: config, versions, git revision, weights digests, data fingerprint, timings

The presence of run.json means complete. A folder that holds another config is refused, never overwritten.
"""

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pandas as pd

from pythia_tools.core import tables
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.files import _plain, atomic_write, read_json, write_json
from pythia_tools.core.results.cells import CellStore
from pythia_tools.core.results.provenance import provenance


@dataclass(frozen=True)
class Run:
    """A finished run as read back. `record` is run.json."""

    path: Path
    config: dict[str, Any]
    items: pd.DataFrame
    summary: pd.DataFrame
    figures: list[Path]
    record: dict[str, Any] = field(repr=False)


class RunFolder:
    """One run being written. Opening it again with the same config resumes; with another config it is refused.

    As a context, it forgets a request that is refused, or that fails before it has kept anything: no config.json stays
    behind to stand in the way of the corrected one. Cells stay, as they hold for any request.

    `config` must be JSON-able and hold everything that decides the result, `command` (the CLI command's name) included:
    `pythia-tools rerun` repeats a run from it alone.
    """

    def __init__(self, path: str | os.PathLike[str], config: dict[str, Any]):
        self.path = Path(path)
        self.config = json.loads(json.dumps(config, default=_plain))
        known = self.path / "config.json"
        if self.path.exists() and not self.path.is_dir():
            raise RequestError(f"{self.path} is a file; --out names the run's folder, choose another")
        if known.exists():
            before = read_json(known)
            if before != self.config:
                changed = differences(before, self.config)
                raise RequestError(
                    f"{self.path} holds a run with another config (differs in: {', '.join(changed)}); "
                    "choose another --out, or delete that folder"
                )
        elif self.path.exists() and any(p.name != "cells" for p in self.path.iterdir()):
            raise RequestError(f"{self.path} exists and is not a run's folder; choose another --out")
        self._resumed = known.exists()
        write_json(known, self.config)
        self.cells = CellStore(self.path / "cells")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or self._resumed or self.complete:
            return
        config = self.path / "config.json"
        kept = {path for path in self.path.rglob("*") if path.is_file()} - {config}
        if not kept or (issubclass(kind, RequestError) and {path.parent for path in kept} == {self.cells.folder}):
            config.unlink(missing_ok=True)
        for folder in (*sorted(filter(Path.is_dir, self.path.rglob("*")), reverse=True), self.path):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()

    @property
    def complete(self) -> bool:
        return (self.path / "run.json").exists()

    @property
    def figures(self) -> Path:
        folder = self.path / "figures"
        folder.mkdir(exist_ok=True)
        return folder

    def finish(
        self, items: pd.DataFrame, summary: pd.DataFrame, *, weights: dict[str, str] | None = None, data: Any = None,
        timings: dict[str, float] | None = None, extra: dict[str, Any] | None = None,
    ) -> Run:
        """Write items, summary, and last run.json. `weights`: checkpoint → weights digest; `data`: order
        fingerprint(s).
        """
        with atomic_write(self.path / "items.parquet") as handle:
            items.to_parquet(handle, index=False)
        with atomic_write(self.path / "summary.csv", "w") as handle:
            tables.check_summary(summary).to_csv(handle, index=False)
        record = {
            "config": self.config, "weights": weights or {}, "data": data, "timings_seconds": timings or {},
            **(extra or {}), **provenance(),
        }
        write_json(self.path / "run.json", record)
        return load_run(self.path)


def differences(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    """Names of the fields in which two configs differ, nested ones with dots."""
    names: list[str] = []
    for key in sorted(before.keys() | after.keys()):
        a, b = before.get(key), after.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            names += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            names.append(f"{prefix}{key}")
    return names


def load_run(path: str | os.PathLike[str]) -> Run:
    """A finished run. Raises RequestError when there is none, DataError when it is incomplete or damaged."""
    folder = Path(path)
    if not (folder / "config.json").exists():
        raise RequestError(f"{folder} is not a run's folder (no config.json)")
    if not (folder / "run.json").exists():
        raise DataError(f"{folder} is not complete (no run.json); run the same command again, it resumes")
    record = read_json(folder / "run.json")
    try:
        items = pd.read_parquet(folder / "items.parquet")
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / 'items.parquet'}: cannot be read ({error}); run the command again") from error
    figures = sorted(p for p in (folder / "figures").glob("*") if p.suffix in (".png", ".svg"))
    return Run(folder, record["config"], items, tables.read_summary(folder / "summary.csv"), figures, record)
