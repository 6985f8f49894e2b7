"""Everything of a suite but its models: tokenizer, token stores, index maps, truth.

Real text, generated sentences and canaries become documents; the layout says where each lands; contents are filled in;
then every planted exposure is read back through the order and counted. Cost: about 12 s for the default recipe, half of
it parsing and deduplicating the library.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pythia_tools.core import files, progress
from pythia_tools.core.errors import RequestError
from pythia_tools.micro import planted, words
from pythia_tools.micro.corpus import Text, collect
from pythia_tools.micro.layout import Layout, lay_out, place_bursts
from pythia_tools.micro.recipe import Recipe
from pythia_tools.micro.tables import truth_tables
from pythia_tools.micro.tokenizer import save_tokenizer, train_tokenizer
from pythia_tools.micro.truth import write_truth
from pythia_tools.micro.windows import distinct_windows, training_hashes
from pythia_tools.order import IndexMaps, MapName, load_order, save_maps
from pythia_tools.tokens import StoreWriter

CHARS_PER_TOKEN = 2.7
"""More than the tokenizer reaches, so that enough text is read."""

DRAWS = ("facts", "sums", "pronouns", "pack", "layout", "slots", "canaries")
"""Independent streams of random numbers, so that changing one part of a recipe leaves the others as they were."""


@dataclass
class Material:
    """Tokenized real text: whole documents (multiples of a row), left-over tails, and held-out windows."""

    background: list[np.ndarray]
    tails: list[np.ndarray]
    canaries: list[np.ndarray]
    heldout: list[np.ndarray]


@dataclass
class Canary:
    """One canary: its window, how often it is planted, and the checkpoint its burst precedes (None: spread evenly)."""

    tokens: np.ndarray
    copies: int
    burst: int | None


def build(recipe: Recipe, folder: Path) -> None:
    """Fill `folder` with tokenizer/, data/, order.yaml, truth/. Raises: RequestError when the recipe does not fit."""
    rng = {name: np.random.default_rng([recipe.seed, i]) for i, name in enumerate(DRAWS)}
    facts = planted.make_facts(recipe, rng["facts"])
    sums = planted.make_sums(recipe, rng["sums"])
    occupations, sentences = planted.make_pronouns(recipe, rng["pronouns"])

    progress.note("micro: reading the standard library")
    texts = collect(*_chars(recipe), recipe.dedup_threshold)
    tokenizer = train_tokenizer(_tokenizer_texts(texts), recipe.vocab, words.single_token_words())
    save_tokenizer(tokenizer, folder / "tokenizer", recipe.seq_length)

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    progress.note("micro: planting")
    material = _material(recipe, texts, encode, tokenizer)
    documents = _generated(recipe, facts, sums, sentences, encode, material.tails, rng["pack"])
    canaries = _canaries(recipe, material.canaries, rng["canaries"])
    layout, contents = _fill(recipe, material.background, documents, canaries, rng)
    _write_data(recipe, folder, layout, contents, material.heldout)
    order = load_order(folder / "order.yaml")
    rows = order.rows(0, recipe.rows)[:, : recipe.seq_length]
    tables, about = truth_tables(recipe, layout, contents, canaries, facts, sums, occupations, rows, tokenizer)
    about |= {
        "order_fingerprint": order.fingerprint, "tokens": int(layout.sizes.sum()),
        "texts": len(texts), "modules": len({t.source for t in texts}),
    }
    templates = {"training": list(words.TRAINING_TEMPLATES), "heldout": list(words.HELDOUT_TEMPLATES)}
    write_truth(folder / "truth", tables, templates, about)


def _chars(recipe: Recipe) -> tuple[int, int]:
    """Characters of training and held-out text to read: more than the run can use."""
    train = recipe.num_samples * recipe.seq_length * CHARS_PER_TOKEN * 0.75
    windows = 4 * _canary_count(recipe) + 1.5 * recipe.heldout_rows
    return int(train) + 50_000, int(windows * (recipe.seq_length + 1) * CHARS_PER_TOKEN) + 20_000


def _canary_count(recipe: Recipe) -> int:
    spec = recipe.canaries
    return spec.controls + sum(n for _, n in spec.copies) + len(spec.burst_steps) * len(spec.burst_copies) * spec.burst_each


def _tokenizer_texts(texts: list[Text]) -> Iterable[str]:
    """Half of the training text, and the frames of the generated part (names alike often, whatever their mentions)."""
    yield from (t.text for t in [t for t in texts if not t.heldout][::2])
    names = "".join(f" {n}" for n in words.names())
    frames = "\n".join(words.TRAINING_TEMPLATES).replace("{", "").replace("}", "")
    yield from (names for _ in range(60))
    yield from (frames for _ in range(60))


def _material(recipe: Recipe, texts: list[Text], encode: planted.Encode, tokenizer: Any) -> Material:
    length, longest = recipe.seq_length, recipe.seq_length * recipe.max_document_rows
    background, tails, heldout_documents = [], [], []
    encoded = tokenizer.encode_batch([t.text for t in texts], add_special_tokens=False)
    for text, encoding in zip(texts, encoded, strict=True):
        ids = np.array(encoding.ids, dtype=np.uint16)
        if text.heldout:
            heldout_documents.append(ids)
            continue
        whole = len(ids) // length * length
        background += [ids[a : min(a + longest, whole)] for a in range(0, whole, longest)]
        tails.append(ids[whole:])
    order = np.random.default_rng([recipe.seed, 100]).permutation(len(background))
    background = [background[i] for i in order]
    need = _canary_count(recipe)
    windows = distinct_windows(heldout_documents[::2], length, training_hashes(background))
    if len(windows) < need:
        raise RequestError(f"recipe: canaries: {need} distinct held-out windows are needed, the library gives {len(windows)}; plant fewer")
    pick = np.random.default_rng([recipe.seed, 101]).permutation(len(windows))[:need]
    rows = [d[a : a + length + 1] for d in heldout_documents[1::2] for a in range(0, len(d) - length, length + 1)]
    if len(rows) < recipe.heldout_rows:
        raise RequestError(f"recipe: heldout_rows is {recipe.heldout_rows}, the library gives {len(rows)}; ask for fewer")
    chosen = np.random.default_rng([recipe.seed, 102]).permutation(len(rows))[: recipe.heldout_rows]
    return Material(background, tails, [windows[i] for i in pick], [rows[i] for i in chosen])


def _generated(
    recipe: Recipe, facts: list[planted.Fact], sums: list[planted.Sum], sentences: list[tuple[int, str]],
    encode: planted.Encode, tails: list[np.ndarray], rng: np.random.Generator,
) -> list[planted.Document]:
    newline = encode("\n")
    if len(newline) != 1:
        raise RequestError("recipe: the tokenizer splits a newline; give it more vocabulary")
    stream = np.concatenate([t for t in tails if len(t)] or [np.array(newline, dtype=np.uint16)])
    position = 0

    def filler(n: int) -> list[int]:
        nonlocal position
        taken = np.take(stream, range(position, position + n), mode="wrap").tolist()
        position += n
        return list(taken)

    cache: dict[str, list[int]] = {}

    def ids(text: str) -> list[int]:
        if text not in cache:
            cache[text] = encode(text)
        return cache[text]

    groups = {
        "fact": [(f.number, ids(f.sentence)) for f in facts for _ in range(f.mentions)],
        "sum": [(s.number, ids(s.sentence)) for s in sums for _ in range(s.mentions)],
        "pronoun": [(number, ids(text)) for number, text in sentences],
    }
    return [d for kind, items in groups.items() for d in planted.pack(kind, items, recipe.seq_length, newline[0], filler, rng)]


def _canaries(recipe: Recipe, windows: list[np.ndarray], rng: np.random.Generator) -> list[Canary]:
    spec = recipe.canaries
    plan: list[tuple[int, int | None]] = [(0, None)] * spec.controls
    plan += [(copies, None) for copies, n in spec.copies for _ in range(n)]
    plan += [(copies, step) for step in spec.burst_steps for copies in sorted(spec.burst_copies) for _ in range(spec.burst_each)]
    return [Canary(w, copies, burst) for w, (copies, burst) in zip(windows, plan, strict=True)]


def _fill(
    recipe: Recipe, background: list[np.ndarray], documents: list[planted.Document], canaries: list[Canary],
    rng: dict[str, np.random.Generator],
) -> tuple[Layout, list[planted.Document]]:
    """The layout, and the content of every document of it."""
    length = recipe.seq_length
    whole = [planted.Document(c.tokens, [("canary", i, 0, length)]) for i, c in enumerate(canaries)]
    spread = [whole[i] for i, c in enumerate(canaries) if c.burst is None for _ in range(c.copies)]
    in_bursts = sum(c.copies for c in canaries if c.burst is not None)
    needed = len(documents) + len(spread) + in_bursts
    spare = 32 + needed // 40  # some one-row documents land in rows that the run does not consume
    layout = lay_out(recipe, [len(b) // length for b in background], needed + spare, rng["layout"])
    contents: list[planted.Document | None] = [None] * len(layout.sizes)
    bursts = place_bursts(recipe, layout)
    for i, (_, _, places) in zip((i for i, c in enumerate(canaries) if c.burst is not None), bursts, strict=True):
        for d in places:
            contents[d] = whole[i]
    free = [int(d) for d in layout.slots if contents[d] is None]
    if len(free) < len(documents) + len(spread):
        raise RequestError(f"recipe: {len(documents) + len(spread)} planted rows found {len(free)} places; train more steps")
    where = rng["slots"].permutation(len(free))
    for d, content in zip(where, [*documents, *spread], strict=False):
        contents[free[d]] = content
    return layout, _real_text(layout, contents, background)


def _real_text(layout: Layout, contents: list[planted.Document | None], background: list[np.ndarray]) -> list[planted.Document]:
    """Real text into the documents that are still empty, each piece once: long ones in order, one-row ones from what is left."""
    wanted = [d for d, c in enumerate(contents) if c is None]
    pieces = iter(background)
    rest = np.empty(0, dtype=np.uint16)
    filled = list(contents)
    for d in sorted(wanted, key=lambda d: -int(layout.sizes[d])):
        size = int(layout.sizes[d])
        while len(rest) < size:
            piece = next(pieces, None)
            if piece is None:
                raise RequestError("recipe: the standard library has too little text for this run; train fewer steps")
            rest = np.concatenate([rest, piece]) if len(piece) < size else piece
        filled[d] = planted.Document(rest[:size])
        rest = rest[size:]
    return [c for c in filled if c is not None]


def _write_data(recipe: Recipe, folder: Path, layout: Layout, contents: list[planted.Document], heldout: list[np.ndarray]) -> None:
    prefix = folder / "data" / "train"
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with StoreWriter(prefix, np.uint16) as out:
        out.add_documents(np.concatenate([c.tokens for c in contents]), layout.sizes)
    with StoreWriter(folder / "data" / "heldout", np.uint16) as out:
        out.add_documents(np.concatenate(heldout), [len(r) for r in heldout])
    save_maps(IndexMaps(*layout.maps), MapName(prefix, recipe.num_samples, recipe.seq_length, recipe.seed))
    manifest = {
        "name": recipe.name, "kind": "packed", "seq_length": recipe.seq_length, "batch_rows": recipe.batch_rows, "steps": recipe.steps,
        "dtype": "uint16", "store": {"prefix": "data/train"}, "maps": {"folder": "data", "stem": "train"}, "seed": recipe.seed,
        "num_samples": recipe.num_samples, "documents": len(layout.sizes),
        "about": "standard library text with planted canaries, facts, sums and pronoun sentences, in GPT-NeoX order",
    }
    files.write_text(folder / "order.yaml", yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True))
