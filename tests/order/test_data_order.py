"""Rows and batches of local orders, manifests, fingerprints; every bad request a clear error."""

from __future__ import annotations

import contextlib
import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from order_stores import make_documents, packed_folder, preshuffled_store, slow_rows

import pythia_tools as pt
from pythia_tools.core import manifests
from pythia_tools.core.errors import DataError, RequestError, UnknownNameError
from pythia_tools.order import MapName, build_index_maps, load_order, packed_order, save_maps
from pythia_tools.order.data_order import store_digest, uniform_length
from pythia_tools.order.manifest import read_manifest
from pythia_tools.tokens import StoreWriter, open_store
from tests.shards import split_store


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=15).filter(lambda s: sum(s) > 1), length=st.integers(1, 9),
    seed=st.integers(0, 99), num_samples=st.integers(1, 60), stride=st.integers(1, 60) | st.none(),
)
def test_packed_rows_equal_the_slow_reader(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], length: int, seed: int, num_samples: int,
    stride: int | None,
) -> None:
    folder = tmp_path_factory.mktemp("p")
    documents = make_documents(sizes, seed)
    maps = packed_folder(folder, documents, length, num_samples, seed=seed)
    if stride is not None:
        split_store(folder / "data" / "train.bin", folder / "data", stride)
        (folder / "data" / "train.bin").unlink()
    order = load_order(folder / "order.yaml")
    expected = slow_rows(documents, maps, length)
    assert order.n_rows == len(expected) and order.rows(0, order.n_rows).tolist() == expected
    picked = np.random.default_rng(seed).integers(0, order.n_rows, 7)
    assert order.take(picked).tolist() == [expected[i] for i in picked]
    for step in range(order.steps):
        assert order.batch(step).tolist() == expected[4 * step : 4 * step + 4]
    joined = [row for _, rows in order.chunks(rows=3) for row in rows.tolist()]
    assert joined == expected
    room = np.empty((order.n_rows, length + 1), dtype=order.dtype)
    order.rows_into(room, 0)
    assert room.tolist() == expected


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 30), length=st.integers(1, 7), stride=st.integers(1, 50), dtype=st.sampled_from(["<u2", "<i4"]))
def test_preshuffled_rows_over_shards_that_cut_rows(
    tmp_path_factory: pytest.TempPathFactory, n: int, length: int, stride: int, dtype: str,
) -> None:
    folder = tmp_path_factory.mktemp("r")
    rows = np.random.default_rng(n).integers(0, 60_000, (n, length + 1)).astype(dtype)
    preshuffled_store(folder / "rows", rows)
    split_store(folder / "rows.bin", folder, stride)
    (folder / "rows.bin").unlink()
    order = load_order(folder / "rows", batch_rows=2)
    assert (order.seq_length, order.n_rows, order.steps, order.dtype) == (length, n, n // 2, np.dtype(dtype))
    assert (order.rows(0, n) == rows).all() and (order.take(np.arange(n)[::-1]) == rows[::-1]).all()
    room = np.empty((1, length + 1), dtype=order.dtype)
    for a in range(n):
        assert (order.rows(a, a + 1) == rows[a : a + 1]).all()
        order.rows_into(room, a)
        assert (room == rows[a : a + 1]).all()


def test_rows_into_an_array_that_does_not_fit(tmp_path: Path) -> None:
    preshuffled_store(tmp_path / "pre", np.arange(20, dtype=np.uint16).reshape(4, 5))
    order = load_order(tmp_path / "pre", batch_rows=2)
    with pytest.raises(RequestError, match="rows 3:5 of order pre: it has rows 0:4"):
        order.rows_into(np.empty((2, 5), dtype=np.uint16), 3)
    for room in (np.empty((2, 4), np.uint16), np.empty((2, 5), np.int32), np.empty((4, 5), np.uint16)[::2]):
        with pytest.raises(RequestError, match=r"need a contiguous \(n, 5\) uint16 array"):
            order.rows_into(room, 0)
    with open(tmp_path / "pre.bin", "r+b") as file:
        file.truncate(30)
    with pytest.raises(DataError, match="the file has become shorter since it was opened"):
        order.rows_into(np.empty((4, 5), np.uint16), 0)


def test_rows_are_fresh_and_writable(tmp_path: Path) -> None:
    packed_folder(tmp_path, make_documents([30, 40]), 4, 5)
    preshuffled_store(tmp_path / "pre", np.arange(20, dtype=np.uint16).reshape(4, 5))
    for order in (load_order(tmp_path / "order.yaml"), load_order(tmp_path / "pre", batch_rows=2)):
        rows = order.batch(0)
        rows[:] = 0
        assert order.batch(0).any() and order.rows(2, 2).shape == (0, 5) and order.take([]).shape == (0, 5)


def test_step_arithmetic_of_the_public_order() -> None:
    order = pt.load_order("pile-deduped-preshuffled")
    assert (order.seq_length, order.row_tokens, order.batch_rows) == (2048, 2049, 1024)
    assert (order.steps, order.n_rows) == (143_000, 146_432_000)
    assert order.step_of([0, 1023, 1024, 146_431_999]).tolist() == [0, 0, 1, 142_999]
    large = pt.load_order("pile-deduped-preshuffled", batch_rows=2048)
    assert large.steps == 71_500 and large.fingerprint != order.fingerprint


def test_every_shipped_manifest_reads() -> None:
    names = manifests.names("orders")
    kinds = ("preshuffled", "idxmaps")
    assert {f"pile-{pile}-{kind}" for pile in ("deduped", "standard") for kind in kinds} <= set(names)
    assert {f"pile-standard-seed{k}" for k in range(1, 10)} <= set(names)
    orders = {name: load_order(name) for name in names}
    assert len({o.fingerprint for o in orders.values()}) == len(orders)
    for name, order in orders.items():
        assert order.name == name and order.dtype == np.uint16
        assert order.n_rows == 146_432_000 == order.steps * order.batch_rows
        total = sum(f.bytes or 0 for f in order.manifest.store.hub.files)
        if order.manifest.kind == "preshuffled":
            assert total == 600_078_336_000 == order.n_rows * 2049 * 2
        if name == "pile-deduped-idxmaps":
            assert total == 2 * 207_170_414_058 and len(order.manifest.store.hub.files) == 83
    assert orders["pile-standard-seed2"].manifest.maps.rebuild == ("shuffle",)


def test_shipped_digests_are_the_published_ones() -> None:
    published = Path(__file__).parents[3] / "shared" / "data" / "pythia" / "shard_hashes.txt"
    if not published.is_file():
        pytest.skip("the published checksum file is not here")
    from pythia_tools.order.verify import read_sums

    sums = read_sums(published)
    manifest = load_order("pile-deduped-idxmaps").manifest
    facts = [*manifest.store.hub.files, manifest.store.index]
    assert {f.name: f.sha256 for f in facts} == sums and len(sums) == 84


def test_unknown_names_and_missing_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path))
    with pytest.raises(UnknownNameError, match="did you mean 'pile-deduped-preshuffled'"):
        load_order("pile-dedup-preshuffled")
    with pytest.raises(DataError, match="pythia-tools train"):
        load_order("pythia-micro")
    packed_folder(tmp_path / "suites" / "pythia-micro", make_documents([30, 40]), 4, 5)
    assert load_order("pythia-micro").n_rows == 17
    with pytest.raises(RequestError, match="no such manifest"):
        load_order(tmp_path / "nothing.yaml")
    with pytest.raises(RequestError, match="no such order"):
        load_order(tmp_path / "nothing")


def test_a_prefix_uses_the_maps_beside_it(tmp_path: Path) -> None:
    documents = make_documents([30, 40, 7])
    maps = packed_folder(tmp_path, documents, 4, 5)
    by_manifest = load_order(tmp_path / "order.yaml")
    by_prefix = load_order(tmp_path / "data" / "train.bin", batch_rows=4)
    assert by_prefix.rows(0, 19).tolist() == slow_rows(documents, maps, 4)
    assert by_prefix.fingerprint == by_manifest.fingerprint == load_order(tmp_path).fingerprint
    save_maps(build_index_maps([30, 40, 7], 4, 1, 5), MapName(tmp_path / "data" / "train", 5, 4, 1))
    with pytest.raises(RequestError, match="several sets of index maps"):
        load_order(tmp_path / "data" / "train")
    assert load_order(tmp_path / "order.yaml").n_rows == 19
    for path in (tmp_path / "data").glob("*.npy"):
        path.unlink()
    with pytest.raises(RequestError, match="build-order"):
        load_order(tmp_path / "data" / "train")
    with pytest.raises(DataError, match="no index maps for num_samples 5"):
        load_order(tmp_path / "order.yaml").batch(0)


def test_bad_requests(tmp_path: Path) -> None:
    packed_folder(tmp_path, make_documents([30, 40]), 4, 5)
    order = load_order(tmp_path / "order.yaml")
    for bad, says in (
        (lambda: order.batch(order.steps), "it has batches 0 to 3, of 4 rows"),
        (lambda: order.batch(-1), "batch -1"),
        (lambda: order.rows(0, order.n_rows + 1), "it has rows 0:17"),
        (lambda: order.rows(3, 2), "rows 3:2"),
        (lambda: order.rows(-2, 2), "rows -2:2"),
        (lambda: order.take([0, 17]), "row 17"),
        (lambda: order.take([-1]), "row -1"),
        (lambda: order.take([0.5]), "must be whole"),
        (lambda: order.batch(1.0), "step must be a whole number"),
        (lambda: load_order(tmp_path / "order.yaml", steps=5), "5 steps of 4 rows need 20 rows, it has 17"),
        (lambda: load_order(tmp_path / "order.yaml", batch_rows=0), "batch_rows"),
    ):
        with pytest.raises(RequestError, match=says):
            bad()


SHARDS = "{{repo: a/b, shards: {{stem: s, count: {count}, bytes: 9, sha256: [{digest}]}}}}"
MAPS = "{repo: a/b, files: {doc: {name: d}, sample: {name: s}, shuffle: {name: x}}, rebuild: [doc]}"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("kind: packed", "kind: tree"), "kind 'tree' is not one of"),
        (("seq_length: 4", "seq_length: 0"), "seq_length must be a whole number of at least 1"),
        (("seq_length: 4", "seq_length: four"), "seq_length must be"),
        (("seed: 1234", "sed: 1234"), r"missing \['seed'\], unknown \['sed'\]"),
        (("prefix: data/train", "prefix: ../train"), "leads outside"),
        (("prefix: data/train", "prefix: /etc/train"), "leads outside"),
        (("folder: data", "folder: ../data"), "leads outside"),
        (("store: {prefix: data/train}", "store: 3"), "store must be a mapping"),
        (("{prefix: data/train}", SHARDS.format(count=1, digest=12)), "sha256 12 is not 64"),
        (("{prefix: data/train}", SHARDS.format(count=2, digest="null")), "1 sha256 for 2 shards"),
        (("{folder: data}", MAPS), "only the shuffle map can be made again"),
        (("seq_length: 4", "seq_length: 4\ndtype: float32"), "not a type of token ids"),
        (("seq_length: 4", "seq_length: 4\ndtype: int32"), "it says int32, the data is uint16"),
        (("seq_length: 4", "seq_length: 4\nrows: 99"), "it says 99 rows of 5 tokens, the data has 17"),
        (("seed: 1234", "seed: 1234\nseed: 1"), "appears twice"),
        (("{prefix: data/train}", SHARDS.format(count=1_000_000_000, digest="null")), "at most 100000"),
        (("seed: 1234", 'seed: 1234\nseparate_last_epoch: "false"'), "must be true or false, without quotes"),
        (("{folder: data}", '{build: "true"}'), "must be true or false"),
        (("{folder: data}", "{build: false}"), "build is false"),
    ],
)
def test_manifests_are_checked(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    packed_folder(tmp_path, make_documents([30, 40]), 4, 5)
    text = (tmp_path / "order.yaml").read_text()
    assert change[0] in text
    (tmp_path / "order.yaml").write_text(text.replace(*change))
    with pytest.raises((DataError, RequestError), match=says):
        load_order(tmp_path / "order.yaml").batch(0)


def test_maps_that_do_not_belong_to_the_store_are_refused(tmp_path: Path) -> None:
    packed_folder(tmp_path / "a", make_documents([30, 40]), 4, 5)
    store = open_store(tmp_path / "a" / "data" / "train")
    order = packed_order(store, build_index_maps([90, 80], 4, 1234, 30), 4, 4)
    with pytest.raises(DataError, match="rows are not filled exactly"):
        order.rows(0, order.n_rows)
    order = packed_order(store, build_index_maps([10] * 7, 4, 1234, 5), 4, 4)
    with pytest.raises(DataError, match="rows are not filled exactly"):
        order.rows(0, order.n_rows)
    maps = build_index_maps([30, 40], 4, 1234, 5)
    maps.sample_idx[3] = (9, 0)
    with pytest.raises(DataError, match="damaged"):
        packed_order(store, maps, 4, 4).rows(0, 17)
    with pytest.raises(RequestError, match="different lengths"):
        uniform_length(store)


def test_a_row_that_is_not_filled_exactly_is_refused(tmp_path: Path) -> None:
    """Overfull, from before a document's first token, or from behind its last: never cut, never read."""
    documents = make_documents([30, 40])
    maps = packed_folder(tmp_path, documents, 4, 5)
    store = open_store(tmp_path / "data" / "train")
    for row, column, value in ((3, 1, -2), (3, 1, 10_000), (4, 1, int(maps.sample_idx[4, 1]) + 1), (3, 1, -(1 << 31))):
        wrong = maps._replace(sample_idx=maps.sample_idx.copy())
        wrong.sample_idx[row, column] = value
        with pytest.raises(DataError, match=r"rows are not filled exactly"):
            packed_order(store, wrong, 4, 4).rows(0, 17)
    for length in (3, 5):
        with pytest.raises(DataError, match="17 of 17 rows are not filled exactly"):
            packed_order(store, maps, length, 4).rows(0, 17)


@pytest.mark.parametrize("sizes", [[200, 1], [199, 2], [70, 131]])
def test_a_stale_order_over_another_store_is_refused(tmp_path: Path, sizes: list[int]) -> None:
    """Rows within one long document would all be filled, with other tokens; no row is served."""
    packed_folder(tmp_path, make_documents([150, 51]), 4, 5)
    preshuffled = tmp_path / "data" / "train"
    with StoreWriter(preshuffled) as out:
        for document in make_documents(sizes, seed=1):
            out.add_document(document)
    for name in (tmp_path / "order.yaml", preshuffled):
        with pytest.raises(DataError, match="belong to other documents or another seq_length"):
            load_order(name).rows(0, 1)


def test_an_order_knows_its_store(tmp_path: Path) -> None:
    """Tokenized anew to the same lengths, or one byte flipped: the digest in the manifest tells."""
    packed_folder(tmp_path, make_documents([30, 40]), 4, 5)
    path, prefix = tmp_path / "order.yaml", tmp_path / "data" / "train"
    digest = store_digest(open_store(prefix))
    path.write_text(path.read_text().replace("{prefix: data/train}", f"{{prefix: data/train, digest: {digest}}}"))
    before = load_order(path).rows(0, 17)
    body = bytearray(prefix.with_suffix(".bin").read_bytes())
    body[7] ^= 1
    prefix.with_suffix(".bin").write_bytes(body)
    with pytest.raises(DataError, match=r"made for another store than .* holds now"):
        load_order(path).rows(0, 17)
    body[7] ^= 1
    prefix.with_suffix(".bin").write_bytes(body)
    assert (load_order(path).rows(0, 17) == before).all()


def test_index_sizes_of_shipped_orders_follow_the_format(tmp_path: Path) -> None:
    """34 bytes of header, 12 per sequence, 8 per entry of the document index: as a store that is written here."""
    with StoreWriter(tmp_path / "s") as out:
        for document in make_documents([3, 4, 5]):
            out.add_document(document)
    assert (tmp_path / "s.idx").stat().st_size == 34 + 12 * 3 + 8 * 4
    derived = 0
    for name in manifests.names("orders"):
        value = manifests.read(manifests.find("orders", name))
        index, packed = value["store"].get("index", {}), value["kind"] == "packed"
        if "bytes" in index:
            count = value["documents"] if packed else value["rows"]
            assert index["bytes"] == 34 + 12 * count + 8 * (count + 1 if packed else 1), name
        derived += index.get("derived", False)
    assert derived == 10


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_wrong_manifest_is_never_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    """One field of a shipped or a local manifest replaced by a value of any type."""
    local = {"name": "x", "kind": "packed", "seq_length": 4, "batch_rows": 4, "store": {"prefix": "data/train"},
             "maps": {"folder": "data"}, "seed": 1, "num_samples": 5}
    names = ["pile-standard-idxmaps", "pile-standard-seed2", "pile-deduped-preshuffled"]
    value = data.draw(st.sampled_from([local, *(manifests.read(manifests.find("orders", name)) for name in names)]))
    value, part = copy.deepcopy(value), None
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    )
    part = value
    while isinstance(inner := part[key := data.draw(st.sampled_from(sorted(part)))], dict) and data.draw(st.booleans()):
        part = inner
    part[key] = data.draw(anything)
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(value))
    with contextlib.suppress(DataError, RequestError):
        read_manifest(tmp_path / "wrong.yaml")


def test_maps_are_built_once_when_a_manifest_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path / "home"))
    documents = make_documents([30, 40, 9])
    maps = packed_folder(tmp_path, documents, 4, 5)
    text = (tmp_path / "order.yaml").read_text().replace("{folder: data}", "{build: true}")
    (tmp_path / "order.yaml").write_text(text)
    for path in (tmp_path / "data").glob("*.npy"):
        path.unlink()
    assert load_order(tmp_path / "order.yaml").rows(0, 19).tolist() == slow_rows(documents, maps, 4)
    kept = sorted((tmp_path / "home" / "index_maps").iterdir())
    assert len(kept) == 3
    before = [p.stat().st_mtime_ns for p in kept]
    load_order(tmp_path / "order.yaml").batch(0)
    assert [p.stat().st_mtime_ns for p in kept] == before


def test_the_fingerprint_follows_content_and_parameters(tmp_path: Path) -> None:
    rows = np.arange(40, dtype=np.uint16).reshape(8, 5)
    prints = set()
    for k, values in enumerate((rows, rows + 1, rows.reshape(10, 4))):
        prints.add(load_order(preshuffled_store(tmp_path / f"s{k}", values), batch_rows=2).fingerprint)
    first = load_order(tmp_path / "s0", batch_rows=2)
    assert first.fingerprint in prints and load_order(tmp_path / "s0", batch_rows=2).fingerprint == first.fingerprint
    prints |= {load_order(tmp_path / "s0", batch_rows=4).fingerprint}
    prints |= {load_order(tmp_path / "s0", batch_rows=2, steps=3).fingerprint}
    assert len(prints) == 5
    split_store(tmp_path / "s0.bin", tmp_path, 7)
    (tmp_path / "s0.bin").unlink()
    assert load_order(tmp_path / "s0", batch_rows=2).fingerprint == first.fingerprint
    for seed in (1234, 1):
        packed_folder(tmp_path / f"p{seed}", make_documents([30, 40]), 4, 5, seed=seed)
        prints.add(load_order(tmp_path / f"p{seed}" / "order.yaml").fingerprint)
    assert len(prints) == 7


def test_large_streams_are_sampled_by_the_fingerprint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pythia_tools.order import data_order

    monkeypatch.setattr(data_order, "WHOLE_BYTES", 10)
    monkeypatch.setattr(data_order, "BLOCK_BYTES", 4)
    monkeypatch.setattr(data_order, "BLOCKS", 3)
    rows = np.arange(40, dtype=np.uint16).reshape(8, 5)
    first = load_order(preshuffled_store(tmp_path / "a", rows), batch_rows=2).fingerprint
    rows[-1, -1] += 1
    assert load_order(preshuffled_store(tmp_path / "b", rows), batch_rows=2).fingerprint != first


def test_orders_travel_to_other_processes(tmp_path: Path) -> None:
    packed_folder(tmp_path, make_documents([30, 40]), 4, 5)
    order = load_order(tmp_path / "order.yaml", batch_rows=2)
    again = pickle.loads(pickle.dumps(order))
    assert (again.batch(3) == order.batch(3)).all() and again.fingerprint == order.fingerprint
    remote = pickle.loads(pickle.dumps(load_order("pile-deduped-preshuffled")))
    assert remote.steps == 143_000


def test_naming_an_order_and_reading_local_rows_needs_no_torch(tmp_path: Path) -> None:
    preshuffled_store(tmp_path / "pre", np.arange(20, dtype=np.uint16).reshape(4, 5))
    code = (
        "import sys, pythia_tools as pt\n"
        f"order = pt.load_order({str(tmp_path / 'pre')!r}, batch_rows=2)\n"
        "assert order.batch(1).ravel().tolist() == list(range(10, 20))\n"
        "pt.load_order('pile-deduped-preshuffled').fingerprint\n"
        "print([m for m in ('torch', 'numba', 'pandas', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
