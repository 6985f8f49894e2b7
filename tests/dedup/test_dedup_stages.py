"""Stages on disk: the same clusters as in memory, resumed after kill -9, damaged or changed files refused."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pythia_tools import dedup
from pythia_tools.cli.main import main
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.core.results import load_run
from pythia_tools.dedup import band, cluster, filter, parts, sign
from pythia_tools.dedup.backends import open_backend
from pythia_tools.dedup.sign import make_shards


def documents(count: int, seed: str = "stages") -> list[dict]:
    """Records of which about half are edited copies of earlier ones; some empty, one with a lone surrogate."""
    rng = random.Random(seed)
    texts = ["", "lone \ud800 surrogate is here twice", "lone \ud800 surrogate is here twice"]
    while len(texts) < count:
        words = [f"w{rng.randrange(300)}" for _ in range(rng.randrange(30, 120))]
        if len(texts) > 10 and rng.random() < 0.5:
            words = texts[rng.randrange(3, len(texts))].split()
            for _ in range(rng.randrange(3)):
                words[rng.randrange(len(words))] = f"w{rng.randrange(300)}"
        texts.append(" ".join(words))
    return [{"text": t, "id": f"d{i}", "kind": "abc"[i % 3]} for i, t in enumerate(texts)]


def write(path: Path, records: list[dict]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return str(path)


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    records = documents(240)
    return [write(tmp_path / "a.jsonl", records[:150]), write(tmp_path / "b.jsonl", records[150:])]


EXACT = {"part_bytes": 9000}
LSH = {"part_bytes": 9000, "bands": 16, "rows": 8, "memory_bytes": 4000}


def config_of(method: str, **more: object) -> dedup.DedupConfig:
    name, options = ("exact", EXACT) if method == "exact" else ("datasketch", LSH)
    return dedup.preset(name, **options | more)


def texts_of(inputs: list[str]) -> list[str]:
    return [json.loads(line)["text"] for name in inputs for line in Path(name).read_text().splitlines()]


def outcome(folder: Path) -> dict[str, str]:
    """Every file a user reads, by content; run.json without what differs from run to run."""
    found = {str(p.relative_to(folder)): p for kind in ("kept", "dropped") for p in (folder / kind).iterdir()}
    digests = {name: hashlib.sha256(p.read_bytes()).hexdigest() for name, p in sorted(found.items())}
    digests["items"] = pd.read_parquet(folder / "items.parquet").to_csv()
    return digests | {"summary": (folder / "summary.csv").read_text()}


@pytest.mark.parametrize("method", ["exact", "lsh", "verify"])
def test_stages_give_the_clusters_of_memory(tmp_path: Path, inputs: list[str], method: str) -> None:
    config = config_of("lsh", verify=True) if method == "verify" else config_of(method)
    result = dedup.run_stages(inputs, tmp_path / "out", config)
    expected = dedup.near_duplicate_roots(texts_of(inputs), config)
    np.testing.assert_array_equal(result.roots, expected)
    assert result.dropped == int((expected != np.arange(len(expected))).sum()) > 40
    assert len(list((tmp_path / "out" / "work" / "sign" / "00000").glob("part-*"))) >= 3


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    return len(np.intersect1d(a, b)) / len(np.union1d(a, b))


def test_kept_and_dropped_are_written_with_the_reason(tmp_path: Path, inputs: list[str]) -> None:
    result = dedup.run_stages(inputs, tmp_path / "out", config_of("exact", keep="longest"))
    records = [json.loads(line) for name in inputs for line in Path(name).read_text().splitlines()]
    kept, dropped = (
        [json.loads(line) for p in sorted((tmp_path / "out" / kind).iterdir()) for line in p.read_text().splitlines()]
        for kind in ("kept", "dropped")
    )
    assert [r for i, r in enumerate(records) if result.kept[i] == i] == kept
    assert len(dropped) == result.dropped
    sets = dedup.shingle_sets(dedup.pack([r["text"] for r in records]))
    for record in dropped:
        why = record.pop("dedup")
        assert record == records[why["document"]]
        assert why["cluster"] == result.roots[why["document"]] == result.roots[why["kept"]]
        assert why["kept_id"] == records[why["kept"]]["id"]
        assert why["similarity_kind"] == "exact"
        assert why["similarity"] == jaccard(sets[why["document"]], sets[why["kept"]])
    run = load_run(tmp_path / "out")
    totals = run.summary[run.summary["subset"] == "all"].set_index("metric").value
    assert totals["dropped_documents"] == len(dropped)
    assert totals["documents"] == len(records)


def test_presets_differ_in_signature_and_kept_member(tmp_path: Path, inputs: list[str]) -> None:
    first = dedup.run_stages(inputs, tmp_path / "d", dedup.preset("datasketch"))
    last = dedup.run_stages(inputs, tmp_path / "p", dedup.preset("pile_dedupe"))
    pile = dedup.near_duplicate_roots(texts_of(inputs), dedup.preset("pile_dedupe"))
    np.testing.assert_array_equal(last.roots, pile)
    assert (np.asarray(first.kept) <= np.arange(first.documents)).all()
    assert (np.asarray(last.kept) >= np.arange(last.documents)).all()
    record = load_run(tmp_path / "p").record["dedup"]
    assert record["signature_scheme"] == "legacy, sha1"
    assert "1 bands of 10 rows (10 hashes): a pair at J = 0.87 is found with probability 0.25" in record["curve"]


@pytest.mark.parametrize("method", ["exact", "lsh"])
def test_stopped_after_any_file_the_result_is_the_same(
    tmp_path: Path, inputs: list[str], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop at every seventh part that is written, again and again, until it comes through."""
    config = config_of(method)
    dedup.run_stages(inputs, tmp_path / "whole", config)
    written = 0
    stops = 0

    def stopping(*args, **options):  # type: ignore[no-untyped-def]
        nonlocal written
        written += 1
        if written % 7 == 0:
            raise KeyboardInterrupt
        return parts.write_part(*args, **options)

    for module in (sign, band, cluster, filter):
        monkeypatch.setattr(module, "write_part", stopping)
    for _ in itertools.repeat(None, 100):
        try:
            dedup.run_stages(inputs, tmp_path / "stopped", config)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 3
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("renames", [(3, 12, 40), (21,)])
def test_killed_without_warning_and_resumed(tmp_path: Path, inputs: list[str], renames: tuple[int, ...]) -> None:
    """With other workers and memory than before; what was finished is not written again."""
    dedup.run_stages(inputs, tmp_path / "whole", config_of("lsh"))
    script = textwrap.dedent("""
        import os, signal, sys
        from pythia_tools import dedup
        from pythia_tools.core import files
        left = int(sys.argv[1])
        replace = os.replace
        def killing(a, b):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(a, b)
        os.replace = killing
        config = dedup.preset("datasketch", part_bytes=9000, bands=16, rows=8, memory_bytes=4000)
        dedup.run_stages(sys.argv[3:], sys.argv[2], config, workers=1)
    """)
    codes = []
    for count in renames:
        command = [sys.executable, "-c", script, str(count), str(tmp_path / "killed"), *inputs]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        codes.append(subprocess.run(command, check=False, capture_output=True, env=environment).returncode)
    assert codes == [-signal.SIGKILL] * len(renames)
    signed = {path: path.stat().st_ino for path in (tmp_path / "killed").glob("work/sign/*/part-*/part.json")}
    assert signed
    dedup.run_stages(inputs, tmp_path / "killed", config_of("lsh", memory_bytes=50_000), workers=3)
    assert {path: path.stat().st_ino for path in signed} == signed
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob("*.part"))


@pytest.mark.parametrize(
    "name", ["sign/00000/part-00001/signatures.npy", "sign/00000/part-00000/keys.npy", "clusters/kept.npy"]
)
def test_a_damaged_file_is_named_not_used(tmp_path: Path, inputs: list[str], name: str) -> None:
    dedup.run_stages(inputs, tmp_path / "out", config_of("lsh"))
    damaged = tmp_path / "out" / "work" / name
    raw = bytearray(damaged.read_bytes())
    raw[-1] ^= 1
    damaged.write_bytes(raw)
    for later in ("buckets", "filter") if "clusters" in name else ("buckets", "clusters", "filter"):
        if later != name.split("/")[0]:
            subprocess.run(["rm", "-r", str(tmp_path / "out" / "work" / later)], check=True)
    said = r"damaged \(its sha256 is not the recorded one\); delete .* and run the same command again"
    with pytest.raises(DataError, match=said):
        dedup.run_stages(inputs, tmp_path / "out", config_of("lsh"))


def test_a_changed_input_is_refused(tmp_path: Path, inputs: list[str]) -> None:
    dedup.run_stages(inputs, tmp_path / "out", config_of("exact"))
    subprocess.run(["rm", "-r", str(tmp_path / "out" / "work" / "filter")], check=True)
    text = Path(inputs[1]).read_text()
    Path(inputs[1]).write_text(text.replace("w1 ", "w2 ", 1))
    with pytest.raises(DataError, match="changed since it was signed"):
        dedup.run_stages(inputs, tmp_path / "out", config_of("exact"))
    Path(inputs[1]).write_text(text + '{"text": "one more"}\n')
    with pytest.raises(RequestError, match="holds a run with another config"):
        dedup.run_stages(inputs, tmp_path / "out", config_of("exact"))


def test_a_deleted_output_is_written_again(tmp_path: Path, inputs: list[str]) -> None:
    dedup.run_stages(inputs, tmp_path / "out", config_of("exact"))
    before = outcome(tmp_path / "out")
    next((tmp_path / "out" / "kept").iterdir()).unlink()
    dedup.run_stages(inputs, tmp_path / "out", config_of("exact"))
    assert outcome(tmp_path / "out") == before


def test_many_small_files_share_a_shard(tmp_path: Path) -> None:
    names = []
    for i, record in enumerate(documents(40)):
        path = tmp_path / f"{i:03}.txt"
        path.write_bytes(record["text"].encode("utf-8", "surrogatepass"))
        names.append(str(path))
    assert len(make_shards(names, 1 << 20)) == 1
    assert [n for shard in make_shards(names, 2000) for n in shard] == names
    result = dedup.run_stages([tmp_path], tmp_path / "out", dedup.preset("exact", part_bytes=5000))
    texts = [Path(n).read_bytes().decode("utf-8", "surrogateescape") for n in names]
    np.testing.assert_array_equal(result.roots, dedup.near_duplicate_roots(texts))


def test_token_shingles(tmp_path: Path, inputs: list[str]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    engine = Tokenizer(models.WordLevel({"[unk]": 0, **{f"w{i}": i + 1 for i in range(300)}}, unk_token="[unk]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.save(str(tmp_path / "tokenizer.json"))
    config = dedup.preset("exact", unit="token", tokenizer=str(tmp_path / "tokenizer.json"), part_bytes=9000)
    result = dedup.run_stages(inputs, tmp_path / "out", config)
    ids = [engine.encode(t.replace("\ud800", "\ufffd")).ids for t in texts_of(inputs)]
    np.testing.assert_array_equal(result.roots, dedup.near_duplicate_roots(ids, dedup.DedupConfig(unit="token")))


@pytest.mark.parametrize("method", ["exact", "lsh"])
def test_stars_on_disk_are_those_of_memory(tmp_path: Path, inputs: list[str], method: str) -> None:
    for keep in ("first", "longest"):
        config = config_of(method, threshold=0.7, clustering="stars", keep=keep)
        result = dedup.run_stages(inputs, tmp_path / keep, config)
        np.testing.assert_array_equal(result.roots, dedup.near_duplicate_roots(texts_of(inputs), config))
        dropped = [json.loads(s) for p in (tmp_path / keep / "dropped").iterdir() for s in p.read_text().splitlines()]
        assert result.below_threshold == 0 and dropped
        assert all(r["dedup"]["similarity"] >= 0.7 and r["dedup"]["similarity_kind"] == "exact" for r in dropped)


def test_what_a_chain_drops_below_the_threshold_is_told(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(100)]
    texts = [" ".join(words[a : a + 90]) for a in range(0, 10, 2)]  # each 0.95 to the next, the first 0.80 to the last
    name = write(tmp_path / "chain.jsonl", [{"text": t} for t in texts])
    result = dedup.run_stages([name], tmp_path / "out", dedup.preset("exact", threshold=0.93, ngram=1))
    assert (result.dropped, result.below_threshold) == (4, 3)
    value = load_run(tmp_path / "out").summary.set_index("metric").value
    assert (value["dropped_below_threshold"], value["dropped_below_threshold_share"]) == (3, 0.75)
    strict = dedup.preset("exact", threshold=0.93, ngram=1, clustering="stars")
    assert dedup.run_stages([name], tmp_path / "strict", strict).dropped == 2


def test_recall_is_estimated_on_the_corpus(tmp_path: Path, inputs: list[str]) -> None:
    """All documents judged: the value is the recall by brute force, whatever the parts."""
    config = config_of("lsh")
    result = dedup.run_stages(inputs, tmp_path / "out", config)
    sets = [set(zip(*(t.split()[i:] for i in range(5)), strict=False)) for t in texts_of(inputs)]
    shares = []
    for i, a in enumerate(sets):
        near = [j for j, b in enumerate(sets) if i != j and a and len(a & b) / len(a | b) >= 0.87]
        shares += [np.mean(result.roots[near] == result.roots[i])] if near else []
    row = load_run(tmp_path / "out").summary.set_index("metric").loc["recall"]
    assert row["value"] == pytest.approx(np.mean(shares)) and row["low"] <= row["value"] <= row["high"]
    assert row["unit"] == "cluster of near-duplicates" and 1 < row["n"] < len(shares)
    dedup.run_stages(inputs, tmp_path / "none", config_of("lsh", judged=0))
    assert "recall" not in set(load_run(tmp_path / "none").summary.metric)


def test_a_record_keeps_its_own_fields(tmp_path: Path) -> None:
    records = [{"text": "a b c d e f", "id": i, "dedup": {"mine": i}, "score": 0.5} for i in range(3)]
    dedup.run_stages([write(tmp_path / "a.jsonl", records)], tmp_path / "out", dedup.preset("exact"))
    kept, dropped = (
        [json.loads(line) for p in (tmp_path / "out" / kind).iterdir() for line in p.read_text().splitlines()]
        for kind in ("kept", "dropped")
    )
    assert kept == records[:1]
    assert [r.pop("pythia_dedup")["kept_id"] for r in dropped] == ["0", "0"] and dropped == records[1:]


def test_how_it_is_computed_may_change_on_the_way(
    tmp_path: Path, inputs: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped after signing, resumed with other workers, backend and memory: no part is signed again."""
    command = ["dedup", *inputs, "--preset", "datasketch", "--quiet", "--json", "--out"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as stop:
        stop.setattr("pythia_tools.dedup.stages.write_clusters", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main([*command, str(tmp_path / "out"), "--workers", "1", "--memory-mb", "1"]) == 130
    with monkeypatch.context() as backend:  # Ray itself is tried in test_dedup_ray.py
        backend.setattr("pythia_tools.dedup.stages.open_backend", lambda name, workers: open_backend("local"))
        backend.setattr(sign, "_signed", lambda *_: pytest.fail("a part is signed again"))
        other = ["--workers", "2", "--memory-mb", "64", "--backend", "ray"]
        assert main([*command, str(tmp_path / "out"), *other]) == 0
    assert outcome(tmp_path / "out") == outcome(tmp_path / "whole")
    capsys.readouterr()
    assert main(["dedup", "--report", str(tmp_path / "out"), "--json"]) == 0


@pytest.mark.parametrize("part_mb", ["64", "1"])
def test_a_refused_run_does_not_stand_in_the_way_of_the_corrected_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part_mb: str
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out"
    write(source, documents(20)[3:])
    command = ["dedup", str(source), "--out", str(out), "--part-mb", part_mb, "--quiet"]
    assert main([*command, "--unit", "token", "--tokenizer", str(tmp_path / "nowhere.json")]) == 2
    assert "nowhere.json: no such tokenizer" in capsys.readouterr().err and not out.exists()
    right = source.read_text()
    source.write_text(right + "{")
    assert main(command) == 3
    assert "line 18: not valid JSON" in capsys.readouterr().err and not out.exists()
    source.write_text(right)
    assert main(command) == 0


def test_a_saved_data_set_and_a_clone_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from datasets import Dataset

    records = documents(40)
    saved = [{**r, "text": r["text"].replace("\ud800", "?")} for r in records]
    Dataset.from_list(saved).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "clone").mkdir()
    write(tmp_path / "clone" / "train.jsonl", saved)
    (tmp_path / "clone" / "README.md").write_text("---\nlicense: mit\n---\nA data set.")
    roots = []
    for name in ("saved", "clone"):
        assert main(["dedup", str(tmp_path / name), "--out", str(tmp_path / f"out-{name}"), "--json"]) == 0
        out = capsys.readouterr()
        said = json.loads(out.out)
        assert (said["inputs"], said["documents"]) == (1, 40) and "reading " in out.err
        roots.append(said["dropped"])
    assert roots[0] == roots[1] > 0


def test_the_command_and_its_report(tmp_path: Path, inputs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    options = ["--threshold", "0.87", "--group-by", "kind", "--pack", "gz", "--json", "--quiet"]
    assert main(["dedup", *inputs, "--out", out, *options]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["documents"] == 240
    assert said["kept"] + said["dropped"] == 240
    assert all(p.name.endswith(".jsonl.gz") for p in (tmp_path / "out" / "kept").iterdir())
    assert main(["dedup", "--report", out, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert sum(row["documents"] - row["clusters"] for row in report["cluster_sizes"]) == said["dropped"]
    assert {row["kind"] for row in report["kinds"]} == {"a", "b", "c"}
    assert sum(row["dropped"] for row in report["kinds"]) == said["dropped"]
    assert main(["dedup", "--report", out]) == 0
    assert "largest clusters" in capsys.readouterr().out
    assert main(["rerun", out, "--out", str(tmp_path / "again"), "--quiet"]) == 0
    assert main(["report", out, "--out", str(tmp_path / "report.html"), "--quiet"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "dropped_byte_share" in page and "dropped_of_kind" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "o"], "no INPUT; give files"),
        (["INPUT"], "--out DIR is needed"),
        (["INPUT", "--out", "o", "--num-perm", "64"], "--num-perm is for method lsh"),
        (["INPUT", "--out", "o", "--threshold", "1.5"], "threshold is 1.5"),
        (["INPUT", "--out", "o", "--preset", "datasketch", "--bands", "9"], "bands and rows come together"),
        (["INPUT", "--out", "o", "--unit", "token"], "unit 'token' needs a tokenizer"),
        (["absent.jsonl", "--out", "o"], "no such file or folder"),
    ],
)
def test_wrong_requests_are_one_line(
    tmp_path: Path, inputs: list[str], arguments: list[str], said: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["dedup", *(inputs[0] if a == "INPUT" else a for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
