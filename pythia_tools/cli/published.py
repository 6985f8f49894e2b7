"""Public results, read as a run: tables, intervals, figures; no model is loaded.

examples:
  pythia-tools published term-frequency evals.tar.xz --out runs/public-terms
  pythia-tools published bias evals.tar.xz --out runs/public-bias

RESULTS is the evals/ folder of EleutherAI/pythia, an archive of it, or one file. With --exposures (a table of term,
step, exposures, or the folder of a `count` run) accuracy is set against them.
"""

import argparse
from pathlib import Path

from pythia_tools.cli.options import add, emit, recorded, require_out
from pythia_tools.core.errors import RequestError
from pythia_tools.core.results import RunFolder

KINDS = ("bias", "term-frequency")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("analysis", choices=KINDS, help=" or ".join(KINDS))
    parser.add_argument("results", metavar="RESULTS", help="the evals folder, an archive of it, or a file")
    add(parser, "--models", default=[], help="only these (term-frequency; default: all)")
    parser.add_argument("--exposures", metavar="FILE", help="exposures to set accuracy against (term-frequency)")
    add(parser, "--out")


def run(args: argparse.Namespace) -> None:
    from pythia_tools import analyses
    from pythia_tools.analyses import bias, term_frequency
    from pythia_tools.cli.analyses import shown

    source = Path(args.results)
    if not source.exists():
        raise RequestError(f"{source}: no such folder, archive or file of results; nothing was written")
    with RunFolder(require_out(args), recorded("published", args)) as folder:
        if args.analysis == "bias":
            finished = bias.publish_run(source, folder)
        else:
            finished = term_frequency.publish_run(source, folder, models=args.models, exposures=args.exposures)
    emit(finished.summary, args, shown(analyses.get(args.analysis), finished.summary))
