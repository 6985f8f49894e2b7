"""Scaling laws, ladders, phases, seeds on any summary or CSV, with intervals and held-out errors.

examples:
  pythia-tools fit runs.csv --form hoffmann --at 70B:1.4T --budgets 1e23
  pythia-tools fit runs.csv --form flops --loss-column "C4 loss" --out runs/law
  pythia-tools fit ladder-runs --form ladder --tasks hellaswag_val_rc_5shot --targets peteish7_eval_anneal
  pythia-tools fit runs/losses --form hoffmann --metric nll --checkpoints last

TABLE is a CSV, TSV, JSON or parquet file, a summary.csv, or the folder of a run. For a law it has a row for each run
(or checkpoint): size, training tokens, loss and, where rows belong together, run; common names of columns are known
(N, model size, training tokens, val_loss …), others are given by --params-column and the like.
"""

import argparse
from dataclasses import asdict, field, fields, make_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pandas as pd

from pythia_tools.cli.options import add, emit, recorded
from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import sha256_file
from pythia_tools.core.options import Options, add_flags, from_mapping
from pythia_tools.core.results import RunFolder
from pythia_tools.fitting import FORMS, AnyForm, Fit, form_of
from pythia_tools.fitting.reading import read

HIDDEN = ("suite", "analysis", "interval", "metric_unit", "unit")
"""Columns of a summary that a person does not look at first."""


def all_options() -> type[Options]:
    """The options of all forms as one dataclass; the first form's words hold for an option that several have."""
    found: dict[str, tuple[str, Any, Any]] = {}
    for form in FORMS.values():
        kinds = get_type_hints(form.options)
        for one in fields(form.options):
            found.setdefault(one.name, (one.name, kinds[one.name], field(default=one.default, metadata=one.metadata)))
    return make_dataclass("AllOptions", found.values(), bases=(Options,), frozen=True)


def configure(parser: argparse.ArgumentParser) -> None:
    width = max(map(len, FORMS))
    forms = "\n".join(f"  {name:{width}}  {form.says}" for name, form in FORMS.items())
    parser.epilog = f"{parser.epilog or ''}\n\nforms:\n{forms}"
    parser.add_argument("table", metavar="TABLE", help="a table's file, or the folder of a finished run")
    parser.add_argument("--form", default="hoffmann", metavar="FORM", help=f"{', '.join(FORMS)} (default hoffmann)")
    add_flags(parser, all_options(), given_only=True)
    add(parser, "--out")


def run(args: argparse.Namespace) -> None:
    form = form_of(args.form)
    options = from_mapping(form.options, vars(args))
    _refuse_others(form, args)
    vars(args).update(asdict(options))  # the config of a run is resolved
    table = _table(args.table)
    if args.out is None:
        found = form.fit(table, options)
    else:
        with RunFolder(args.out, recorded("fit", args)) as folder:
            found = form.fit(table, options)
            _finish(form, found, folder, args, options)
    for sentence in found.sentences:
        progress.note(sentence.text)
    emit(found.summary, args, shown(found.summary))


def _table(source: str) -> pd.DataFrame:
    """A file, a run's summary, or public results (a folder, an archive) as one table."""
    path = Path(source)
    archive = path.is_file() and (".tar" in path.suffixes or path.suffix in (".tgz", ".zip"))
    if archive or (path.is_dir() and not (path / "summary.csv").exists()):
        from pythia_tools.public import published

        return published(path)
    return read(path)


def _refuse_others(form: AnyForm, args: argparse.Namespace) -> None:
    """Raises RequestError for a flag that was given and that this form has not."""
    own = {one.name for one in fields(form.options)}
    for one in fields(all_options()):
        if one.name not in own and hasattr(args, one.name):
            flag = one.name.replace("_", "-")
            having = ", ".join(name for name, f in FORMS.items() if one.name in {x.name for x in fields(f.options)})
            raise RequestError(f"--{flag} does not belong to --form {args.form}; it is for {having}")


def _finish(form: AnyForm, found: Fit, folder: RunFolder, args: argparse.Namespace, options: Options) -> None:
    """The fit as a finished run: figures, tables, sentences."""
    from pythia_tools import plots

    captions = {}
    for name, caption in form.figures.items():
        plots.save(getattr(plots, name)(found.summary, found.items), folder.figures, name)
        captions[name] = caption
    source = Path(args.table)
    files = [source / "summary.csv", source]
    data = next((sha256_file(path) for path in files if path.is_file()), None)
    folder.finish(
        found.items, found.summary, data=data,
        extra={"title": f"Fit: {form.says}", "method": form.methods.format_map(asdict(options)), "captions": captions,
               "sentences": [{"text": s.text, "rows": list(s.rows)} for s in found.sentences]},
    )


def shown(summary: pd.DataFrame) -> pd.DataFrame:
    """What a person looks at: all rows, without columns that say nothing."""
    empty = [c for c in summary.columns if summary[c].isna().all()]
    constant = [c for c in ("task", "subset") if summary[c].nunique(dropna=False) == 1]
    table = summary.drop(columns=list({*HIDDEN, *empty, *constant} & set(summary.columns)))
    return table.assign(**{c: table[c].map("{:.5g}".format) for c in ("value", "low", "high") if c in table})
