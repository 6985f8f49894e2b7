"""Everything of a suite but its models: tokenizer, token stores, index maps, truth.

Real text, generated sentences and canaries become documents; the layout says where each lands; contents are filled in;
then every planted exposure is read back through the order and counted. Cost: about 12 s for the default recipe, half of
it parsing and deduplicating the library.
"""

import itertools
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from pythia_tools.core import files, progress
from pythia_tools.core.errors import RequestError
from pythia_tools.micro import planted, words
from pythia_tools.micro.corpus import Text, collect
from pythia_tools.micro.layout import Layout, TooLittleText, lay_out, place_bursts
from pythia_tools.micro.planted import Canary, Document, Items
from pythia_tools.micro.recipe import Recipe
from pythia_tools.micro.suite_runs import write_recipe
from pythia_tools.micro.tokenizer import save_tokenizer, train_tokenizer
from pythia_tools.micro.truth import read_back, truth_tables, write_truth
from pythia_tools.micro.windows import distinct_windows, training_hashes
from pythia_tools.order import IndexMaps, MapName, load_order, save_maps, store_digest
from pythia_tools.tokens import StoreWriter, Tokenizer, open_store

CHARS_PER_TOKEN = 2.7
"""More than the tokenizer reaches, so that enough text is read."""
REAL_SHARES = (0.75, 2.0)
"""Real text to read, as a share of the run's tokens; the second where few planted rows leave more to real text."""

DRAWS = {
    "facts": 0, "sums": 1, "pronouns": 2, "pack": 3, "layout": 4, "slots": 5, "background": 100, "windows": 101,
    "heldout": 102,
}
"""Independent streams of random numbers, so that changing one part of a recipe leaves the others as they were."""


Pieces = list[np.ndarray]
"""Stretches of token ids."""


def build(recipe: Recipe, folder: Path) -> None:
    """Fill `folder`: tokenizer/, data/, order.yaml, truth/, recipe.json. Raises: RequestError if it does not fit."""
    try:
        _build(recipe, folder, REAL_SHARES[0])
    except TooLittleText:
        _build(recipe, folder, REAL_SHARES[1])
    write_recipe(folder, recipe)


def _build(recipe: Recipe, folder: Path, real_share: float) -> None:
    facts = planted.make_facts(recipe, _rng(recipe, "facts"))
    sums = planted.make_sums(recipe, _rng(recipe, "sums"))
    items = Items(facts, sums, *planted.make_pronouns(recipe, _rng(recipe, "pronouns")))

    progress.note("micro: reading the standard library")
    texts = collect(*_chars(recipe, real_share), recipe.dedup_threshold)
    engine = train_tokenizer(_tokenizer_texts(texts), recipe.vocab, words.single_token_words())
    tokenizer = save_tokenizer(engine, folder / "tokenizer", recipe.seq_length)

    progress.note("micro: planting")
    background, tails, windows, heldout = _real_text(recipe, texts, tokenizer)
    documents = _generated(recipe, items, tokenizer, tails)
    canaries = [
        Canary(i, copies, burst, tokenizer.decode(window), window.astype(np.int32))
        for i, (window, (copies, burst)) in enumerate(zip(windows, recipe.canaries.plan, strict=True))
    ]
    layout, contents = _fill(recipe, background, documents, canaries)
    _write_data(recipe, folder, layout, contents, heldout)
    order = load_order(folder / "order.yaml")
    rows = order.rows(0, recipe.rows)[:, : recipe.seq_length]
    tables, about = truth_tables(recipe, read_back(layout, contents, rows), canaries, items, rows, tokenizer)
    about |= {
        "order_fingerprint": order.fingerprint, "tokens": int(layout.sizes.sum()),
        "texts": len(texts), "modules": len({t.source for t in texts}),
    }
    templates = {"training": list(words.TRAINING_TEMPLATES), "heldout": list(words.HELDOUT_TEMPLATES)}
    write_truth(folder / "truth", tables, templates, about)


def _rng(recipe: Recipe, use: str) -> np.random.Generator:
    return np.random.default_rng([recipe.seed, DRAWS[use]])


def _chars(recipe: Recipe, real_share: float) -> tuple[int, int]:
    """Characters of training and held-out text to read: more than the run can use."""
    train = recipe.num_samples * recipe.seq_length * CHARS_PER_TOKEN * real_share
    windows = 4 * len(recipe.canaries.plan) + 1.5 * recipe.heldout_rows
    return int(train) + 50_000, int(windows * (recipe.seq_length + 1) * CHARS_PER_TOKEN) + 20_000


def _tokenizer_texts(texts: list[Text]) -> Iterable[str]:
    """Half of the training text, and the frames of the generated part (names alike often, whatever their mentions)."""
    yield from (t.text for t in [t for t in texts if not t.heldout][::2])
    yield from ["".join(f" {n}" for n in words.names())] * 60
    yield from ["\n".join(words.TRAINING_TEMPLATES).replace("{", "").replace("}", "")] * 60


def _real_text(recipe: Recipe, texts: list[Text], tokenizer: Tokenizer) -> tuple[Pieces, Pieces, Pieces, Pieces]:
    """Whole documents (multiples of a row), their left-over tails, canary windows and held-out rows, tokenized.

    Every other held-out document gives canary windows, the others held-out rows; training gives the rest.
    """
    length, longest = recipe.seq_length, recipe.seq_length * recipe.max_document_rows
    encoded = [np.array(ids, dtype=np.uint16) for ids in tokenizer.ids(t.text for t in texts)]
    training = [ids for ids, text in zip(encoded, texts, strict=True) if not text.heldout]
    heldout = [ids for ids, text in zip(encoded, texts, strict=True) if text.heldout]
    whole = [ids[: len(ids) // length * length] for ids in training]
    pieces = [ids[a : a + longest] for ids in whole for a in range(0, len(ids), longest)]
    tails = [ids[len(ids) // length * length :] for ids in training]
    windows = distinct_windows(heldout[::2], length, training_hashes(pieces))
    rows = [ids[a : a + length + 1] for ids in heldout[1::2] for a in range(0, len(ids) - length, length + 1)]
    need = len(recipe.canaries.plan)
    if len(windows) < need:
        have = f"the library gives {len(windows)} distinct held-out windows"
        raise RequestError(f"recipe: canaries: {need} are planted, {have}; plant fewer")
    if len(rows) < recipe.heldout_rows:
        raise RequestError(f"recipe: heldout_rows is {recipe.heldout_rows}; the library gives {len(rows)}")

    def drawn(use: str, among: Pieces, count: int) -> Pieces:
        return [among[i] for i in _rng(recipe, use).permutation(len(among))[:count]]

    background, heldout = drawn("background", pieces, len(pieces)), drawn("heldout", rows, recipe.heldout_rows)
    return background, tails, drawn("windows", windows, need), heldout


def _generated(recipe: Recipe, items: Items, tokenizer: Tokenizer, tails: Pieces) -> list[Document]:
    newline = tokenizer.one_id("\n")
    filler = itertools.cycle([*itertools.chain.from_iterable(tails)] or [newline])
    encode, rng = cache(tokenizer.encode), _rng(recipe, "pack")
    return [
        document for kind, sentences in items.sentences().items()
        for document in planted.pack(
            kind, [(item, encode(text)) for item, text in sentences], recipe.seq_length, newline, filler, rng,
        )
    ]


def _fill(
    recipe: Recipe, background: Pieces, documents: list[Document], canaries: list[Canary],
) -> tuple[Layout, list[Document]]:
    """The layout, and the content of every document of it."""
    length = recipe.seq_length
    whole = [Document(c.tokens, [("canary", c.canary, 0, length)]) for c in canaries]
    spread = [whole[c.canary] for c in canaries if c.burst is None for _ in range(c.copies)]
    needed = len(documents) + sum(c.copies for c in canaries)
    spare = 32 + needed // 40  # some one-row documents land in rows that the run does not consume
    layout = lay_out(recipe, [len(b) // length for b in background], needed + spare, _rng(recipe, "layout"))
    contents: dict[int, Document] = {}
    bursts = [c for c in canaries if c.burst is not None]
    for canary, places in zip(bursts, place_bursts(recipe, layout), strict=True):
        contents |= dict.fromkeys(places, whole[canary.canary])
    free = [int(d) for d in layout.slots if d not in contents]
    chosen = [*documents, *spread]
    if len(free) < len(chosen):
        raise RequestError(f"recipe: {len(chosen)} planted rows found {len(free)} places; train more steps")
    for place, content in zip(_rng(recipe, "slots").permutation(len(free)), chosen, strict=False):
        contents[free[place]] = content
    _fill_with_real_text(layout.sizes.tolist(), contents, background)
    return layout, [contents[d] for d in range(len(layout.sizes))]


def _fill_with_real_text(sizes: list[int], contents: dict[int, Document], background: Pieces) -> None:
    """Real text in the documents that are still empty, each piece once: long ones first, then one-row ones."""
    pieces = iter(background)
    rest = np.empty(0, dtype=np.uint16)
    for d in sorted((d for d in range(len(sizes)) if d not in contents), key=lambda d: -sizes[d]):
        while len(rest) < sizes[d]:
            piece = next(pieces, None)
            if piece is None:
                raise TooLittleText("recipe: the standard library has too little text for this run; train fewer steps")
            rest = np.concatenate([rest, piece]) if len(piece) < sizes[d] else piece
        contents[d] = Document(rest[: sizes[d]])
        rest = rest[sizes[d] :]


def _write_data(recipe: Recipe, folder: Path, layout: Layout, contents: list[Document], heldout: Pieces) -> None:
    prefix = folder / "data" / "train"
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with StoreWriter(prefix, np.uint16) as out:
        out.add_documents(np.concatenate([c.tokens for c in contents]), layout.sizes)
    with StoreWriter(prefix.with_name("heldout"), np.uint16) as out:
        out.add_documents(np.concatenate(heldout), [len(r) for r in heldout])
    save_maps(IndexMaps(*layout.maps), MapName(prefix, recipe.num_samples, recipe.seq_length, recipe.seed))
    manifest = {
        "name": recipe.name, "kind": "packed", "seq_length": recipe.seq_length, "batch_rows": recipe.batch_rows,
        "steps": recipe.steps, "dtype": "uint16",
        "store": {"prefix": "data/train", "digest": store_digest(open_store(prefix))},
        "maps": {"folder": "data", "stem": "train"}, "seed": recipe.seed, "num_samples": recipe.num_samples,
        "documents": len(layout.sizes),
        "about": "standard library text with planted canaries, facts, sums and pronoun sentences, in GPT-NeoX order",
    }
    files.write_text(folder / "order.yaml", yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True))
