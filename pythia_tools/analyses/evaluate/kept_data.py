"""Data sets that tasks read from the hub, kept below this package's cache under the sha256 of their files.

    CACHE/evaluate/sets/<key>.json           what was asked for, and of each split its sha256 and number of documents
    CACHE/evaluate/files/<sha256>.parquet    a split

With a network the hub is asked, as lm-eval does it. Without one (HF_HUB_OFFLINE=1 or HF_DATASETS_OFFLINE=1, or a hub
out of reach) what was read once is read from here, held against its digest; the folder may be copied to such a machine.
Cost: a split is written once for each version of it; reading hashes its file.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict
from weakref import WeakKeyDictionary

from pythia_tools import hub
from pythia_tools.core import files
from pythia_tools.core.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from lm_eval.api.task import ConfigurableTask


class Split(TypedDict):
    """A kept split: digest of its file, documents, and the client's fingerprint of what was read."""

    sha256: str
    documents: int
    fingerprint: str


@dataclass(frozen=True)
class Wanted:
    """A data set as a task names it."""

    path: str
    name: str | None
    more: Mapping[str, object]

    @property
    def is_local(self) -> bool:
        """Files of this machine, which need no keeping."""
        own = {"data_files", "data_dir"} & set(self.more) and "/" not in self.path and "://" not in str(self.more)
        return bool(own) or Path(self.path).exists()

    @property
    def index(self) -> Path:
        return _folder() / "sets" / f"{files.digest([self.path, self.name, str(sorted(self.more.items()))])}.json"


_sources: WeakKeyDictionary[ConfigurableTask, dict[str, Split]] = WeakKeyDictionary()


def source(task: ConfigurableTask) -> dict[str, Split] | None:
    """The splits that a task's data set has, as they are kept; None for tasks with data of their own."""
    return _sources.get(task)


@contextlib.contextmanager
def keeping() -> Iterator[None]:
    """While this is open, tasks that are built keep what they read from the hub, and find it here without one."""
    from lm_eval.api.task import ConfigurableTask

    theirs = ConfigurableTask.download

    def download(task: ConfigurableTask, dataset_kwargs: dict[str, object] | None = None, **more: object) -> None:
        wanted = Wanted(str(task.DATASET_PATH), task.DATASET_NAME, dict(dataset_kwargs or {}))
        if callable(task.config.custom_dataset) or wanted.is_local:
            return theirs(task, dataset_kwargs, **more)  # type: ignore[no-any-return]
        if not (_offline() and _found(task, wanted)):
            try:
                theirs(task, dataset_kwargs, **more)
            except OSError:
                if not _found(task, wanted):
                    raise
            else:
                _sources[task] = _kept(wanted, task.dataset)
        return None

    ConfigurableTask.download = download
    try:
        yield
    finally:
        ConfigurableTask.download = theirs


def _folder() -> Path:
    return files.cache_dir() / "evaluate"


def _file(split: Split) -> Path:
    return _folder() / "files" / f"{split['sha256']}.parquet"


def _offline() -> bool:
    return hub.offline() or os.environ.get("HF_DATASETS_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def _found(task: ConfigurableTask, wanted: Wanted) -> bool:
    """Gives a task its data set out of the cache; False when it is not there."""
    from datasets import DatasetDict

    if not wanted.index.is_file():
        return False
    splits: dict[str, Split] = files.read_json(wanted.index)["splits"]
    if not all(_file(split).is_file() for split in splits.values()):
        return False
    opened = {name: _opened(split) for name, split in splits.items()}
    task.dataset = opened[""] if list(opened) == [""] else DatasetDict(opened)
    _sources[task] = splits
    return True


def _opened(split: Split) -> Dataset:
    """Raises DataError when the file is damaged."""
    from datasets import Dataset
    from pyarrow import parquet

    path = _file(split)
    if files.sha256_file(path) != split["sha256"]:
        raise DataError(f"{path} is damaged; delete it and evaluate once with a network")
    return Dataset(parquet.read_table(path))


def _kept(wanted: Wanted, data: Dataset | DatasetDict) -> dict[str, Split]:
    """Writes the splits that are not there yet, and what they are."""
    splits = {str(name): some for name, some in data.items()} if isinstance(data, dict) else {"": data}
    known: dict[str, Split] = files.read_json(wanted.index)["splits"] if wanted.index.is_file() else {}
    found = {}
    for name, some in splits.items():
        before = known.get(name)
        same = before is not None and before["fingerprint"] == some._fingerprint and _file(before).is_file()
        found[name] = before if before is not None and same else _written(some)
    if found != known:
        files.write_json(wanted.index, {**asdict(wanted), "more": str(dict(wanted.more)), "splits": found})
    return found


def _written(data: Dataset) -> Split:
    beside = _folder() / "files" / f".{uuid.uuid4().hex[:8]}.part"
    beside.parent.mkdir(parents=True, exist_ok=True)
    try:
        data.to_parquet(str(beside))
        split = Split(sha256=files.sha256_file(beside), documents=len(data), fingerprint=data._fingerprint)
        os.replace(beside, _file(split))
    finally:
        beside.unlink(missing_ok=True)
    return split
