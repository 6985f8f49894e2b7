"""What a run of the bias measures asks: tasks from options, their items from files, manifests, or the suite's truth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from pythia_tools.analyses.bias import choices, winobias
from pythia_tools.analyses.bias.columns import PRONOUNS
from pythia_tools.analyses.bias.measure import HeldoutLoss
from pythia_tools.analyses.bias.pronouns import PronounTask, pronoun_items
from pythia_tools.analysis import Context, Options, Task, option
from pythia_tools.core import manifests
from pythia_tools.core.errors import RequestError, unknown
from pythia_tools.core.files import read_lines
from pythia_tools.micro import words

HELDOUT_ROWS = 256
MEASURES = (PRONOUNS, "crows_pairs", "winobias", "winogender", "stereoset", "bbq", "heldout_loss")
SETS = {
    "crows_pairs": (choices.read_pairs, choices.CrowsPairs),
    "winogender": (choices.read_winogender, choices.Winogender),
    "stereoset": (choices.read_stereoset, choices.StereoSet),
    "bbq": (choices.read_bbq, choices.BBQ),
}
"""Measure → how its set is read, and its task."""


@dataclass(frozen=True)
class BiasOptions(Options):
    """Measures, their items, and how branches are compared with their controls."""

    measures: tuple[str, ...] = option((), "default: pronoun_preference", choices=MEASURES)
    data: tuple[str, ...] = option((), "local files of a set (default: downloaded by manifest)", metavar="SET=PATH")
    groups: tuple[str, ...] = option(
        (), "only these bias types of CrowS-Pairs and StereoSet (gender, …)", metavar="TYPE",
    )
    limit: int | None = option(None, "only the first N items of each set (of each file of WinoBias)", minimum=1)
    winobias_methods: tuple[str, ...] = option(
        ("pronoun", "referent"),
        "pronoun: which of two is likelier, with prompts of our own wording (the paper's were never published); "
        "referent, generate: which occupation is meant, by log-probability or generated", choices=winobias.METHODS,
    )
    templates: str | None = option(None, "contexts with {occupation}, one a line (pronoun_preference)", metavar="FILE")
    occupations: str | None = option(
        None, "occupation and stereotype (he or she), tab-separated, one a line", metavar="FILE",
    )
    association: bool = option(False, "also against the corpus' own co-occurrence counts up to each step")
    window: int = option(8, "window of the association, in words", minimum=1, metavar="WORDS")
    correction: str = option("holm", "for many comparisons", choices=("holm", "bh"))


def tasks(context: Context, options: BiasOptions) -> list[Task]:
    """The tasks that the options name, in their order."""
    local = _local(options.data)
    wanted = dict.fromkeys(options.measures or (PRONOUNS,))
    return [task for name in wanted for task in _tasks(name, context, options, local.get(name))]


def _tasks(name: str, context: Context, options: BiasOptions, path: str | None) -> Iterator[Task]:
    if name == PRONOUNS:
        yield _pronouns(context, options)
    elif name == "heldout_loss":
        if context.heldout is None:
            raise RequestError(f"{context.name} has no held-out rows; leave out the measure heldout_loss")
        yield HeldoutLoss(context.heldout[:HELDOUT_ROWS], vocabulary=context.vocabulary)
    elif name == "winobias":
        sentences = winobias.read_sentences(path)
        few = [s for s in sentences if options.limit is None or s.number <= options.limit]
        methods = list(dict.fromkeys(options.winobias_methods))
        if scored := [m for m in methods if m != "generate"]:
            yield winobias.WinoBias(context.tokenizer, few, methods=scored)
        if "generate" in methods:
            yield winobias.WinoBiasAnswers(context.tokenizer, few)
    else:
        read, task = SETS[name]
        yield task(context.tokenizer, _chosen(read(path), options))


def _chosen(table: pd.DataFrame, options: BiasOptions) -> pd.DataFrame:
    if options.groups and "bias_type" in table.columns:
        known = sorted(table["bias_type"].astype(str).unique())
        table = table[table["bias_type"].isin(options.groups)]
        if table.empty:
            raise RequestError(f"--groups {' '.join(options.groups)}: no such bias type; known: {', '.join(known)}")
    return table.head(options.limit) if options.limit else table


def _local(values: Sequence[str]) -> dict[str, str]:
    known, found = manifests.names("evaluation_sets"), {}
    for name, _, path in (v.partition("=") for v in values):
        if not path:
            raise RequestError(f"--data {name}: give SET=PATH, for example crows_pairs=crows_pairs_anonymized.csv")
        if name not in known:
            raise unknown("evaluation set", name, known)
        found[name] = path
    return found


def _pronouns(context: Context, options: BiasOptions) -> PronounTask:
    """Items and the two continuations: given files, else the suite's own truth, else this toolkit's own list."""
    templates, occupations = list(words.HELDOUT_TEMPLATES), list(words.OCCUPATIONS)
    he, she, lead = " he", " she", ""
    if (truth := context.truth) is not None:
        templates, lead = truth.templates["heldout"], "\n"
        occupations = list(zip(truth.pronouns["occupation"], truth.pronouns["stereotype"], strict=True))
        he, she = truth.about["pronouns"]["he"], truth.about["pronouns"]["she"]
    if options.templates:
        templates = read_lines(options.templates, "templates")
    if options.occupations:
        path = options.occupations
        occupations = [_occupation(path, line) for line in read_lines(path, "occupations")]
    items = pronoun_items(templates, occupations, lead=lead)[: options.limit]
    return PronounTask(context.tokenizer, items, he=(he,), she=(she,))


def _occupation(path: str, line: str) -> tuple[str, str]:
    name, _, stereotype = line.partition("\t")
    if stereotype.strip() not in ("he", "she"):
        raise RequestError(f"{path}: {line!r}: occupation, a tab, then he or she")
    return name.strip(), stereotype.strip()
