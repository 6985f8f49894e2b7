"""`published(path)`: public results as one tidy frame, whatever their layout."""

import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from pyarrow import parquet

from pythia_tools.core import progress
from pythia_tools.core.errors import DataError, few
from pythia_tools.public import ai2, defects, evals, harness, sources, tables, tasks
from pythia_tools.public.columns import CELL, COLUMNS, SHARES, items
from pythia_tools.public.rows import Line, NotResultsError

LAYOUTS = (
    "Pythia's evals/ (v0, v1, interventions, WinoBias, term-frequency CSVs), training_maps.tsv, "
    "lm-eval's results_*.json, pythia-memorized-evals, DataDecide's and signal-and-noise's parquet, "
    "the OLMo ladder's CSVs"
)
_RAW = {**{name: column.dtype for name, column in COLUMNS.items()}, "stamp": "string", "counted": "Int64",
        "pooled": "boolean"}
_MUST = ("results_", "eval_results", "_step")
"""A JSON file with one of these in its name claims to be a result: where it is none, that is an error."""
Samples = dict[tuple[str, str | None, str, str], harness.Samples]


def published(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Every published number at a path: a file, a folder or an archive (.zip, .tar.xz and other tars).

    Returns: one row per number with the columns of `COLUMNS`, ordered by suite, size, branch, step, task, metric. Where
    several files hold the same number, that of the newest file name is taken. Files of no known layout are left out,
    with a warning; a file that claims to hold results and does not is an error.
    Cost: about 10 s of one core and 0.8 GB for Pythia's whole `evals/` (1,823 files, 0.25 million numbers).
    Raises: RequestError when nothing is there; DataError naming the file that is damaged, or when nothing was found.
    Source of the layouts and of what is known to be wrong: EleutherAI/pythia, allenai/DataDecide,
    allenai/signal-and-noise, allenai/OLMo-ladder.

    >>> import json, tempfile
    >>> value = {"results": {"wsc": {"acc": 38 / 104, "acc_stderr": 0.0474473339327792}}, "versions": {"wsc": 0},
    ...          "config": {"model_args": "pretrained=EleutherAI/pythia-v1.1-70m,revision=step143000",
    ...                     "num_fewshot": 0}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "70m_step143000.json")
    ...     _ = file.write_text(json.dumps(value))
    ...     print(published(file)[["suite", "model", "step", "task", "n_items", "match"]].to_string(index=False))
     suite model   step task  n_items  match
    pythia   70m 143000  wsc      104 nearly
    """
    root = Path(path)
    lines: list[Line] = []
    frames: list[pd.DataFrame] = []
    taken: Samples = {}
    passed: list[str] = []
    for name, content in sources.walk(root):
        where = name if root.is_dir() or name != root.name else str(root)
        if name.endswith(".jsonl"):
            taken.update(harness.samples(where, content))
            continue
        known = len(lines), len(frames)
        if name.endswith(".json"):
            lines += _json(where, content)
        else:
            frames += _table(where, content)
        if (len(lines), len(frames)) == known:
            passed.append(where)
    if lines:
        frames.insert(0, pd.DataFrame(lines))
    if not frames:
        held = f" ({few(passed, 3)} are of another kind)" if passed else ""
        raise DataError(f"{path}: no published results in it{held}; known are {LAYOUTS}")
    if passed:
        progress.warn(f"{path}: left out, of no known layout: {few(passed, 3)}")
    return _finish(_typed(frames), taken)


def _json(name: str, content: bytes) -> Iterator[Line]:
    """The numbers of a JSON file; none for one of another kind. Raises: DataError."""
    try:
        value = json.loads(content)
        if isinstance(value, dict):
            yield from _layout(name, value)
            return
        raise NotResultsError("it is no JSON object")
    except NotResultsError as error:
        if any(part in PurePosixPath(name).name for part in _MUST):
            raise DataError(f"{name}: not a published result: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{name}: not a published result ({type(error).__name__}: {error}); fetch it again") from error


def _layout(name: str, value: Mapping[str, object]) -> Iterator[Line]:
    if harness.is_of_today(value):
        yield from harness.lines(name, value)
    elif "results" in value or "table_results" in value:
        yield from evals.lines(name, value)
    elif tables.is_table(value):
        yield from tables.table(name, value)  # type: ignore[arg-type]
    elif tables.is_confusions(value):
        yield from tables.confusions(name, value)  # type: ignore[arg-type]
    else:
        raise NotResultsError("it holds no `results`")


def _table(name: str, content: bytes) -> list[pd.DataFrame]:
    """The columns of a table of a known layout; none for another. Raises: DataError when it cannot be read."""
    try:
        if name.endswith(".parquet"):
            file = parquet.ParquetFile(io.BytesIO(content))
            if set(file.schema_arrow.names) == tables.MEMORIZED_COLUMNS:
                return [tables.memorized(name, file.metadata.num_rows)]
            raw = file.read().to_pandas()
        else:
            raw = pd.read_csv(io.BytesIO(content), sep="\t" if name.endswith(".tsv") else ",")
    except (ValueError, OSError) as error:
        raise DataError(f"{name}: cannot be read ({str(error)[:150]}); fetch it again") from error
    columns = [str(c) for c in raw.columns]
    kinds = {"datadecide": ai2.datadecide, "wide": ai2.wide, "long": ai2.long}
    if columns == tables.TERM_COLUMNS:
        return [tables.term_frequency(name, raw)]
    if set(tables.MAP_COLUMNS) <= set(columns):
        return [tables.training_map(name, raw)]
    if ai2.is_ladder(columns):
        return [ai2.ladder(name, raw)]
    kind = ai2.kind(set(columns))
    if kind:
        return [kinds[kind](name, raw)]
    if PurePosixPath(name).name == "term_frquency_all_shots.csv":
        raise DataError(f"{name}: columns are {columns}, these results have {tables.TERM_COLUMNS}")
    return []


def _typed(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """All parts under one another with every column, in its type."""
    whole = pd.concat([part.reindex(columns=list(_RAW)).astype(_RAW) for part in frames], ignore_index=True)
    return whole.assign(subset=whole["subset"].fillna("all"), pooled=whole["pooled"].fillna(False))


def _finish(frame: pd.DataFrame, taken: Samples) -> pd.DataFrame:
    frame = _counted(_newest(frame), taken)
    known = {name: tasks.task(name) for name in frame["task"].dropna().unique()}
    share = frame["metric"].isin(SHARES)
    today = frame["collection"].eq("lm-eval")
    facts = pd.DataFrame({
        "n_published": {n: t.items for n, t in known.items()}, "chance": {n: t.chance for n, t in known.items()},
        "now": {n: t.now for n, t in known.items()}, "match": {n: t.match for n, t in known.items()},
        "note": {n: t.note for n, t in known.items()},
    }).reindex(frame["task"]).set_index(frame.index)
    whole = np.rint(items(frame["value"], frame["stderr"]))
    recovered = share & ~frame["pooled"].astype(bool)
    now = facts["now"].astype("string").mask(today, frame["task"])
    frame = frame.assign(
        recovered=recovered,
        n_items=frame["counted"].fillna(pd.Series(whole, frame.index).where(recovered).astype("Int64")),
        n_published=frame["n_published"].fillna(facts["n_published"].astype("Int64").where(~today)),
        chance=facts["chance"].astype(float).where(share), task_now=now,
        metric_now=frame["metric"].replace(tasks.METRICS).where(now.notna()),
        match=facts["match"].astype("string").mask(today, "same"),
        note=frame["note"].fillna(facts["note"].astype("string").mask(today)),
    )
    marked = defects.mark(frame)
    order = marked.sort_values(["suite", "params", "model", "branch", "step", "collection", "task", "subset", "shots",
                                "metric"], kind="stable", na_position="last")
    return order[list(COLUMNS)].reset_index(drop=True)


def _newest(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per number: of several files of a cell, that with the newest time in its name."""
    stamped = frame["stamp"].notna()
    if not stamped.any():
        return frame
    dated = frame[stamped].sort_values("stamp", kind="stable").drop_duplicates(CELL, keep="last")
    return pd.concat([frame[~stamped], dated]).sort_index().reset_index(drop=True)


def _counted(frame: pd.DataFrame, taken: Samples) -> pd.DataFrame:
    """The same with what samples files beside results say: documents counted, and means that are not the file's."""
    if not taken:
        return frame
    folders = [PurePosixPath(name).parent.as_posix() for name in frame["source"]]
    stamps = [None if pd.isna(stamp) else stamp for stamp in frame["stamp"]]
    found = [taken.get(key) for key in zip(folders, stamps, frame["task"], frame["subset"], strict=True)]
    counts = pd.Series([f.documents if f else pd.NA for f in found], frame.index, dtype="Int64")
    means = [f.means.get(metric) if f else None for f, metric in zip(found, frame["metric"], strict=True)]
    off = np.array([m is not None and abs(m - v) > 1e-9 for m, v in zip(means, frame["value"], strict=True)])
    off &= frame["metric"].isin(SHARES).to_numpy()
    return frame.assign(
        counted=counts.fillna(frame["counted"]),
        defect=frame["defect"].mask(off, "not the mean of the samples beside it"),
        defect_source=frame["defect_source"].mask(off, "computed"),
    )


