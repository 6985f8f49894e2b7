"""Result files of the Pythia release: `evals/` of EleutherAI/pythia, written by lm-eval of 2022 and 2023.

    pythia-v1/pythia-12b/five-shot/12b-5shot_step143000.json                             v1, model_args is text
    pythia-v0/pythia-70m/zero-shot/pythia-70m-0shot-global_step3000_eval_results_….json  v0, a NeoX configuration
    bias-evals/long-intervention-1.4b-deduped-step57000_eval_results_….json              v0, the gender intervention
    bias-evals/winobias/intervene_7/1.4B/eval_results_1.4b-deduped_134000.json           WinoBias tables

Model, step and shots come from a file's config; its name says only which of the collections it was put in, and what the
config leaves open (whether the corpus was deduplicated, for models that were staged before evaluation). Steps of v0 are
the real ones, also for the models that were trained with batches of 4M tokens.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from pythia_tools.public import names
from pythia_tools.public.rows import Line, NotResultsError, mapping, numbers

_SIZE = re.compile(r"(?<![\d.])(\d+(?:[.-]\d+)?[mb])", re.IGNORECASE)
_STAMP = re.compile(r"(\d\d)-(\d\d)-(\d{4})-(\d\d)-(\d\d)-(\d\d)\.json$")
_SWAPPED = re.compile(r"(^|/)(long-)?intervention-|/intervene_\d+/|/ckpts/[^/]*interven")
_LONG = re.compile(r"(^|/)long-intervention-|/intervene_21/|56500start|deduped-long")
FIRST_SIZES = frozenset(names.CURRENT)


def lines(name: str, value: Mapping[str, object]) -> Iterator[Line]:
    """The numbers of a result file. Raises: NotResultsError."""
    config = value.get("config")
    told = config if isinstance(config, dict) else {}
    given = told.get("model_args", value.get("model_args"))
    run, step = _neox(name, given) if isinstance(given, dict) else _text(str(given or ""))
    claimed = told.get("num_fewshot", 0 if "table_results" in value else None)
    shots = claimed if isinstance(claimed, int) else None
    stamp = _STAMP.search(name)
    cell = {
        **run.at(step), "collection": _collection(name, run, shots, tables="table_results" in value), "shots": shots,
        "source": name, "stamp": "{2}-{0}-{1}-{3}-{4}-{5}".format(*stamp.groups()) if stamp else None,
    }
    for task, subset, metrics in _tasks(value):
        for number in numbers(metrics):
            yield {**cell, "task": task, "subset": subset, "metric": number.metric, "value": number.value,
                   "stderr": number.stderr}


def _tasks(value: Mapping[str, object]) -> Iterator[tuple[str, str, Mapping[str, object]]]:
    """Task, prompt and metrics."""
    if "table_results" in value:
        for cell in mapping(value["table_results"], "table_results").values():
            row = mapping(cell, "a cell of table_results")
            yield str(row["task_name"]), str(row["prompt_name"]), row
    else:
        for task, metrics in mapping(value.get("results"), "results").items():
            yield task, "all", mapping(metrics, f"results of {task}")


def _text(given: str) -> tuple[names.Run, int | None]:
    """The checkpoint of `pretrained=…,revision=…`."""
    fields = dict(part.partition("=")[::2] for part in given.split(","))
    if not fields.get("pretrained"):
        raise NotResultsError(f"model_args {given!r} names no model (pretrained=…)")
    return names.named(fields["pretrained"], fields.get("revision"))


def _neox(name: str, given: Mapping[str, object]) -> tuple[names.Run, int]:
    """The checkpoint of a NeoX configuration; of the file's name only the end counts, as the public tree has it."""
    name = "/" + "/".join(PurePosixPath(name).parts[-4:])
    files = given.get("config_files")
    place = str(given.get("load") or given.get("save") or "")
    text = " ".join([PurePosixPath(place).name, *(files if isinstance(files, dict) else ())])
    size, step = _SIZE.search(text) or _SIZE.search(name), given.get("iteration")
    if size is None or not isinstance(step, int):
        raise NotResultsError("its config names neither a size nor an iteration")
    spelled = size[1].lower().replace("-", ".")
    alone = "load" not in given  # tables of interventions hold an iteration and the name of a configuration only
    swapped = alone or _SWAPPED.search(f"{name} {place}") is not None
    run = names.pythia(
        spelled, deduped=swapped or "dedup" in f"{text} {name}", v0=spelled in FIRST_SIZES, swapped=swapped,
        long=_LONG.search(f"{name} {place} {text}") is not None,
    )
    return run, step


def _collection(name: str, run: names.Run, shots: int | None, *, tables: bool) -> str:
    """The set of results that a file belongs to: by its folder, else by its name, else by its shots."""
    folders, base = PurePosixPath(name).parts[:-1], PurePosixPath(name).name
    if tables:
        return "winobias"
    if run.release is None:
        return "other-models"
    if "MtokBS" in run.model:
        return "batch-size"
    for folder in ("zero-shot", "five-shot", "baseline", "intervention"):
        if folder in folders:
            return folder
    if re.match(r"(long-)?(intervention|pythia)-[^/]*-step\d+_eval_results", base):
        return "bias"
    if base.startswith("baseline-"):
        return "baseline"
    if run.branch != "main":
        return "intervention"
    return "five-shot" if "-5shot" in base or shots == 5 else "zero-shot"
