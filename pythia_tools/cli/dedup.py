"""Near-duplicate clusters of documents: which are kept, which dropped, and why.

examples:
  pythia-tools dedup corpus.jsonl.zst more/ --threshold 0.87 --out runs/dedup
  pythia-tools dedup corpus.jsonl --preset datasketch --verify --keep longest --out runs/dedup
  pythia-tools dedup --report runs/dedup
  pythia-tools dedup --report runs/dedup --store data/train --order data/train.yaml
  pythia-tools dedup --runs 50 --store data/train          # second measure: shared runs of 50 tokens and more

Stopped at any point, the same command goes on. The kept documents are in OUT/kept, the dropped ones in OUT/dropped with
their cluster, the kept member and the similarity to it.
"""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd

from pythia_tools.cli.options import add_output, emit, positive, recorded, require_out
from pythia_tools.core.errors import RequestError
from pythia_tools.dedup.config import PRESETS, DedupConfig, preset

_OPTIONS = ("method", "threshold", "ngram", "unit", "tokenizer", "num_perm", "seed", "scheme", "hashing", "bands", "rows", "verify", "keep",
            "text_key", "id_key", "group_by")


def configure(parser: argparse.ArgumentParser) -> None:
    kinds = "jsonl or text (plain, .gz, .zst), parquet, a folder, or dataset:NAME[:CONFIG][@SPLIT]"
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help=kinds)
    parser.add_argument("--preset", choices=sorted(PRESETS), help="exact (default), datasketch (128 hashes), pile_dedupe (10, last kept)")
    parser.add_argument("--threshold", type=float, help="Jaccard similarity of sets of shingles, above 0 to 1 (default: 0.87)")
    parser.add_argument("--method", choices=["exact", "lsh"], help="exact finds every pair; lsh what shares a band of MinHash values")
    parser.add_argument("--ngram", type=positive, help="units per shingle (default: 5)")
    parser.add_argument("--unit", choices=["word", "char", "token"], help="what a unit is (default: word, as str.split)")
    parser.add_argument("--tokenizer", help="tokenizer.json, folder or hub name, for --unit token")
    parser.add_argument("--num-perm", type=positive, help="lsh: permutations (default: 128)")
    parser.add_argument("--seed", type=int, help="lsh: seed of the permutations (default: 1)")
    parser.add_argument("--scheme", choices=["affine32", "legacy"], help="lsh: datasketch's since 2.0 (default), or before")
    parser.add_argument("--hashing", choices=["sha1", "mix64"], help="lsh: datasketch's (default), or our own, twice as fast")
    parser.add_argument("--bands", type=positive, help="lsh: bands (default: chosen for the threshold as datasketch does)")
    parser.add_argument("--rows", type=positive, help="lsh: rows of a band")
    parser.add_argument("--verify", action="store_true", default=None, help="lsh: join documents only on exact similarity")
    parser.add_argument("--keep", choices=["first", "last", "longest"], help="which member of a cluster stays (default: first)")
    parser.add_argument("--text-key", help="field of a record that holds the text (default: text)")
    parser.add_argument("--id-key", help="field that holds the document's id (default: id, else source:position)")
    parser.add_argument("--group-by", help="metadata field that says a document's kind (default: the ending of its id)")
    parser.add_argument("--pack", choices=["none", "gz", "zst"], default="none", help="packing of the files written")
    parser.add_argument("--part-mb", type=positive, default=64, help="text per part, in MB (default: 64)")
    parser.add_argument("--memory-mb", type=positive, default=1024, help="lsh: memory for one task's buckets, in MB (default: 1024)")
    parser.add_argument("--backend", choices=["local", "ray"], default="local", help="where tasks run; ray is an optional package")
    parser.add_argument("--workers", type=positive, help="threads (default: all processors)")
    parser.add_argument("--report", metavar="DIR", help="show a finished deduplication instead of making one")
    parser.add_argument("--order", help="with --report: exposures under this order, before and after (needs --store)")
    parser.add_argument("--store", metavar="PREFIX", help="with --report: the store that `data tokenize` wrote of the same documents")
    parser.add_argument("--runs", type=positive, metavar="N", help="with --store: runs of N tokens and more that sequences share")
    parser.add_argument("--step", type=int, help="with --order: checkpoint (default: the last)")
    parser.add_argument("--order-seed", type=int, default=1234, help="with --order: seed of the order after (default: 1234)")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    if args.runs:
        return _runs(args)
    if args.report:
        return _report(args)
    if not args.inputs:
        raise RequestError("no INPUT; give files, folders or dataset:NAME, or --report DIR for a finished deduplication")
    from pythia_tools.dedup.stages import run_stages

    out = require_out(args)
    result = run_stages(
        args.inputs, out, config_of(args), backend=args.backend, workers=args.workers, request=recorded("dedup", args),
    )
    emit({
        "documents": result.documents, "kept": result.documents - result.dropped, "dropped": result.dropped,
        "clusters": result.clusters, "out": str(result.folder),
    }, as_json=args.json)
    return 0


def config_of(args: argparse.Namespace) -> DedupConfig:
    """The options as a config: the preset's, changed by what was given."""
    given = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    if args.preset is None and given.get("method", "exact") == "exact":
        wrong = sorted({"num_perm", "seed", "scheme", "hashing", "bands", "rows", "verify"} & given.keys())
        if wrong:
            raise RequestError(f"--{wrong[0].replace('_', '-')} is for method lsh; say --method lsh or --preset datasketch")
    pack = "" if args.pack == "none" else f".{args.pack}"
    return preset(args.preset or "exact", **given, pack=pack, part_bytes=args.part_mb << 20, memory_bytes=args.memory_mb << 20)


def _runs(args: argparse.Namespace) -> int:
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
    emit(run_shares(runs, len(store), store.n_tokens), as_json=args.json)
    return 0


def _report(args: argparse.Namespace) -> int:
    from pythia_tools.core.results import load_run
    from pythia_tools.dedup import report
    from pythia_tools.dedup.stages import stored_parts

    signed, clusters = stored_parts(args.report)
    run_ = load_run(args.report)
    totals = run_.summary[run_.summary.group == "all"].set_index("metric").value
    parts: dict[str, Any] = {
        "totals": totals.to_dict(), "made_with": run_.record["dedup"], "cluster_sizes": report.size_table(clusters),
        "kinds": report.kind_table(signed, clusters).head(20), "largest_clusters": report.largest_clusters(run_.items),
    }
    if args.order or args.store:
        parts |= _effect(args)
    if args.json:
        emit({k: v.to_dict("records") if isinstance(v, pd.DataFrame) else v for k, v in parts.items()}, as_json=True)
        return 0
    for name, part in parts.items():
        print(f"\n{name.replace('_', ' ')}")
        print(part.to_string(index=False, max_colwidth=60) if isinstance(part, pd.DataFrame) else _lines(part))
    return 0


def _effect(args: argparse.Namespace) -> dict[str, Any]:
    if not (args.order and args.store):
        raise RequestError("--order and --store come together: the order, and the store whose documents it orders")
    from pythia_tools.dedup.effect import effect_summary, exposure_effect
    from pythia_tools.order import load_order
    from pythia_tools.tokens.tokenize import read_provenance

    provenance = read_provenance(args.store)
    effect = exposure_effect(args.report, load_order(args.order), provenance, step=args.step, seed=args.order_seed)
    table = effect_summary(effect, int(provenance.tokens.sum()))
    return {"tokens": {"before": int(provenance.tokens.sum()), "removed": table.attrs["tokens_removed"]}, "exposures": table}


def _lines(values: dict[str, Any]) -> str:
    return "\n".join(f"  {k}: {v:g}" if isinstance(v, float) else f"  {k}: {v}" for k, v in values.items())
