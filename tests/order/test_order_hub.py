"""Orders on the hub: exactly the bytes asked, in as few requests as there are shards touched, through every fault."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from order_stores import make_documents, slow_rows

from pythia_tools.core.errors import DataError, EnvironmentFailure, RequestError
from pythia_tools.counts import seen
from pythia_tools.hub import Dataset, RangeCache
from pythia_tools.order import MapName, build_index_maps, load_order, save_maps
from pythia_tools.order.verify import verify_order
from pythia_tools.tokens import StoreWriter
from pythia_tools.tokens.index import write_index
from tests.hub_server import Hub
from tests.shards import split_store

LENGTH, ROWS, BATCH = 100, 64, 8
ROW_BYTES = 2 * (LENGTH + 1)
BATCH_BYTES = BATCH * ROW_BYTES
SHARD = 5001  # neither rows nor tokens end here

MANIFEST = f"""name: tiny
kind: preshuffled
seq_length: {LENGTH}
batch_rows: {BATCH}
rows: {ROWS}
dtype: uint16
store:
  repo: me/rows
  shards: {{stem: document, count: 3, bytes: {SHARD}, last_bytes: {ROWS * ROW_BYTES - 2 * SHARD}}}
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pythia_tools.hub.client.RetryPolicy.wait", lambda self, attempt, after=None: None)
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def rows(hub: Hub, tmp_path: Path) -> np.ndarray:
    """The rows that `tiny.yaml` describes, sharded on the server."""
    values = np.random.default_rng(5).integers(2, 50_000, (ROWS, LENGTH + 1)).astype(np.uint16)
    (tmp_path / "whole").mkdir()
    values.tofile(tmp_path / "whole" / "document.bin")
    split_store(tmp_path / "whole" / "document.bin", tmp_path / "shards", SHARD)
    hub.add_dataset("me/rows", {"main": tmp_path / "shards"})
    (tmp_path / "tiny.yaml").write_text(MANIFEST)
    return values


def batch(rows: np.ndarray, step: int) -> np.ndarray:
    return rows[step * BATCH : (step + 1) * BATCH]


def test_bytes_and_requests_of_a_batch(hub: Hub, rows: np.ndarray, tmp_path: Path) -> None:
    order = load_order(tmp_path / "tiny.yaml")
    assert order.fingerprint and hub.requests == []
    expected = {0: 1, 1: 1, 2: 1, 3: 2, 4: 1, 5: 1, 6: 2, 7: 1}  # 5001 and 10002 lie in batches 3 and 6
    for step, requests in expected.items():
        hub.forget()
        assert (order.batch(step) == batch(rows, step)).all()
        asked = hub.files_asked()
        assert (len(asked), hub.sent) == (requests, BATCH_BYTES), step
        assert all(r.status == 206 for r in asked)
        listings = [r for r in hub.requests if r.path.startswith("/api/datasets/")]
        assert len(listings) == (1 if step == 0 else 0)
    hub.forget()
    assert (order.batch(3) == batch(rows, 3)).all() and hub.requests == []


def test_ranges_of_the_public_batches() -> None:
    """4.2 MB each, one range within a shard of 30 GB and two where a batch straddles shards."""
    source = load_order("pile-deduped-preshuffled").source.data  # type: ignore[attr-defined]
    size = 1024 * 4098

    def ranges(step: int) -> list[tuple[int, int, int]]:
        return source._split(step * size, (step + 1) * size)

    assert ranges(3000) == [(0, 12_589_056_000, 12_593_252_352)] and size == 4_196_352
    shard = 30_000_000_000
    straddling = [step for step in range(143_000) if step * size // shard != ((step + 1) * size - 1) // shard]
    assert len(straddling) == 20 and straddling[0] == 7149
    for step in straddling:
        (k, a, b), (next_k, c, d) = ranges(step)
        assert (next_k, b, c) == (k + 1, 30_000_000_000, 0) and b - a + d == size
    assert ranges(142_999)[0][0] == 20 and ranges(142_999)[0][2] == 78_336_000


def test_one_row_is_one_row(hub: Hub, rows: np.ndarray, tmp_path: Path) -> None:
    order = load_order(tmp_path / "tiny.yaml")
    assert (order.rows(10, 11) == rows[10:11]).all() and hub.sent == ROW_BYTES
    hub.forget()
    assert (order.batch(1) == batch(rows, 1)).all()
    assert hub.sent == BATCH_BYTES - ROW_BYTES and len(hub.files_asked()) == 2  # only what is not cached


def test_scattered_rows_are_asked_at_once_and_cached(hub: Hub, rows: np.ndarray, tmp_path: Path) -> None:
    order = load_order(tmp_path / "tiny.yaml")
    picked = [60, 1, 2, 40]
    assert (order.take(picked) == rows[picked]).all()
    assert [r.range for r in hub.files_asked("*00000*")] == [f"bytes={ROW_BYTES}-{3 * ROW_BYTES - 1}"]
    hub.forget()
    assert (order.take(picked) == rows[picked]).all() and hub.requests == []


def test_what_reading_costs_is_told_before_anything_is_opened(hub: Hub, rows: np.ndarray, tmp_path: Path) -> None:
    preshuffled, packed = load_order("pile-deduped-preshuffled"), load_order("pile-standard-seed1")
    assert preshuffled.opening == (0, 0) and preshuffled.fetching(96, 1) == (96 * 4098, 1)
    documents, n = 210_607_728, 147_164_160
    assert packed.opening == (20 * documents + 4 * documents + 12 * n, 4), "to 1 % the 4.2 GB index and the maps"
    assert packed.fetching(96, 1) == (96 * 4098, 96), "its rows are pieces of documents that lie apart"
    local = load_order(tmp_path / "tiny.yaml", local=tmp_path / "shards")
    assert local.opening == local.fetching(96, 1) == (0, 0) and hub.requests == []


def test_a_whole_order_is_not_searched_over_the_network_by_accident(hub: Hub, rows: np.ndarray, tmp_path: Path) -> None:
    needle = rows[20, 3:6].tolist()
    order = load_order(tmp_path / "tiny.yaml")
    with pytest.raises(RequestError, match=r"would read 12\.9 kB from the hub; give steps"):
        seen(order, needle)
    assert hub.requests == []
    assert seen(order, needle, steps=(2, 4))[["step", "row", "offset"]].values.tolist() == [[2, 20, 3]]
    assert hub.sent == 2 * BATCH_BYTES
    local = load_order(tmp_path / "tiny.yaml", local=tmp_path / "shards")
    assert seen(local, needle)["row"].tolist() == [20]


def test_many_short_ranges_are_cached_as_one(
    hub: Hub, rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pythia_tools.order import remote_store

    monkeypatch.setattr(remote_store, "FEW_RANGES", 2)
    monkeypatch.setattr(remote_store, "NEAR_BYTES", 0)
    order = load_order(tmp_path / "tiny.yaml")
    picked = list(range(0, ROWS, 3))
    assert (order.take(picked) == rows[picked]).all() and hub.sent == len(picked) * ROW_BYTES
    hub.forget()
    assert (load_order(tmp_path / "tiny.yaml").take(picked) == rows[picked]).all() and hub.requests == []
    assert len([p for p in (tmp_path / "home" / "ranges").glob("*/*/*") if p.is_file()]) == 1


def test_cached_batches_work_without_a_network(
    hub: Hub, rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_order(tmp_path / "tiny.yaml").batch(3)
    again = pickle.loads(pickle.dumps(load_order(tmp_path / "tiny.yaml")))
    hub.fail("*", status=503, times=None)
    hub.forget()
    assert (again.batch(3) == batch(rows, 3)).all() and hub.requests == []
    with pytest.raises(EnvironmentFailure, match="HTTP 503 after 6 tries"):
        again.batch(4)


def test_the_offline_switch(hub: Hub, rows: np.ndarray, tmp_path: Path) -> None:
    load_order(tmp_path / "tiny.yaml").batch(3)
    hub.forget()
    code = (
        "import pythia_tools as pt\n"
        f"order = pt.load_order({str(tmp_path / 'tiny.yaml')!r})\n"
        "print(int(order.batch(3).sum()))\n"
        "try: order.batch(4)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=offline)
    total, failure = done.stdout.splitlines()
    assert int(total) == int(batch(rows, 3).sum())
    assert failure.startswith("EnvironmentFailure") and "HF_HUB_OFFLINE" in failure and hub.files_asked() == []


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503, "times": 2}, {"status": 429, "times": 1, "headers": {"Retry-After": "0"}},
        {"cut_after": 700, "times": 3},
        {"truncate": 600},
    ],
    ids=["503", "429", "cut", "short"],
)
def test_faults_are_ridden_out(hub: Hub, rows: np.ndarray, tmp_path: Path, fault: dict[str, object]) -> None:
    order = load_order(tmp_path / "tiny.yaml")
    order.rows(0, 1)
    hub.forget()
    hub.fail("*document-00001*", **fault)
    if "truncate" in fault:
        with pytest.raises(DataError, match=r"the file has changed|serves fewer bytes than it lists"):
            order.batch(4)
        return
    assert (order.batch(4) == batch(rows, 4)).all()
    # A cut answer is continued, not repeated.
    assert hub.sent - 5 * sum(r.status != 206 for r in hub.files_asked()) == BATCH_BYTES


def test_faults_that_stay(hub: Hub, rows: np.ndarray, tmp_path: Path) -> None:
    order = load_order(tmp_path / "tiny.yaml")
    hub.fail("*document-00000*", status=503, times=None)
    with pytest.raises(EnvironmentFailure, match=r"document-00000-of-00002\.bin: HTTP 503 after 6 tries"):
        order.batch(0)
    hub.heal()
    hub.fail("*document-00000*", ignore_range=True, times=None)
    for step in (0, 1):  # from the file's beginning, and from its middle
        with pytest.raises(EnvironmentFailure, match="the server ignores ranges"):
            order.batch(step)
    hub.heal()
    hub.fail("*document-00000*", status=403, times=None)
    with pytest.raises(EnvironmentFailure, match="gated or private"):
        order.batch(0)
    hub.heal()
    assert (order.batch(0) == batch(rows, 0)).all()


def test_through_a_redirect_the_token_stays_behind(
    rows: np.ndarray, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.cdn = True  # answers 400 when the token arrives there
    hub.add_dataset("me/rows", {"main": tmp_path / "shards"}, token="secret")
    order = load_order(tmp_path / "tiny.yaml")
    with pytest.raises(DataError, match=r"no such repository at .*set HF_TOKEN") as refused:
        order.batch(3)
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert (order.batch(3) == batch(rows, 3)).all()
    assert all(r.authorized for r in hub.requests if r.status in (206, 302) and "/resolve/" in r.path)


def test_shards_that_are_missing_or_differ(hub: Hub, rows: np.ndarray, tmp_path: Path) -> None:
    last = ROWS * ROW_BYTES - 2 * SHARD
    text = MANIFEST.replace(f"bytes: {SHARD}", f"bytes: {SHARD - 1}", 1).replace(str(last), str(last + 2))
    (tmp_path / "sizes.yaml").write_text(text)
    with pytest.raises(DataError, match=f"{SHARD} bytes on the hub, the manifest says {SHARD - 1}"):
        load_order(tmp_path / "sizes.yaml").batch(0)
    digests = f"sha256: [{'f' * 64}, null, null], last_bytes"
    (tmp_path / "digest.yaml").write_text(MANIFEST.replace("last_bytes", digests))
    with pytest.raises(DataError, match="is not the manifest's ffffffffffff"):
        load_order(tmp_path / "digest.yaml").batch(0)
    (tmp_path / "repo.yaml").write_text(MANIFEST.replace("me/rows", "me/nothing"))
    with pytest.raises(DataError, match="me/nothing@main: no such repository"):
        load_order(tmp_path / "repo.yaml").batch(0)
    (tmp_path / "revision.yaml").write_text(MANIFEST.replace("repo: me/rows", "repo: me/rows\n  revision: v9"))
    with pytest.raises(DataError, match="me/rows@v9: no such revision"):
        load_order(tmp_path / "revision.yaml").batch(0)
    (tmp_path / "shards" / "document-00001-of-00002.bin").unlink()
    hub.add_dataset("me/rows", {"main": tmp_path / "shards"})
    with pytest.raises(DataError, match=r"holds no document-00001-of-00002\.bin"):
        load_order(tmp_path / "tiny.yaml").batch(4)
    short = MANIFEST.replace(f"rows: {ROWS}", f"rows: {ROWS + 1}")
    (tmp_path / "short.yaml").write_text(short)
    with pytest.raises(DataError, match=rf"it says {ROWS + 1} rows of \d+ tokens, the data has {ROWS}"):
        load_order(tmp_path / "short.yaml").batch(0)


def test_a_folder_that_holds_the_shards(rows: np.ndarray, hub: Hub, tmp_path: Path) -> None:
    order = load_order(tmp_path / "tiny.yaml", local=tmp_path / "shards")
    assert (order.batch(3) == batch(rows, 3)).all() and hub.requests == []
    assert order.fingerprint == load_order(tmp_path / "tiny.yaml").fingerprint
    last = tmp_path / "shards" / "document-00002-of-00002.bin"
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(DataError, match="the manifest says"):
        load_order(tmp_path / "tiny.yaml", local=tmp_path / "shards").batch(0)
    last.unlink()
    with pytest.raises(DataError, match="a shard is missing"):
        load_order(tmp_path / "tiny.yaml", local=tmp_path / "shards").batch(0)


def packed(hub: Hub, tmp_path: Path, *, corrupt: bool = False) -> tuple[list[list[int]], list[list[int]]]:
    documents = make_documents([30, 0, 55, 200, 7, 90])
    with StoreWriter(tmp_path / "docs" / "pile") as out:
        for document in documents:
            out.add_document(document)
    split_store(tmp_path / "docs" / "pile.bin", tmp_path / "docs", 401)
    (tmp_path / "docs" / "pile.bin").unlink()
    maps = build_index_maps([len(d) for d in documents], 10, 2, 50)
    name = MapName(tmp_path / "maps" / "seed2" / "pile", 50, 10, 2)
    paths = save_maps(maps, name)
    if corrupt:
        half = maps.shuffle_idx.copy()
        half[20:] = 0
        np.save(paths["shuffle"], half)
    hub.add_dataset("me/docs", {"main": tmp_path / "docs"})
    hub.add_dataset("me/maps", {"main": tmp_path / "maps"})
    (tmp_path / "packed.yaml").write_text(f"""name: packed
kind: packed
seq_length: 10
batch_rows: 4
rows: {len(maps.shuffle_idx)}
dtype: uint16
documents: 6
seed: 2
num_samples: 50
store: {{repo: me/docs, index: {{name: pile.idx}}, shards: {{stem: pile, count: 2, bytes: 401, last_bytes: null}}}}
maps:
  repo: me/maps
  files:
    doc: {{name: seed2/{paths['doc'].name}}}
    sample: {{name: seed2/{paths['sample'].name}}}
    shuffle: {{name: seed2/{paths['shuffle'].name}}}
""")
    return documents, slow_rows(documents, maps, 10)


def test_documents_and_published_maps_by_range(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pythia_tools.order import remote_store

    monkeypatch.setattr(remote_store, "NEAR_BYTES", 0)
    _, expected = packed(hub, tmp_path)
    order = load_order(tmp_path / "packed.yaml")
    assert order.batch(2).tolist() == expected[8:12]
    assert sum(r.sent for r in hub.files_asked("*.bin")) <= 4 * 22
    assert {r.file.rpartition("/")[2].rpartition("_")[2] for r in hub.files_asked("me/maps*")} == {"idx.npy"}
    hub.forget()
    assert load_order(tmp_path / "packed.yaml").rows(0, order.n_rows).tolist() == expected
    assert hub.files_asked("me/maps*") == hub.files_asked("*.idx") == []


def test_a_wrong_row_length_in_a_manifest_gives_no_row(hub: Hub, rows: np.ndarray, tmp_path: Path) -> None:
    """Rows of 202 tokens fit the bytes as well as those of 101: the count of rows tells, or else the index."""
    write_index(tmp_path / "shards" / "document.idx", np.uint16, np.full(ROWS, LENGTH + 1), np.array([0]))
    hub.add_dataset("me/rows", {"main": tmp_path / "shards"})
    (tmp_path / "a.yaml").write_text(MANIFEST.replace(f"seq_length: {LENGTH}", "seq_length: 201"))
    with pytest.raises(DataError, match="it says 64 rows of 202 tokens, the data has 32"):
        load_order(tmp_path / "a.yaml").batch(0)
    named = MANIFEST.replace("  shards", "  index: {name: document.idx}\n  shards").replace(f"rows: {ROWS}\n", "", 1)
    named = named.replace(f"batch_rows: {BATCH}\n", f"batch_rows: {BATCH}\nsteps: 4\n")
    (tmp_path / "b.yaml").write_text(named.replace(f"seq_length: {LENGTH}", "seq_length: 201"))
    with pytest.raises(DataError, match=r"means rows of 202 tokens, document\.idx has rows of 101"):
        load_order(tmp_path / "b.yaml").batch(0)
    (tmp_path / "b.yaml").write_text(named)
    assert (load_order(tmp_path / "b.yaml").batch(3) == batch(rows, 3)).all()
    packed(hub, tmp_path)
    text = (tmp_path / "packed.yaml").read_text()
    (tmp_path / "packed.yaml").write_text(text.replace("seq_length: 10", "seq_length: 9"))
    with pytest.raises(DataError, match="another seq_length"):
        load_order(tmp_path / "packed.yaml").batch(0)


def test_derived_bytes_refuse_no_file(hub: Hub, tmp_path: Path) -> None:
    _, expected = packed(hub, tmp_path)
    text = (tmp_path / "packed.yaml").read_text()
    (tmp_path / "packed.yaml").write_text(text.replace("{name: pile.idx}", "{name: pile.idx, bytes: 7}"))
    with pytest.raises(DataError, match="the manifest says 7"):
        load_order(tmp_path / "packed.yaml").batch(0)
    (tmp_path / "packed.yaml").write_text(text.replace("{name: pile.idx}", "{name: pile.idx, bytes: 7, derived: true}"))
    assert load_order(tmp_path / "packed.yaml").batch(2).tolist() == expected[8:12]
    assert set(verify_order(load_order(tmp_path / "packed.yaml")).status) == {"ok", "unknown"}


def test_a_corrupt_published_map_is_refused_or_made_again(hub: Hub, tmp_path: Path) -> None:
    _, expected = packed(hub, tmp_path, corrupt=True)
    with pytest.raises(DataError, match="are zero; the file is corrupt"):
        load_order(tmp_path / "packed.yaml").batch(0)
    text = (tmp_path / "packed.yaml").read_text()
    text = text.replace("  repo: me/maps\n", "  repo: me/maps\n  rebuild: [shuffle]\n")
    (tmp_path / "packed.yaml").write_text(text)
    order = load_order(tmp_path / "packed.yaml")
    assert order.rows(0, order.n_rows).tolist() == expected
    (tmp_path / "packed.yaml").write_text(text.replace("seed: 2\n", "seed: 3\n"))
    with pytest.raises(DataError, match="gives another doc map"):
        load_order(tmp_path / "packed.yaml").batch(0)


def test_a_broken_download_resumes_and_a_damaged_one_is_refused(hub: Hub, tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(450_000)
    hub.add_dataset("me/file", {"main": {"maps/a.npy": data}})
    hub.fail("*a.npy", status=503, times=None)
    hub.fail("*a.npy", cut_after=200_000)
    with pytest.raises(EnvironmentFailure, match="what came is kept, run the same command again to resume"):
        Dataset("me/file").download("maps/a.npy")
    hub.heal()
    hub.forget()
    path = Dataset("me/file").download("maps/a.npy")
    assert path.read_bytes() == data and 0 < hub.sent <= 250_000  # what had arrived was not asked again
    hub.forget()
    assert Dataset("me/file").download("maps/a.npy") == path and hub.requests == []
    path.resolve().unlink()
    hub.fail("*a.npy", flip=1234, times=None)
    with pytest.raises(DataError, match="twice in a row its bytes were not those that the hub lists"):
        Dataset("me/file").download("maps/a.npy")
    kept = [p for p in path.parents[3].rglob("*") if p.is_file() and p.stat().st_size > 1000]
    assert kept == [], "no wrong byte is kept"


def test_the_hubs_records_are_verified(hub: Hub, rows: np.ndarray, tmp_path: Path) -> None:
    table = verify_order(load_order(tmp_path / "tiny.yaml"))
    assert table["status"].tolist() == ["ok"] * 3 and hub.sent == 0
    shard = tmp_path / "shards" / "document-00001-of-00002.bin"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\xff")
    sums = {r["file"]: r["sha256"] for r in table.to_dict("records")}
    local = verify_order(load_order(tmp_path / "tiny.yaml"), tmp_path / "shards", sums)
    assert local["status"].tolist() == ["ok", "wrong", "ok"]


def test_the_cache_is_bounded_and_notices_damage(tmp_path: Path) -> None:
    cache = RangeCache(tmp_path, limit=250)
    for k in range(4):
        cache.add("key", 100 * k, bytes([k]) * 100)
    kept = [p for p in tmp_path.glob("*/*/*")]
    assert sum(p.stat().st_size for p in kept) <= 250 and len(kept) == 2
    fresh = RangeCache(tmp_path, limit=250)
    there = [(a, b, d is not None) for a, b, d in fresh.pieces("key", 150, 400)]
    assert there == [(150, 200, False), (200, 300, True), (300, 400, True)]
    next(p for p in kept if p.name.startswith("200-")).write_bytes(b"x" * 100)
    assert [(a, b, d is not None) for a, b, d in fresh.pieces("key", 200, 400)] == [(200, 300, False), (300, 400, True)]
    RangeCache(tmp_path, limit=10).add("other", 0, b"y" * 11)
    assert not (tmp_path / "ot").exists()


def test_a_bad_limit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIA_TOOLS_RANGE_CACHE_BYTES", "plenty")
    with pytest.raises(RequestError, match="plenty"):
        RangeCache()


@pytest.mark.network
@pytest.mark.skipif(
    not os.environ.get("PYTHIA_TOOLS_NETWORK_TESTS"), reason="asks the public hub; set PYTHIA_TOOLS_NETWORK_TESTS=1",
)
def test_one_real_batch_by_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "https://huggingface.co")
    rows = load_order("pile-deduped-preshuffled").batch(3000)
    assert rows.shape == (1024, 2049) and rows.min() >= 2 and rows.max() < 50_277
