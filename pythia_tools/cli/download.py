"""Fetch checkpoints into the hub cache: resumable, parallel, verified against size and sha256, within a disk budget.

example:
  pythia-tools download pythia --models 70m 160m --steps log --dry-run
  pythia-tools download pythia-deduped --models 70m --steps 0,512,1000:143000:10000 --budget 50GB
  pythia-tools download pythia --models 410m --steps last --pin       # stays when a budget makes room
  pythia-tools download pythia --models 70m --steps all --verify      # reads what is there again, digest by digest

Only needed files come (safetensors where there are any, else torch files; configuration; tokenizer), to where
`from_pretrained(..., local_files_only=True)` finds them. A killed download resumes at its last byte.
"""

import argparse

from pythia_tools import hub, suites
from pythia_tools.cli.options import SELECTION, add, emit
from pythia_tools.core import progress
from pythia_tools.core.errors import EXIT_DONE, EXIT_FOUND, RequestError
from pythia_tools.core.files import human_bytes
from pythia_tools.hub import client
from pythia_tools.hub.repositories import WORKERS


def configure(parser: argparse.ArgumentParser) -> None:
    add(parser, "suite", help="a suite's name or a manifest path")
    add(parser, *SELECTION, "--budget")
    add(parser, "--workers", default=WORKERS, help=f"files at a time (default: {WORKERS})")
    parser.add_argument("--verify", action="store_true", help="compare what is already there with its digests")
    pins = parser.add_mutually_exclusive_group()
    pins.add_argument("--pin", action="store_const", const=True, help="never evict these for a budget")
    pins.add_argument("--unpin", action="store_const", const=False, dest="pin", help="these may be evicted again")
    parser.add_argument("--skip-missing", action="store_true", help="leave out checkpoints that the hub does not have")
    add(parser, "--dry-run")


def run(args: argparse.Namespace) -> int:
    suite = suites.load_suite(args.suite)
    if suite.folder is not None:
        raise RequestError(f"{suite.name} lies in {suite.folder} already; only suites on the hub are downloaded")
    budget = hub.default_budget() if args.budget is None else args.budget
    checkpoints = suite.checkpoints(
        args.models, args.steps, allow_defective=args.allow_defective, leave_out_defective=args.leave_out_defective
    )
    todo, cache = hub.plan(checkpoints), client.cache_root()
    peak = min(todo.disk_peak, budget) if budget else todo.disk_peak
    trusted = 0 if args.verify else todo.trusted
    summary = {
        "checkpoints": len(checkpoints), "files_to_fetch": len(todo.missing), "bytes_to_fetch": todo.bytes,
        "bytes_cached": todo.already, "bytes_compared_by_size": trusted, "disk_peak": peak,
        "budget": budget, "cache": str(cache), "missing_on_hub": list(todo.problems),
    }
    if args.dry_run:
        shown = [
            f"checkpoints     {len(checkpoints)}",
            f"to fetch        {human_bytes(todo.bytes)} in {len(todo.missing)} files",
            f"cached already  {human_bytes(todo.already)}\ndisk peak       {human_bytes(peak)} in {cache}",
        ]
        if todo.problems:
            shown.append(f"missing         {len(todo.problems)} checkpoints; --skip-missing leaves them out")
        emit(summary, args, "\n".join([*shown, *(f"  {problem}" for problem in todo.problems[:20])]))
        return EXIT_FOUND if todo.problems else EXIT_DONE
    if todo.problems and args.skip_missing:
        for problem in todo.problems:
            progress.warn(problem)
        checkpoints = [c for c in checkpoints if not any(p.startswith(f"{c}: ") for p in todo.problems)]
        todo = hub.plan(checkpoints)
    if gone := hub.delete_unfinished():  # a day old or older; the client never removes its own
        progress.note(f"deleted {len(gone)} unfinished downloads, {human_bytes(sum(size for _, size in gone))}")
    if args.verify:
        for entry in todo.listings:
            for name in hub.drop_damaged(entry):
                progress.warn(f"{entry.repo}@{entry.revision}/{name}: the cached copy is damaged; fetching it again")
        todo = hub.plan(checkpoints)
    folders = hub.download(checkpoints, budget=budget, workers=args.workers, pin=args.pin, made=todo)
    said = [f"{human_bytes(todo.bytes)} fetched", f"{human_bytes(todo.already)} were there"]
    if trusted:
        said.append(f"digests verified but of {human_bytes(trusted)}, which were verified when they came and compared "
                    "by size now: --verify reads them again")
    else:
        said.append("all sizes and digests verified")
    emit({**summary, "folders": [str(f) for f in folders]}, args,
         f"{len(folders)} checkpoints are in {cache}: {'; '.join(said)}")
    return EXIT_DONE
