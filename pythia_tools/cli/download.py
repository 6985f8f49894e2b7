"""Fetch checkpoints into the hub cache: resumable, parallel, verified against size and sha256, within a disk budget.

example:
  pythia-tools download pythia --models 70m 160m --steps log --dry-run
  pythia-tools download pythia-deduped --models 70m --steps 0,512,1000:143000:10000 --budget 50GB
  pythia-tools download pythia --models 410m --steps last --pin       # stays when a budget makes room
  pythia-tools download pythia --models 70m --steps all --verify      # reads what is there again, digest by digest

Only needed files come (safetensors where there are any, else torch files; configuration; tokenizer), to where
`from_pretrained(..., local_files_only=True)` finds them. A killed download goes on from its last byte.
"""

from __future__ import annotations

import argparse

from pythia_tools import hub, suites
from pythia_tools.cli.options import add_budget, add_output, emit, positive
from pythia_tools.core import progress
from pythia_tools.core.errors import EXIT_DONE, EXIT_FOUND, RequestError
from pythia_tools.core.files import human_bytes
from pythia_tools.hub import client
from pythia_tools.hub.repositories import WORKERS


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", metavar="SUITE", help="a suite's name or a manifest path")
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="models of the suite (default: all)")
    parser.add_argument(
        "--steps", default="all", help="all, log, last, 0,512,143000, 1000:143000:10000, tokens=2B, 10%% (default: all)"
    )
    add_budget(parser)
    parser.add_argument("--workers", type=positive, default=WORKERS, metavar="N", help="files at a time (default: 8)")
    parser.add_argument("--verify", action="store_true", help="compare what is already there with its digests")
    pins = parser.add_mutually_exclusive_group()
    pins.add_argument("--pin", action="store_true", help="never evict these for a budget")
    pins.add_argument("--unpin", action="store_true", help="evict these again when a budget needs room")
    parser.add_argument(
        "--allow-defective", action="store_true", help="go on with checkpoints that are known to be wrong"
    )
    parser.add_argument("--skip-missing", action="store_true", help="leave out checkpoints that the hub does not have")
    parser.add_argument("--dry-run", action="store_true", help="print bytes, files and disk peak; fetch nothing")
    add_output(parser, out=False)


def run(args: argparse.Namespace) -> int:
    suite = suites.load_suite(args.suite)
    if suite.folder is not None:
        raise RequestError(f"{suite.name} lies in {suite.folder} already; only suites on the hub are downloaded")
    budget = hub.default_budget() if args.budget is None else args.budget
    checkpoints = suite.checkpoints(args.models, args.steps, allow_defective=args.allow_defective)
    todo = hub.plan(checkpoints)
    summary: dict[str, object] = {
        "checkpoints": len(checkpoints), "files_to_fetch": len(todo.missing), "bytes_to_fetch": todo.bytes,
        "bytes_cached": todo.already, "disk_peak": min(todo.disk_peak, budget) if budget else todo.disk_peak,
        "budget": budget, "cache": str(client.cache_root()), "missing_on_hub": list(todo.problems)
    }
    if args.dry_run:
        _show(summary, args.json)
        return EXIT_FOUND if todo.problems else EXIT_DONE
    if todo.problems and args.skip_missing:
        for problem in todo.problems:
            progress.warn(problem)
        checkpoints = [c for c in checkpoints if not any(p.startswith(f"{c}: ") for p in todo.problems)]
        todo = hub.plan(checkpoints)
    _delete_unfinished()
    if args.verify:
        for entry in todo.listings:
            for name in hub.drop_damaged(entry):
                progress.warn(f"{entry.repo}@{entry.revision}/{name}: the cached copy is damaged; fetching it again")
        todo = hub.plan(checkpoints)
    pin = True if args.pin else False if args.unpin else None
    folders = hub.download(checkpoints, budget=budget, workers=args.workers, pin=pin, made=todo)
    if args.json:
        emit({**summary, "folders": [str(f) for f in folders]}, as_json=True)
    else:
        print(f"{len(folders)} checkpoints are in {client.cache_root()}: {human_bytes(todo.bytes)} fetched, "
              f"{human_bytes(todo.already)} were there; all sizes and digests verified")
    return EXIT_DONE


def _show(summary: dict[str, object], as_json: bool) -> None:
    if as_json:
        emit(summary, as_json=True)
        return
    print(f"checkpoints     {summary['checkpoints']}")
    print(f"to fetch        {human_bytes(float(str(summary['bytes_to_fetch'])))} in {summary['files_to_fetch']} files")
    print(f"cached already  {human_bytes(float(str(summary['bytes_cached'])))}")
    print(f"disk peak       {human_bytes(float(str(summary['disk_peak'])))} in {summary['cache']}")
    problems = summary["missing_on_hub"]
    assert isinstance(problems, list)
    if problems:
        print(f"missing         {len(problems)} checkpoints; --skip-missing leaves them out")
        for problem in problems[:20]:
            print(f"  {problem}")


def _delete_unfinished() -> None:
    """What unfinished downloads left behind a day ago or earlier; the client never removes its own."""
    gone = hub.delete_unfinished()
    if gone:
        progress.note(f"deleted {len(gone)} unfinished downloads, {human_bytes(sum(size for _, size in gone))}")
