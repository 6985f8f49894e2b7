"""GPT-NeoX's index maps for a token store, and a manifest beside them, so that the store is an order.

example:
  pythia-tools data build-order data/train --seq-length 2048 --batch-rows 1024 --steps 143000 --seed 1234

Writes PREFIX_train_0_indexmap_….npy (doc, sample, shuffle) and PREFIX.order.yaml (PREFIX.valid.order.yaml for --part
valid). From then on PREFIX is the name of that order: `pythia-tools data batch PREFIX --step 0`.
"""

import argparse

import numpy as np
import yaml

from pythia_tools.cli.options import add, emit, positive
from pythia_tools.core import files, progress
from pythia_tools.core.errors import RequestError
from pythia_tools.order import MapName, build_index_maps, save_maps, store_digest
from pythia_tools.order.layout import num_samples, split_documents
from pythia_tools.order.load import manifest_beside, tokenizer_beside
from pythia_tools.order.verify import recorded_sums, store_files
from pythia_tools.tokens import open_store
from pythia_tools.tokens.store import prefix_of

PARTS = ("train", "valid", "test")


def configure(parser: argparse.ArgumentParser) -> None:
    steps = "steps of the run; 1.005 times its rows are asked for, as GPT-NeoX does, or with --split its rows"
    split = 'part the documents as GPT-NeoX does with one data-path, as in "969,30,1"'
    parser.add_argument("prefix", metavar="PREFIX", help="the store: PREFIX.idx beside PREFIX.bin or its shards")
    parser.add_argument("--seq-length", type=positive, default=2048, metavar="L", help="inputs per row (default 2048)")
    add(parser, "--batch-rows", default=1024, help="rows per step (default 1024)")
    parser.add_argument("--steps", type=positive, metavar="N", help=steps)
    parser.add_argument("--num-samples", type=positive, metavar="N", help="rows to ask for, instead of --steps")
    parser.add_argument("--seed", type=int, default=1234, help="default 1234, Pythia's")
    parser.add_argument("--split", metavar="S", help=f"{split}: see --part")
    parser.add_argument("--part", choices=PARTS, default="train", help="which part of --split (default train)")
    parser.add_argument("--separate-last-epoch", action="store_true", help="shuffle as Megatron-LM does, not GPT-NeoX")


def run(args: argparse.Namespace) -> None:
    if (args.steps is None) == (args.num_samples is None):
        raise RequestError("give --steps or --num-samples, one of the two")
    prefix = prefix_of(args.prefix)
    store = open_store(prefix)
    documents, name = np.arange(len(store), dtype=np.int32), f"{args.part}_0"
    samples = args.num_samples or num_samples(args.steps, args.batch_rows)
    if args.split:  # one data-path: no margin of rows, and names without a number
        ends, part = split_documents(args.split, len(store)), PARTS.index(args.part)
        documents, name = documents[ends[part] : ends[part + 1]], args.part
        samples = args.num_samples or args.steps * args.batch_rows
        if not len(documents):
            raise RequestError(f"--split {args.split} leaves none of {len(store)} documents to --part {args.part}")
    maps = build_index_maps(
        store.sizes, args.seq_length, args.seed, samples, documents, separate_last_epoch=args.separate_last_epoch,
    )
    paths = save_maps(maps, MapName(prefix, samples, args.seq_length, args.seed, name))
    manifest = manifest_beside(prefix, args.part)
    rows, epochs = len(maps.shuffle_idx), len(maps.doc_idx) // len(documents)
    steps = args.steps or rows // args.batch_rows
    files.write_text(manifest, yaml.safe_dump({
        "name": manifest.name.removesuffix(".order.yaml"), "kind": "packed", "seq_length": args.seq_length,
        "batch_rows": args.batch_rows, "steps": steps, "rows": rows, "dtype": store.dtype.name, "seed": args.seed,
        "num_samples": samples, "separate_last_epoch": args.separate_last_epoch, "store": {
            "prefix": prefix.name, "digest": store_digest(store),
            "sha256": recorded_sums(prefix) or {p.name: files.sha256_file(p) for p in store_files(prefix)},
        },
        "maps": {"folder": ".", "stem": prefix.name, "name": name},
        **({"tokenizer": tokenizer.name} if (tokenizer := tokenizer_beside(prefix)) else {}),
    }, sort_keys=False))
    made = {"manifest": str(manifest), "maps": [str(p) for p in paths.values()]}
    sizes = {"rows": rows, "steps": steps, "epochs": epochs, "num_samples": samples}
    emit({**made, **sizes}, args, str(manifest))
    progress.note(f"{rows} rows in {epochs} epoch(s), {steps} steps of {args.batch_rows}")
