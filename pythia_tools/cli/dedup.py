"""Near-duplicate clusters of documents: which are kept, which dropped, and why.

examples:
  pythia-tools dedup corpus.jsonl.zst more/ --threshold 0.87 --out runs/dedup
  pythia-tools dedup corpus.jsonl --preset datasketch --verify --keep longest --out runs/dedup
  pythia-tools dedup --report runs/dedup
  pythia-tools dedup --report runs/dedup --store data/train --order data/train.yaml
  pythia-tools dedup --runs 50 --store data/train          # second measure: shared runs of 50 tokens and more

Stopped at any point, the same command resumes. The kept documents are in OUT/kept, the dropped ones in OUT/dropped with
their cluster, the kept member and the similarity to it.
"""

import argparse
from dataclasses import fields
from typing import Any

import pandas as pd

from pythia_tools.cli.options import INPUTS, add, at_least, emit, positive, recorded, require_out
from pythia_tools.core.errors import RequestError
from pythia_tools.dedup.config import PRESETS, DedupConfig, preset

LSH = {"num_perm", "seed", "scheme", "hashing", "bands", "rows", "verify", "judged"}
"""Options that only method lsh has."""


def configure(parser: argparse.ArgumentParser) -> None:
    flag = parser.add_argument
    clustering = "components: chains of near-duplicates (default); stars: each within the threshold of the one kept"
    add(parser, "inputs", nargs="*", help=f"{INPUTS}; documents are read in this order")
    flag("--preset", choices=sorted(PRESETS), help="exact (default), datasketch (128 hashes), pile_dedupe (10)")
    flag("--threshold", type=float, help="Jaccard similarity of sets of shingles, above 0 to 1 (default: 0.87)")
    flag("--method", choices=["exact", "lsh"], help="exact finds every pair; lsh what shares a band of MinHash values")
    flag("--ngram", type=positive, help="units per shingle (default: 5)")
    flag("--unit", choices=["word", "char", "token"], help="what a unit is (default: word, as str.split)")
    add(parser, "--tokenizer", help="for --unit token: a tokenizer.json, its folder, or a hub name")
    flag("--num-perm", type=positive, help="lsh: permutations (default: 128)")
    flag("--seed", type=int, help="lsh: seed of the permutations (default: 1)")
    flag("--scheme", choices=["affine32", "legacy"], help="lsh: datasketch's since 2.0 (default), or before")
    flag("--hashing", choices=["sha1", "mix64"], help="lsh: datasketch's (default), or our own, twice as fast")
    flag("--bands", type=positive, help="lsh: bands (default: chosen for the threshold as datasketch does)")
    flag("--rows", type=positive, help="lsh: rows of a band")
    flag("--verify", action="store_true", default=None, help="lsh: join documents only on exact similarity")
    flag("--judged", type=at_least(0), help="lsh: documents judged exactly, to estimate recall (default: 500)")
    flag("--clustering", choices=["components", "stars"], help=clustering)
    flag("--keep", choices=["first", "last", "longest"], help="which member of a cluster stays (default: first)")
    add(parser, "--text-key", "--id-key")
    flag("--group-by", help="metadata field that says a document's kind (default: the ending of its id)")
    flag("--pack", choices=["none", "gz", "zst"], default="none", help="packing of the files written")
    flag("--part-mb", type=positive, default=64, help="text per part, in MB (default: 64)")
    flag("--memory-mb", type=positive, default=1024, help="lsh: memory of one task's buckets, in MB (default: 1024)")
    flag("--backend", choices=["local", "ray"], default="local", help="where tasks run; ray is an optional package")
    flag("--report", metavar="DIR", help="show a finished deduplication instead of making one")
    flag("--store", metavar="PREFIX", help="with --report: the store that `data tokenize` wrote of these documents")
    add(parser, "--order", help="with --report and --store: exposures under this order, before and after")
    flag("--runs", type=positive, metavar="N", help="with --store: runs of N tokens and more that sequences share")
    flag("--step", type=int, help="with --order: checkpoint (default: the last)")
    add(parser, "--workers", "--out")


def run(args: argparse.Namespace) -> None:
    if args.runs:
        return _runs(args)
    if args.report:
        return _report(args)
    if not args.inputs:
        raise RequestError("no INPUT; give files, folders or dataset:NAME, or --report DIR of a finished run")
    from pythia_tools.dedup.stages import run_stages

    out = require_out(args)
    result = run_stages(
        args.inputs, out, config_of(args), backend=args.backend, workers=args.workers, request=recorded("dedup", args),
    )
    read = {"inputs": result.inputs, "documents": result.documents, "kept": result.documents - result.dropped}
    lost = {"dropped": result.dropped, "dropped_below_threshold": result.below_threshold}
    emit({**read, **lost, "clusters": result.clusters, "out": str(result.folder)}, args)


def config_of(args: argparse.Namespace) -> DedupConfig:
    """The options as a config: the preset's, changed by what was given."""
    names = {field.name for field in fields(DedupConfig)} - {"pack"}
    given = {name: value for name, value in vars(args).items() if name in names and value is not None}
    wrong = sorted(LSH & given.keys())
    if wrong and args.preset is None and given.get("method", "exact") == "exact":
        raise RequestError(f"--{wrong[0].replace('_', '-')} is for method lsh; say --method lsh or --preset datasketch")
    sizes = {"part_bytes": args.part_mb << 20, "memory_bytes": args.memory_mb << 20}
    return preset(args.preset or "exact", **given, **sizes, pack="" if args.pack == "none" else f".{args.pack}")


def _runs(args: argparse.Namespace) -> None:
    if not args.store:
        raise RequestError("--runs needs --store PREFIX: a token store whose sequences are compared")
    from pythia_tools.core.files import atomic_write
    from pythia_tools.dedup.substrings import repeated_runs, run_shares
    from pythia_tools.tokens import open_store

    store = open_store(args.store)
    runs = repeated_runs(store, args.runs, memory_bytes=args.memory_mb << 20)
    if args.out:
        with atomic_write(args.out if args.out.endswith(".parquet") else f"{args.out}/runs.parquet") as handle:
            runs.to_parquet(handle, index=False)
    emit(run_shares(runs, len(store), store.n_tokens), args)


def _report(args: argparse.Namespace) -> None:
    from pythia_tools.core.results import load_run
    from pythia_tools.dedup import report
    from pythia_tools.dedup.stages import stored_parts

    signed, clusters = stored_parts(args.report)
    run_ = load_run(args.report)
    totals = run_.summary[run_.summary["metric"] != "dropped_of_kind"].set_index("metric").value
    parts: dict[str, Any] = {
        "totals": totals.to_dict(), "made_with": run_.record["dedup"], "cluster_sizes": report.size_table(clusters),
        "kinds": report.kind_table(signed, clusters).head(20), "largest_clusters": report.largest_clusters(run_.items),
    }
    if args.order or args.store:
        parts |= _effect(args)
    if args.json:
        tables = {k: v.to_dict("records") for k, v in parts.items() if isinstance(v, pd.DataFrame)}
        return emit({**parts, **tables}, args)
    for name, part in parts.items():
        table = part if isinstance(part, pd.DataFrame) else pd.DataFrame(part.items())
        print(f"\n{name.replace('_', ' ')}")
        print(table.to_string(index=False, header=table is part, max_colwidth=60, float_format="{:g}".format))


def _effect(args: argparse.Namespace) -> dict[str, Any]:
    if not (args.order and args.store):
        raise RequestError("--order and --store come together: the order, and the store whose documents it orders")
    from pythia_tools.dedup.effect import effect_summary, exposure_effect
    from pythia_tools.order import load_order
    from pythia_tools.tokens.tokenize import read_provenance

    provenance = read_provenance(args.store)
    effect = exposure_effect(args.report, load_order(args.order), provenance, step=args.step)
    tokens = int(provenance.tokens.sum())
    table = effect_summary(effect, tokens)
    return {"tokens": {"before": tokens, "removed": table.attrs["tokens_removed"]}, "exposures": table}
