"""lm-eval's own files of today (0.4.x): `results_TIME.json`, and `samples_TASK_TIME.jsonl` beside them.

`EleutherAI/polypythias-evals` is laid out like this: `pythia-410m-seed3/step110000/EleutherAI__pythia-410m-seed3/`
`results_TIME.json`, several files to a checkpoint. Model and step are those of `model_args`, whatever the folder is
called: some folders of a seed hold results of the model without one.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from pythia_tools.core.errors import DataError
from pythia_tools.public import names
from pythia_tools.public.rows import Line, NotResultsError, mapping, numbers

_TIME = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.jsonl?$")
_FOLDER = re.compile(r"(?:^|/)(pythia-[^/]+)/(step\d+)/")


def is_of_today(value: Mapping[str, object]) -> bool:
    """Whether a JSON object with `results` is of lm-eval 0.4 or later: its metrics' names end in `,FILTER`."""
    results = value.get("results")
    tasks = results.values() if isinstance(results, dict) else ()
    return any("," in metric for task in tasks if isinstance(task, dict) for metric in task)


def lines(name: str, value: Mapping[str, object]) -> Iterator[Line]:
    """The numbers of a results file. Raises: NotResultsError."""
    config = mapping(value.get("config"), "config")
    run, step = _checkpoint(config.get("model_args"), value.get("model_name"))
    time = _TIME.search(name)
    cell = {**run.at(step), "collection": "lm-eval", "source": name, "stamp": time[1] if time else None,
            **_misplaced(name, run, step)}
    shots, counts = _object(value.get("n-shot")), _object(value.get("n-samples"))
    groups = _groups(value)
    for task, metrics in mapping(value.get("results"), "results").items():
        by_filter: dict[str, dict[str, object]] = {}
        for key, number in mapping(metrics, f"results of {task}").items():
            metric, comma, filter_ = key.partition(",")
            if comma:
                by_filter.setdefault(filter_, {})[metric] = number
        members = groups.get(task, [task])
        count = {**cell, "task": task, "shots": _whole(shots.get(members[0])), "pooled": task in groups,
                 "counted": _sum(counts, members, "effective"), "n_published": _sum(counts, members, "original")}
        for filter_, found in by_filter.items():
            for number in numbers(found):
                yield {**count, "subset": "all" if filter_ == "none" else filter_, "metric": number.metric,
                       "value": number.value, "stderr": number.stderr}


def _checkpoint(given: object, model_name: object) -> tuple[names.Run, int | None]:
    if isinstance(given, str):
        given = dict(part.partition("=")[::2] for part in given.split(","))
    fields = given if isinstance(given, dict) else {}
    pretrained, revision = fields.get("pretrained") or model_name, fields.get("revision")
    if not isinstance(pretrained, str) or not pretrained:
        raise NotResultsError("its config names no model (model_args: pretrained)")
    return names.named(pretrained, str(revision) if revision else None)


def _misplaced(name: str, run: names.Run, step: int | None) -> Line:
    """The columns that say that a file lies in another checkpoint's folder."""
    folder = _FOLDER.search(name)
    if not folder:
        return {}
    there, at = names.named(f"EleutherAI/{folder[1]}", folder[2])
    if (there.suite, there.model, at) == (run.suite, run.model, step):
        return {}
    return {"defect": f"lies in the folder of {folder[1]}/{folder[2]}; its model_args name {run.model}/step{step}",
            "defect_source": name}


def _groups(value: Mapping[str, object]) -> dict[str, list[str]]:
    """Group → its tasks that have a count, at any depth."""
    below = {group: [str(m) for m in members] for group, members in _object(value.get("group_subtasks")).items()
             if isinstance(members, list) and members}

    def leaves(name: str) -> list[str]:
        return [leaf for member in below[name] for leaf in leaves(member)] if name in below else [name]
    return {group: leaves(group) for group in below}


def _sum(counts: Mapping[str, object], members: list[str], which: str) -> int | None:
    found = [_whole(_object(counts.get(m)).get(which)) for m in members]
    known = [n for n in found if n is not None]
    return sum(known) if known and len(known) == len(found) else None


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


@dataclass(frozen=True)
class Samples:
    """What a samples file says of one task and filter: documents, and the mean of each metric that it holds."""

    documents: int
    means: Mapping[str, float]


def samples(name: str, content: bytes) -> dict[tuple[str, str | None, str, str], Samples]:
    """(folder, time, task, filter) → what the samples say. Raises: DataError naming the line that is no sample."""
    base = PurePosixPath(name).name
    time = _TIME.search(base)
    task = base.removeprefix("samples_").removesuffix(".jsonl")[: -len(time[1]) - 1 if time else None]
    documents: dict[str, set[object]] = {}
    sums: dict[str, dict[str, list[float]]] = {}
    for number, line in enumerate(content.splitlines(), 1):
        try:
            row = json.loads(line)
            filter_ = "all" if row.get("filter", "none") == "none" else row["filter"]
            documents.setdefault(filter_, set()).add(row["doc_id"])
            for metric in row.get("metrics", ()):
                if isinstance(row.get(metric), int | float):
                    sums.setdefault(filter_, {}).setdefault(metric, []).append(float(row[metric]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{name}: line {number} is no sample of lm-eval ({error}); write it again") from error
    folder = PurePosixPath(name).parent.as_posix()
    return {(folder, time[1] if time else None, task, f): Samples(len(docs), {
        metric: sum(values) / len(values) for metric, values in sums.get(f, {}).items()
    }) for f, docs in documents.items()}
