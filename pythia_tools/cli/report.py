"""A self-contained HTML report of finished runs, and their figures.

example:
  pythia-tools report runs/m1 runs/b1 --out runs/report.html
"""

import argparse
from pathlib import Path

from pythia_tools.cli.options import add, emit
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import write_text
from pythia_tools.core.results import load_run


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of finished runs, in the order of the sections")
    add(parser, "--out", type=str, metavar="FILE", default="report.html", help="the page (default: report.html)")
    parser.add_argument("--title", default="Training dynamics", help="the page's title")


def run(args: argparse.Namespace) -> None:
    from pythia_tools.report import build_report

    out = Path(args.out)
    if out.is_dir():
        out = out / "report.html"
    elif out.suffix not in (".html", ".htm"):
        raise RequestError(f"--out {args.out!r}: a report is an .html file, for example --out {args.out}.html")
    runs = [load_run(r) for r in args.runs]
    lead = f"{len(runs)} finished run{'s' if len(runs) > 1 else ''}; each can be repeated with `pythia-tools rerun`."
    write_text(out, build_report(runs, title=args.title, lead=lead, command=args.typed))
    emit({"report": str(out)}, args, str(out))
