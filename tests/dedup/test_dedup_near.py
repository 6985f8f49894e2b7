"""Exact pairs against brute force, LSH candidates against datasketch, clusters against a graph library."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import datasketch
import networkx
import numpy as np
import pytest
from datasketch.lsh import _optimal_param

from pythia_tools import dedup
from pythia_tools.core.errors import RequestError
from pythia_tools.dedup.exact import exact_links, similarities
from pythia_tools.dedup.lsh import buckets_by_band
from pythia_tools.dedup.recall import Sample, draw, recall
from pythia_tools.dedup.sets import ShingleSets


def shingles(document: str, n: int) -> set[tuple[str, ...]]:
    words = document.split()
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))} if words else set()


def related_documents(seed: int, count: int, vocabulary: int) -> list[str]:
    """Random documents, most of them edited copies of earlier ones; some equal, some empty."""
    rng = random.Random(f"related {seed}")
    documents: list[str] = []
    for _ in range(count):
        words = [f"w{rng.randrange(vocabulary)}" for _ in range(rng.randrange(70))]
        if documents and rng.random() < 0.6:
            words = rng.choice(documents).split()
            for _ in range(rng.randrange(4)):
                if words:
                    words[rng.randrange(len(words))] = f"w{rng.randrange(vocabulary)}"
            words = words[: rng.randrange(len(words) + 1)] if rng.random() < 0.2 else words
        documents.append(" ".join(words))
    return documents


def true_pairs(documents: list[str], threshold: float, n: int) -> dict[tuple[int, int], float]:
    found = {}
    for (i, a), (j, b) in itertools.combinations(enumerate(shingles(d, n) for d in documents), 2):
        if a and b and len(a & b) / len(a | b) >= threshold:
            found[i, j] = len(a & b) / len(a | b)
    return found


def candidates(documents: list[str], bands: int, rows: int) -> set[tuple[int, int]]:
    """Pairs that share a bucket."""
    found: set[tuple[int, int]] = set()
    for members, begins in buckets_by_band(dedup.minhash_signatures(documents, 128), bands, rows):
        for a, b in itertools.pairwise(begins.tolist()):
            found |= set(itertools.combinations(sorted(members[a:b].tolist()), 2))
    return found


def clusters_of(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    return sorted(sorted(c) for c in networkx.connected_components(networkx.Graph(list(pairs))))


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.87, 1.0])
@pytest.mark.parametrize(("seed", "n", "vocabulary"), [(0, 1, 8), (1, 2, 50), (2, 5, 3), (3, 5, 50), (4, 1, 50)])
def test_exact_finds_every_pair_and_no_other(seed: int, n: int, vocabulary: int, threshold: float) -> None:
    documents = related_documents(seed, 90, vocabulary)
    truth = true_pairs(documents, threshold, n)
    assert truth
    sets = dedup.shingle_sets(dedup.pack(documents), n)
    links = zip(*(side.tolist() for side in exact_links(sets, threshold, threads=2)), strict=True)
    assert {(min(link), max(link)) for link in links} <= truth.keys()
    left, right = np.array(list(truth)).T
    np.testing.assert_array_equal(similarities(sets, left, right), list(truth.values()))
    assert dedup.near_duplicates(documents, threshold, ngram=n, workers=2) == clusters_of(truth)


def test_exact_at_the_very_threshold() -> None:
    a, b = "a b c d e f g h", "a b c d e f g x"  # 7 of 9 words shared
    assert dedup.near_duplicates([a, b], 7 / 9, ngram=1) == [[0, 1]]
    assert dedup.near_duplicates([a, b], np.nextafter(7 / 9, 1), ngram=1) == []


def test_empty_documents_match_nothing() -> None:
    documents = ["", "x y z", "", " \u3000", "x y z"]
    for method in ("exact", "lsh"):
        assert dedup.near_duplicates(documents, method=method) == [[1, 4]]
    assert dedup.near_duplicates([]) == []
    assert dedup.near_duplicates(["", ""]) == []


def test_candidates_equal_minhash_lsh() -> None:
    documents = related_documents(7, 1500, 40)
    signatures = dedup.minhash_signatures(documents, 128)
    index = datasketch.MinHashLSH(threshold=0.87, num_perm=128)
    sketches = {
        i: datasketch.MinHash(num_perm=128, scheme="affine32", hashvalues=s)
        for i, s in enumerate(signatures) if documents[i].split()
    }
    for i, sketch in sketches.items():
        index.insert(i, sketch)
    theirs = {(min(i, j), max(i, j)) for i, sketch in sketches.items() for j in index.query(sketch) if i != j}
    assert candidates(documents, *dedup.choose_bands(0.87, 128)) == theirs
    assert len(theirs) > 100
    assert dedup.near_duplicates(documents, method="lsh") == clusters_of(theirs)


@pytest.mark.parametrize(("threshold", "num_perm"), [(0.87, 128), (0.5, 10), (0.87, 10), (0.9, 64), (0.3, 32)])
def test_bands_are_datasketchs(threshold: float, num_perm: int) -> None:
    assert dedup.choose_bands(threshold, num_perm) == _optimal_param(threshold, num_perm, 0.5, 0.5)


def test_the_curve_says_what_is_missed() -> None:
    assert dedup.choose_bands(0.87, 128) == (7, 18)
    assert dedup.choose_bands(0.87, 10) == (1, 10)
    assert round(dedup.hit_probability(0.87, 7, 18), 3) == 0.449
    words = dedup.curve_in_words(0.87, 7, 18)
    assert "7 bands of 18 rows" in words
    assert "a pair at J = 0.87 is found with probability 0.45" in words


def test_verified_lsh_is_a_part_of_exact() -> None:
    documents = related_documents(9, 400, 30)
    truth = true_pairs(documents, 0.87, 5)
    verified = candidates(documents, 32, 4) & truth.keys()
    assert len(verified) > 0.95 * len(truth)
    clusters = dedup.near_duplicates(documents, method="lsh", verify=True, bands=32, rows=4)
    assert clusters == clusters_of(verified)


def better(documents: list[str], keep: str) -> list[int]:
    """Documents from the most to the least preferred."""
    numbers = list(range(len(documents)))
    if keep == "longest":
        return sorted(numbers, key=lambda i: (-len(documents[i].encode()), i))
    return numbers if keep == "first" else numbers[::-1]


@pytest.mark.parametrize("keep", ["first", "last", "longest"])
@pytest.mark.parametrize("method", ["exact", "lsh"])
def test_stars_drop_only_for_one_within_the_threshold(method: str, keep: str) -> None:
    """Held against the rule written down plainly, on corpora whose components are chains."""
    for seed in range(5):
        documents = related_documents(seed, 120, 12)
        n, threshold = 1, 0.6
        truth = true_pairs(documents, threshold, n)
        more = {"bands": 32, "rows": 2} if method == "lsh" else {}
        options = {"threshold": threshold, "ngram": n, "method": method, "keep": keep, **more}
        chains = dedup.near_duplicate_roots(documents, dedup.DedupConfig(**options))
        roots = dedup.near_duplicate_roots(documents, dedup.DedupConfig(**options, clustering="stars"))
        kept: list[int] = []
        expected = {}
        for i in better(documents, keep):
            of = [j for j in kept if chains[j] == chains[i] and (min(i, j), max(i, j)) in truth]
            expected[i] = of[0] if of else i
            kept += [] if of else [i]
        lengths = np.array([len(d.encode()) for d in documents])
        assert dedup.kept_member(roots, keep, lengths).tolist() == [expected[i] for i in range(len(documents))]
        if method == "exact" and keep == "first":
            below = [i for i, k in enumerate(chains) if i != k and (k, i) not in truth]
            assert below, "the corpus has no chain, so it proves nothing"


def test_recall_of_a_sample_is_that_of_the_corpus() -> None:
    """Judged by the kernel, by brute force, and on all documents: the estimate holds the true recall."""
    documents = related_documents(11, 800, 40)
    truth = true_pairs(documents, 0.87, 5)
    roots = dedup.near_duplicate_roots(documents, dedup.preset("datasketch", bands=1, rows=40))
    sets = dedup.shingle_sets(dedup.pack(documents))
    partners: dict[int, list[int]] = {}
    for i, j in truth:
        partners.setdefault(i, []).append(j)
        partners.setdefault(j, []).append(i)
    full = np.mean([np.mean(roots[near] == roots[i]) for i, near in partners.items()])
    assert full < 0.95, "nothing is missed, so it proves nothing"
    values = []
    for seed in range(40):
        numbers, priorities = draw(len(documents), 150, [seed])
        assert len(numbers) == len(set(numbers.tolist())) == 150 and priorities.max() < 0.35
        numbers = numbers[sets.sizes[numbers] > 0]
        sample = Sample(numbers, ShingleSets.of_sizes(np.concatenate([sets[i] for i in numbers]), sets.sizes[numbers]))
        pairs = sample.near_duplicates(sets, 0, 0.87)
        found = {(int(a), int(b)) for a, b in pairs if a != b}
        assert found == {(i, j) for i in numbers.tolist() for j in partners.get(i, ())}
        values.append(recall(pairs, roots))
    assert abs(np.mean([v.value for v in values]) - full) < 0.02
    assert np.mean([v.low <= full <= v.high for v in values]) > 0.8
    assert recall(np.array([[3, 3]]), roots).n == 0


def test_kept_members() -> None:
    roots = dedup.components(6, np.array([0, 1, 3]), np.array([2, 4, 2]))
    assert roots.tolist() == [0, 1, 0, 0, 1, 5]
    assert dedup.members(roots) == [[0, 2, 3], [1, 4]]
    assert dedup.kept_member(roots, "first").tolist() == [0, 1, 0, 0, 1, 5]
    assert dedup.kept_member(roots, "last").tolist() == [3, 4, 3, 3, 4, 5]
    lengths = np.array([5, 1, 9, 9, 2, 0])
    assert dedup.kept_member(roots, "longest", lengths).tolist() == [2, 4, 2, 2, 4, 5]
    with pytest.raises(RequestError, match="keep is 'best'; it is one of 'first', 'last', 'longest'"):
        dedup.kept_member(roots, "best")


def test_rows_of_a_deduplicated_twin() -> None:
    rows = np.random.default_rng(3).integers(0, 1000, (30, 65))
    rows[17] = rows[4]
    rows[29] = rows[4]
    rows[29, -1] += 1
    for keep, gone in (("first", (17, 29)), ("last", (4, 17))):
        kept = dedup.kept_documents(rows, dedup.DedupConfig(unit="token", keep=keep))
        assert kept.tolist() == [i for i in range(30) if i not in gone]


def test_units() -> None:
    assert dedup.near_duplicates(["abcdefgh", "abcdefgh", "zzz"], unit="char", ngram=3) == [[0, 1]]
    assert dedup.near_duplicates([[1, 2, 3], [4], [1, 2, 3]], unit="token", ngram=2) == [[0, 2]]
    assert dedup.near_duplicates(["x\ud800", "x\ud801", "x\ud800"]) == [[0, 2]]


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01])
def test_threshold_out_of_range(threshold: float) -> None:
    with pytest.raises(RequestError, match="it must lie above 0 and at most at 1"):
        dedup.near_duplicates(["a"], threshold)
