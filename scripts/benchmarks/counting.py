#!/usr/bin/env python3
"""Counting side by side: pythia_tools, tokengrams, an Aho-Corasick automaton, and the paper's rule by regular
expressions.

    python scripts/benchmarks/counting.py --tokenizer 20B_tokenizer.json --work /tmp/counting
    python scripts/benchmarks/counting.py --tokens 5000000 --skip tokengrams

Text of the installed Python packages (or --corpus) becomes rows of 2,049 tokens, 64 rows to a step. Every result is
compared, number for number, before its time is printed. CPU seconds are of the process and its threads, best of
--repeats.
"""

from __future__ import annotations

import argparse
import itertools
import re
import resource
import string
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pythia_tools import counts, load_order
from pythia_tools.core import progress
from pythia_tools.core.errors import PythiaToolsError
from pythia_tools.counts.pythia_rule import compile_rule, key_code, logged
from pythia_tools.counts.pythia_scan import DECODED, LARGEST, LOGGED, WINDOWS
from pythia_tools.counts.reading import blocks, reader
from pythia_tools.order import ArrayRows, DataOrder
from pythia_tools.tokens import StoreWriter, open_tokenizer

ROW, STEP_ROWS = 2049, 64
UNITS = "minute|hour|day|week|month|year|decade"
WORD = rf"(?:(?:\w|[{re.escape(string.punctuation)}])+\s+)"
NUMBERS = re.compile(rf"(?=( \d{{1,5}} {WORD}{{1,3}}\d{{1,5}}))")
TIMES = (
    re.compile(rf"(?=( \d{{1,5}} {WORD}{{0,3}}?(?:{UNITS})))"),
    re.compile(rf"(?=( (?:{UNITS}) {WORD}{{0,3}}?\d{{1,5}}))")
)


def main() -> int:
    args = _arguments()
    progress.set_quiet(True)
    work = Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = open_tokenizer(args.tokenizer).engine if args.tokenizer else _train(work, args.corpus)
    prefix = _tokens(work, tokenizer, args.corpus, args.tokens)
    order = load_order(prefix, batch_rows=STEP_ROWS)
    tokens = order.steps * STEP_ROWS * ROW
    print(
        f"{tokens:,} tokens, {order.steps} steps of {STEP_ROWS} rows of {ROW}; memory at the start {_peak():.0f} MB\n"
    )
    ngrams = mixed_ngrams(order, tokenizer, args.terms)
    table = [("task", "engine", "CPU s", "wall s", "Mtok/s CPU", "Mtok/s wall", "checked")]
    matrix = _ngram_lines(table, order, tokens, ngrams, args)
    if "tokengrams" not in args.skip:
        _tokengrams_lines(table, order, tokens, ngrams, matrix, work)
    _pair_lines(table, order, tokens, tokenizer, args)
    _text_lines(table, order, tokens, tokenizer, args)
    share = _paper_lines(table, order, tokens, tokenizer, args)
    _print(table)
    print(f"\nthe paper's rule: {100 * share:.2f} % of the tokens were decoded")
    _memory(prefix, ngrams)
    return 0


def mixed_ngrams(order: DataOrder, tokenizer: Any, wanted: int) -> list[tuple[int, ...]]:
    """100 numbers, 120 times (`5 days`), and n-grams of 2 to 5 tokens from the corpus."""
    units = ("minute", "hour", "day", "week", "month", "year", "decade", "minutes", "hours", "days", "weeks", "months")
    texts = [f" {n}" for n in range(100)] + [f" {n} {u}" for n in range(1, 11) for u in units]
    chosen = dict.fromkeys(tuple(e.ids) for e in tokenizer.encode_batch(texts, add_special_tokens=False))
    rng = np.random.default_rng(0)
    rows = order.rows(0, order.n_rows)
    while len(chosen) < wanted:
        row, at, size = int(rng.integers(len(rows))), int(rng.integers(ROW - 5)), int(rng.integers(2, 6))
        chosen[tuple(int(i) for i in rows[row, at:at + size])] = None
    return list(chosen)[:wanted]


def _ngram_lines(
    table: list[Any], order: DataOrder, tokens: int, ngrams: list[Any], args: argparse.Namespace
) -> np.ndarray:
    matrix = np.zeros(0)
    for workers in (1, 2):
        result, cpu, wall = timed(
            lambda w=workers: counts.count(order, ngrams, range(order.steps + 1), workers=w), args.repeats
        )
        if workers == 1:
            matrix = result.new[1:]
        assert (result.new[1:] == matrix).all()
        name = f"pythia_tools, {workers} thread{'s' * (workers > 1)}"
        table.append(_line(f"{len(ngrams)} n-grams per step", name, cpu, wall, tokens, f"{matrix.sum():,} hits"))
    return matrix


def _tokengrams_lines(
    table: list[Any], order: DataOrder, tokens: int, ngrams: list[Any], matrix: np.ndarray, work: Path
) -> None:
    """The index over the same rows; its hits that straddle two rows are dropped by `NgramIndex`."""
    import shutil

    from tokengrams import MemmapIndex

    folder = work / "index"
    shutil.rmtree(folder, ignore_errors=True)
    index, cpu, wall = timed(lambda: counts.build_ngram_index(order, folder), 1)
    table.append(_line(f"{len(ngrams)} n-grams per step", "tokengrams: build and open", cpu, wall, tokens, ""))
    _, cpu, wall = timed(lambda: MemmapIndex(str(folder / "rows.bin"), str(folder / "suffixes.idx")), 1)
    table.append(_line(f"{len(ngrams)} n-grams per step", "tokengrams: open", cpu, wall, tokens, ""))
    steps = range(order.steps + 1)
    found, cpu, wall = timed(lambda: np.stack([np.diff(index.exposures(n, steps)) for n in ngrams]), 1)
    assert (matrix == found.T).all(), "tokengrams and the pass differ"
    table.append(
        _line(
            f"{len(ngrams)} n-grams per step", "tokengrams: queries, index built", cpu, wall, tokens,
            "equal, cell by cell"
        )
    )


def _pair_lines(
    table: list[Any], order: DataOrder, tokens: int, tokenizer: Any, args: argparse.Namespace,
) -> None:
    terms = [counts.Number(str(n)) for n in range(100)]
    pairs = [counts.Pair(a, b, 5) for a, b in itertools.combinations_with_replacement(terms, 2)]
    for workers in (1, 2):
        found, cpu, wall = timed(
            lambda w=workers: counts.count(order, pairs, [order.steps], tokenizer=tokenizer, workers=w), args.repeats
        )
        name = f"pythia_tools, {workers} thread{'s' * (workers > 1)}"
        table.append(
            _line(
                "all pairs of 100 numbers in 5 words", name, cpu, wall, tokens, f"{int(found.matrix().sum()):,} pairs"
            )
        )
    sample = min(args.sample, order.n_rows)
    rows = order.rows(0, sample)
    direct, cpu, wall = timed(
        lambda: _direct_pairs(tokenizer.decode_batch(rows.tolist(), skip_special_tokens=False)), 1
    )
    got = counts.count(ArrayRows(rows, sample, tokenizer=tokenizer), pairs, [1], workers=1)
    wanted = [direct[tuple(sorted((p.first.digits, p.second.digits)))] for p in pairs]
    assert got.matrix()[:, 0].tolist() == wanted, "pairs differ from brute force"
    name = f"decode, str.split, brute force ({sample} rows)"
    table.append(_line("all pairs of 100 numbers in 5 words", name, cpu, wall, sample * ROW, "equal"))


def _direct_pairs(texts: list[str]) -> Counter[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        places = []
        for number, word in enumerate(text.split()):
            places += [(n, number) for n in re.findall("(?<![0-9])(?:[0-9]|[1-9][0-9])(?![0-9])", word)]
        for k, (a, at) in enumerate(places):
            for b, behind in reversed(places[:k]):
                if at - behind > 5:
                    break
                found[tuple(sorted((a, b)))] += 1
    return found


def _text_lines(
    table: list[Any], order: DataOrder, tokens: int, tokenizer: Any, args: argparse.Namespace,
) -> None:
    import ahocorasick

    sample = min(args.sample, order.n_rows)
    rows = order.rows(0, sample)
    texts = tokenizer.decode_batch(rows.tolist(), skip_special_tokens=False)
    words = [w for w, _ in Counter(re.findall(r"[A-Za-z]{4,12}", "".join(texts[:400]))).most_common(args.terms)]
    for workers in (1, 2):
        found, cpu, wall = timed(
            lambda w=workers: counts.count(order, words, [order.steps], tokenizer=tokenizer, workers=w), args.repeats
        )
        name = f"pythia_tools, {workers} thread{'s' * (workers > 1)}"
        table.append(_line(f"{len(words)} text terms", name, cpu, wall, tokens, f"{int(found.matrix().sum()):,} hits"))
    automaton = ahocorasick.Automaton()
    for n, word in enumerate(words):
        automaton.add_word(word, n)
    automaton.make_automaton()

    def run() -> np.ndarray:
        hits = np.zeros(len(words), dtype=np.int64)
        for text in tokenizer.decode_batch(rows.tolist(), skip_special_tokens=False):
            for _, n in automaton.iter(text):
                hits[n] += 1
        return hits

    hits, cpu, wall = timed(run, 1)
    got = counts.count(ArrayRows(rows, sample, tokenizer=tokenizer), words, [1], workers=1)
    assert (got.matrix()[:, 0] == hits).all(), "pyahocorasick and the pass differ"
    table.append(
        _line(f"{len(words)} text terms", f"decode, pyahocorasick ({sample} rows)", cpu, wall, sample * ROW, "equal")
    )


def _paper_lines(
    table: list[Any], order: DataOrder, tokens: int, tokenizer: Any, args: argparse.Namespace,
) -> float:
    rule, read = compile_rule(counts.token_bytes(tokenizer), 1 << 16, np.ones(LARGEST, np.uint8), False), reader(order)

    def every_key(spans: list[tuple[int, int]]) -> tuple[dict[int, int], np.ndarray]:
        """How often each key occurs, by its code, and the scan's statistics."""
        log, total = np.empty((1 << 18, 2), dtype=np.int64), np.zeros(4, dtype=np.int64)
        found = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        for a, b in spans:
            log, stats = logged(read(a, b), np.zeros(b - a, dtype=np.int64), rule, log)
            found.append(np.unique(log[: stats[LOGGED], 1], return_counts=True))
            total += stats
        codes, hits = map(np.concatenate, zip(*found, strict=True))
        keys, place = np.unique(codes, return_inverse=True)
        return dict(zip(keys.tolist(), np.bincount(place, hits).astype(int).tolist(), strict=True)), total

    (_, stats), cpu, wall = timed(lambda: every_key(blocks(order, 0, order.n_rows)), args.repeats)
    table.append(
        _line("the paper's rule, every key", "pythia_tools, 1 thread", cpu, wall, tokens, f"{stats[WINDOWS]:,} windows")
    )
    sample = min(args.sample, order.n_rows)
    rows = order.rows(0, sample)

    def direct() -> Counter[str]:
        found: Counter[str] = Counter()
        for text in tokenizer.decode_batch(rows.tolist(), skip_special_tokens=False):
            _direct_rule(" " + text, found)
        return found

    expected, cpu, wall = timed(direct, 1)
    coded = {key_code(key): n for key, n in expected.items()}
    assert every_key(blocks(order, 0, sample))[0] == coded, "the rule differs from regular expressions"
    name = f"decode, regular expressions ({sample} rows)"
    table.append(_line("the paper's rule, every key", name, cpu, wall, sample * ROW, f"equal, {len(expected):,} keys"))
    return int(stats[DECODED]) / tokens


def _direct_rule(text: str, found: Counter[str]) -> None:
    for window in NUMBERS.finditer(text):
        numbers = sorted(int(n) for n in re.findall(r"\d{1,5}", window.group(1)))
        found.update(map(str, numbers))
        found.update(f"{a}-{b}" for a, b in itertools.combinations(numbers, 2))
    for window in (m for rule in TIMES for m in rule.finditer(text)):
        numbers = [int(n) for n in re.findall(r"\d{1,5}", window.group(1))]
        found.update(f"{n}-{unit}" for n in numbers for unit in re.findall(UNITS, window.group(1)))


def _memory(prefix: Path, ngrams: list[Any]) -> None:
    """Peak memory of passes in fresh processes, over an eighth of the rows and over all."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    peaks = []
    for share in (0.125, 1.0):
        with context.Pool(1) as pool:
            peaks.append(pool.apply(_peak_of_pass, (str(prefix), share, ngrams)))
            pool.close()
            pool.join()
    print(f"peak memory of a pass: {peaks[0]:.0f} MB over an eighth of the rows, {peaks[1]:.0f} MB over all")


def _peak_of_pass(prefix: str, share: float, ngrams: list[Any]) -> float:
    progress.set_quiet(True)
    order = load_order(prefix, batch_rows=STEP_ROWS)
    counts.count(order, ngrams, [int(share * order.steps)], workers=2)
    return _peak()


def _peak() -> float:
    """MB at most resident in this process; the kernel's own mark where there is one, because ru_maxrss survives a fork.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text()).group(1)) / 1024  # type: ignore[union-attr]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(function: Callable[[], Any], repeats: int) -> tuple[Any, float, float]:
    """(result, CPU seconds, wall seconds), best of `repeats`."""
    best_cpu, best_wall, result = float("inf"), float("inf"), None
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        result = function()
        best_cpu, best_wall = min(best_cpu, time.process_time() - cpu), min(best_wall, time.perf_counter() - wall)
    return result, best_cpu, best_wall


def _line(task: str, engine: str, cpu: float, wall: float, tokens: int, checked: str) -> tuple[str, ...]:
    return task, engine, f"{cpu:.3f}", f"{wall:.3f}", f"{tokens / cpu / 1e6:.1f}", f"{tokens / wall / 1e6:.1f}", checked


def _print(table: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[c]) for row in table) for c in range(len(table[0]))]
    for row in table:
        print(
            "  ".join(
                cell.ljust(w) if c in (0, 1, 6) else cell.rjust(w)
                for c, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
        )


def _tokens(work: Path, tokenizer: Any, corpus: str | None, wanted: int) -> Path:
    """Prefix of a store of whole steps of rows, tokenized from the corpus when it is not there yet."""
    prefix, size = work / "rows", wanted // (ROW * STEP_ROWS) * ROW * STEP_ROWS
    if prefix.with_suffix(".bin").exists() and prefix.with_suffix(".bin").stat().st_size == 2 * size:
        return prefix
    have, parts = 0, []
    for texts in itertools.batched(
        _texts(corpus), 256
    ) if sys.version_info >= (3, 12) else _batched(_texts(corpus), 256):
        parts += [
            np.array(e.ids, dtype=np.uint16) for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)
        ]
        have = sum(map(len, parts))
        print(f"\rtokenizing: {have:,} of {wanted:,}", end="", file=sys.stderr)
        if have >= wanted:
            break
    print(file=sys.stderr)
    size = min(size, have // (ROW * STEP_ROWS) * ROW * STEP_ROWS)
    with StoreWriter(prefix) as out:
        out.add_documents(np.concatenate(parts)[:size], [ROW] * (size // ROW))
    return prefix


def _batched(items: Any, size: int) -> Any:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _texts(corpus: str | None) -> Any:
    root = Path(corpus) if corpus else Path(sysconfig.get_paths()["purelib"])
    files = sorted(p for p in root.rglob("*") if p.suffix in (".py", ".pyi", ".md", ".rst", ".txt", ".json"))
    for n in np.random.default_rng(0).permutation(len(files)):
        try:
            text = files[n].read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if 200 <= len(text) <= 60_000:
            yield text


def _train(work: Path, corpus: str | None) -> Any:
    """A byte-level BPE of 16,384 pieces, for machines without the real tokenizer's file."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    path = work / "tokenizer.json"
    if not path.exists():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=16_384, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        tokenizer.train_from_iterator(itertools.islice(_texts(corpus), 500), trainer)
        tokenizer.save(str(path))
    return open_tokenizer(path).engine


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", metavar="DIR", help="folder of text files (default: the installed Python packages)")
    parser.add_argument("--tokenizer", metavar="FILE", help="tokenizer.json (default: one trained on the corpus)")
    parser.add_argument("--tokens", type=int, default=50_000_000, help="tokens to count in (default 50 million)")
    parser.add_argument("--terms", type=int, default=1000, help="n-grams, and text terms (default 1000)")
    parser.add_argument("--sample", type=int, default=2000, help="rows for the slow rivals (default 2000)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip", nargs="*", default=[], choices=["tokengrams"], help="rivals to leave out")
    parser.add_argument(
        "--work", default="counting-benchmark", metavar="DIR", help="where tokens and the index are kept"
    )
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PythiaToolsError as error:
        print(f"counting: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
