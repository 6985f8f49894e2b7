"""Public results, read as a run: tables, intervals, figures; no model is loaded.

examples:
  pythia-tools published accuracy evals.tar.xz --task lambada_openai piqa --num-fewshot 5 --out runs/public
  pythia-tools published figures evals.tar.xz --out runs/public-figures
  pythia-tools published bias evals.tar.xz --out runs/public-bias
  pythia-tools published term-frequency evals.tar.xz --out runs/public-terms

RESULTS is the evals/ folder of EleutherAI/pythia, an archive of it, or one file. `accuracy` draws tasks against size
and step, and the deduplicated corpus against the standard one; `figures` all of the paper's, with the interventions.
With --exposures (a table of term, step, exposures, or the folder of a `count` run) accuracy is set against them.
"""

import argparse
from pathlib import Path

from pythia_tools.cli.options import add, at_least, emit, recorded, require_out
from pythia_tools.core import tables
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import RunFolder

KINDS = ("accuracy", "figures", "bias", "term-frequency")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("analysis", choices=KINDS, help=", ".join(KINDS))
    parser.add_argument("results", metavar="RESULTS", help="the evals folder, an archive of it, or a file")
    parser.add_argument("--task", nargs="+", default=[], metavar="TASK", help="published tasks (accuracy; default: the "
                        "paper's; hendrycksTest is its 57 together)")
    parser.add_argument("--metric", default="acc", help="accuracy, figures: acc (default), acc_norm, ppl; acc where a "
                        "task has no other")
    parser.add_argument("--num-fewshot", type=at_least(0), default=0, metavar="N", help="0 (default) or 5 (accuracy)")
    add(parser, "--models", default=[], help="only these (term-frequency; default: all)")
    parser.add_argument("--exposures", metavar="FILE", help="exposures to set accuracy against (term-frequency)")
    add(parser, "--out")


def run(args: argparse.Namespace) -> None:
    from pythia_tools import analyses
    from pythia_tools.analyses import bias, term_frequency
    from pythia_tools.cli.analyses import shown
    from pythia_tools.public import published
    from pythia_tools.report import published as report

    source = Path(args.results)
    if not source.exists():
        raise RequestError(f"{source}: no such folder, archive or file of results; nothing was written")
    with RunFolder(require_out(args), recorded("published", args)) as folder:
        if args.analysis == "bias":
            finished = bias.publish_run(source, folder)
        elif args.analysis == "term-frequency":
            finished = term_frequency.publish_run(source, folder, models=args.models, exposures=args.exposures)
        elif args.analysis == "figures":
            finished = report.figures(published(source), folder, metric=args.metric)
        else:
            finished = report.accuracy(published(source), folder, tasks=args.task, metric=args.metric,
                                       shots=args.num_fewshot)
    if args.analysis in analyses.BUILT_IN:
        emit(finished.summary, args, shown(analyses.get(args.analysis), finished.summary))
    else:
        last = tables.at_last_step(finished.summary)
        emit(finished.summary, args, last[["suite", "model", "task", "subset", "metric", "value", "low", "high", "n"]])
