"""Near-duplicates from file to pairs: pythia_tools beside datasketch, rensa and gaoya, on this machine's own text.

The corpus is whatever text the folders given hold (by default Python's libraries, installed packages, documentation):
files of 200 to 32,768 bytes, shuffled with seed 0, up to --megabytes. Every engine runs in a process of its own, reads
the same file, makes 5-gram word shingles (`str.split()`) and ends with pairs; CPU seconds cover all its threads.
Truth is every pair with Jaccard ≥ 0.87 among the first --truth documents, found by a join in plain Python on the
shingles themselves (no hashes), which shares no code with the engines.

    python scripts/benchmarks/dedup.py                         # 200 MB of this machine's text
    python scripts/benchmarks/dedup.py --megabytes 20 --engines exact lsh datasketch
    python scripts/benchmarks/dedup.py --million               # stages on 1,000,000 documents: time, memory of each

The plan to a billion documents is printed from the constants measured in the same run (see `plan`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

ENGINES = ("exact", "lsh", "lsh-mix64", "legacy", "lsh-jsonl", "datasketch", "datasketch-jsonl", "rensa", "gaoya")
ENDINGS = {".py", ".pyi", ".md", ".rst", ".txt", ".pm", ".pl", ".js", ".h", ".html", ""}
THRESHOLD, NGRAM, PERMUTATIONS = 0.87, 5, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", nargs="+", default=default_folders(), help="where text is taken from")
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--truth", type=int, default=20_000, help="documents for precision and recall (0: none)")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--workers", type=int, default=1, help="threads of the engines that have them")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each engine; the best counts")
    parser.add_argument("--work", default=None, help="folder for the corpus (default: a temporary one)")
    parser.add_argument("--million", action="store_true", help="the stages on 1,000,000 documents instead")
    parser.add_argument("--documents", type=int, default=1_000_000, help="with --million: how many")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.engine:
        functions = {**ENGINE_FUNCTIONS, "million-sign": million_sign, "million-cluster": million_cluster}
        print(json.dumps(functions[args.engine](Path(args.work), args)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(args.work or temporary)
        work.mkdir(parents=True, exist_ok=True)
        million(work, args) if args.million else compare(work, args)


def default_folders() -> list[str]:
    """Python's library and packages, and where distributions keep text; other Pythons beside this one too."""
    found = [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "/usr/lib", "/usr/share", "/usr/local/lib"]
    found += [str(p) for p in sorted(Path(sys.base_prefix).resolve().parent.glob("*/lib/python3.*"))]
    return [f for f in dict.fromkeys(map(os.path.realpath, found)) if os.path.isdir(f)]


# ---------------------------------------------------------------- corpus and truth


def build_corpus(folders: list[str], megabytes: float, work: Path) -> None:
    """work/corpus.bin (documents back to back), offsets.npy, corpus.jsonl."""
    if (work / "corpus.jsonl").exists():
        return
    texts, total = [], 0
    for path in shuffled_files(folders, 200, 32_768):
        raw = path.read_bytes()
        if b"\0" in raw or not _is_utf8(raw):
            continue
        texts.append(raw)
        total += len(raw)
        if total > megabytes * 1e6:
            break
    np.save(work / "offsets.npy", np.concatenate([[0], np.cumsum([len(t) for t in texts])]).astype(np.int64))
    (work / "corpus.bin").write_bytes(b"".join(texts))
    with open(work / "corpus.jsonl", "w", encoding="utf-8") as handle:
        for text in texts:
            handle.write(json.dumps({"text": text.decode()}, ensure_ascii=False) + "\n")


def shuffled_files(folders: list[str], least: int, most: int) -> list[Path]:
    found = []
    for folder in folders:
        for root, below, names in os.walk(folder):
            below.sort()
            for name in sorted(names):
                path = os.path.join(root, name)
                if os.path.splitext(
                    name
                )[1] in ENDINGS and not os.path.islink(path) and least <= os.path.getsize(path) <= most:
                    found.append(path)
    found = list(dict.fromkeys(found))
    random.Random(0).shuffle(found)
    return [Path(f) for f in found]


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_texts(work: Path, kind: str = "bin") -> list[str]:
    if kind == "jsonl":
        with open(work / "corpus.jsonl", "rb") as handle:
            return [json.loads(line)["text"] for line in handle]
    raw, offsets = (work / "corpus.bin").read_bytes(), np.load(work / "offsets.npy").tolist()
    return [raw[a:b].decode() for a, b in itertools.pairwise(offsets)]


def shingles(text: str) -> set[str]:
    words = text.split()
    return {" ".join(words[i : i + NGRAM]) for i in range(max(1, len(words) - NGRAM + 1))} if words else set()


def true_pairs(work: Path, count: int) -> set[tuple[int, int]]:
    """Every pair with J ≥ threshold among the first `count` documents, in plain Python: rarest shingles first, prefix
    filter.
    """
    known = work / f"truth-{count}.json"
    if known.exists():
        return {(a, b) for a, b in json.loads(known.read_text())}
    sets = [shingles(t) for t in read_texts(work)[:count]]
    frequency = Counter(s for one in sets for s in one)
    index: dict[str, list[int]] = {}
    found = []
    for x in sorted(range(len(sets)), key=lambda i: len(sets[i])):
        if not sets[x]:
            continue
        prefix = sorted(sets[x], key=lambda s: (frequency[s], s))[
            : len(sets[x]) - int(np.ceil(THRESHOLD * len(sets[x]) - 1e-9)) + 1
        ]
        near = {
            y for s in prefix if frequency[s] > 1 for y in index.get(s, ()) if len(sets[y]) >= THRESHOLD * len(sets[x])
        }
        for y in near:
            shared = len(sets[x] & sets[y])
            if shared / (len(sets[x]) + len(sets[y]) - shared) >= THRESHOLD:
                found.append((min(x, y), max(x, y)))
        for s in prefix:
            if frequency[s] > 1:
                index.setdefault(s, []).append(x)
    known.write_text(json.dumps(found))
    return set(found)


# ---------------------------------------------------------------- engines: each returns seconds, memory, and pairs in a
# file


class Clock:
    """Wall and CPU seconds of named steps, all threads included."""

    def __init__(self) -> None:
        self.steps: dict[str, list[float]] = {}
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def lap(self, name: str) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.steps[name] = [wall - self._wall, cpu - self._cpu]
        self._wall, self._cpu = wall, cpu

    def done(self, work: Path, name: str, pairs: np.ndarray, before: int) -> dict:
        np.save(work / f"pairs-{name}.npy", pairs)
        return {"steps": self.steps, "pairs": len(pairs), "extra_bytes": _resident() - before}


def _resident() -> int:
    """Most memory this process has had (getrusage would count what its parent had)."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def _warm() -> None:
    """Load the compiled kernels, as a second call in any process finds them."""
    from pythia_tools import dedup

    for scheme in ("affine32", "legacy"):
        dedup.near_duplicates(["a b c d e f"] * 2, method="lsh", scheme=scheme)
    dedup.near_duplicates(["a b c d e f", "a b c d e f"])


def ours(work: Path, args: argparse.Namespace, method: str, kind: str = "bin", **options: str) -> dict:
    from pythia_tools import dedup
    from pythia_tools.dedup.exact import exact_links, similarities
    from pythia_tools.dedup.lsh import buckets_by_band
    from pythia_tools.dedup.shingles import SLACK, Packed

    _warm()
    before, clock = _resident(), Clock()
    if kind == "jsonl":
        packed = dedup.pack(read_texts(work, "jsonl"))
    else:
        size = (work / "corpus.bin").stat().st_size
        data = np.empty(size + SLACK, np.uint8)
        with open(work / "corpus.bin", "rb") as handle:
            handle.readinto(data[:size].data)
        packed = Packed(data, np.load(work / "offsets.npy"))
    clock.lap("read")
    if method == "exact":
        sets = dedup.shingle_sets(packed, NGRAM, args.workers)
        clock.lap("sign")
        clusters = dedup.members(dedup.components(len(sets), *exact_links(sets, THRESHOLD, args.workers)))
        begins = np.concatenate([[0], np.cumsum([len(c) for c in clusters])]).astype(np.int64)
        pairs = pairs_within(np.concatenate([np.empty(0, np.int64), *clusters]).astype(np.int64), begins)
        pairs = pairs[similarities(sets, *pairs.T) >= THRESHOLD]  # every such pair lies within one cluster
    else:
        signatures = dedup.minhash_signatures(packed, PERMUTATIONS, workers=args.workers, **options)
        clock.lap("sign")
        bands = buckets_by_band(signatures, *dedup.choose_bands(THRESHOLD, PERMUTATIONS))
        pairs = np.unique(np.concatenate([pairs_within(*band) for band in bands]), axis=0)
    clock.lap("pairs")
    return clock.done(work, args.engine, pairs, before)


def pairs_within(members: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """All pairs of members[begins[k] : begins[k + 1]], for every k; (n, 2)."""
    sizes, found = np.diff(begins), [np.empty((0, 2), np.int64)]
    for size in np.unique(sizes).tolist():
        groups = members[begins[:-1][sizes == size][:, None] + np.arange(size)]
        found.append(np.stack([groups[:, i].ravel() for i in np.triu_indices(size, 1)], axis=1))
    return np.sort(np.concatenate(found), axis=1)


def datasketch(work: Path, args: argparse.Namespace, kind: str = "bin") -> dict:
    from datasketch import MinHash, MinHashLSH

    before, clock = _resident(), Clock()
    texts = read_texts(work, kind)
    clock.lap("read")
    sketches, proto = [], MinHash(num_perm=PERMUTATIONS)
    for text in texts:
        sketch = proto.copy()
        sketch.update_batch([s.encode() for s in shingles(text)])
        sketches.append(sketch)
    clock.lap("sign")
    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    with index.insertion_session() as session:
        for i, sketch in enumerate(sketches):
            session.insert(i, sketch)
    pairs = [(j, i) for i, sketch in enumerate(sketches) for j in index.query(sketch) if j < i]
    clock.lap("pairs")
    return clock.done(work, args.engine, np.array(pairs), before)


def rensa(work: Path, args: argparse.Namespace) -> dict:
    from rensa import RMinHash, RMinHashLSH

    before, clock = _resident(), Clock()
    texts = read_texts(work)
    clock.lap("read")
    sketches = []
    for text in texts:
        words = text.split()
        sketch = RMinHash(num_perm=PERMUTATIONS, seed=1)
        sketch.update([" ".join(words[i : i + NGRAM]) for i in range(max(1, len(words) - NGRAM + 1))])
        sketches.append(sketch)
    clock.lap("sign")
    index = RMinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS, num_bands=8)
    for i, sketch in enumerate(sketches):
        index.insert(i, sketch)
    pairs = [(j, i) for i, sketch in enumerate(sketches) for j in index.query(sketch) if j < i]
    clock.lap("pairs")
    return clock.done(work, args.engine, np.array(pairs), before)


def gaoya(work: Path, args: argparse.Namespace) -> dict:
    os.environ["RAYON_NUM_THREADS"] = str(args.workers)
    from gaoya.minhash import MinHashStringIndex

    before, clock = _resident(), Clock()
    texts = read_texts(work)
    clock.lap("read")
    index = MinHashStringIndex(
        hash_size=32, jaccard_threshold=THRESHOLD, num_bands=8, band_size=16, num_hashes=128, analyzer="word",
        ngram_range=(NGRAM, NGRAM)
    )
    index.par_bulk_insert_docs(list(range(len(texts))), texts)
    clock.lap("sign")
    found = index.par_bulk_query(texts)
    pairs = [(j, i) for i, near in enumerate(found) for j in near if j < i]
    clock.lap("pairs")
    return clock.done(work, args.engine, np.array(pairs), before)


ENGINE_FUNCTIONS = {
    "exact": lambda w, a: ours(w, a, "exact"), "lsh": lambda w, a: ours(w, a, "lsh"), "lsh-mix64": lambda w,
    a: ours(w, a, "lsh", hashing="mix64"), "legacy": lambda w, a: ours(w, a, "lsh", scheme="legacy"),
    "lsh-jsonl": lambda w, a: ours(w, a, "lsh", "jsonl"), "datasketch": datasketch, "datasketch-jsonl": lambda w,
    a: datasketch(w, a, "jsonl"), "rensa": rensa, "gaoya": gaoya
}


def run_engine(name: str, work: Path, args: argparse.Namespace) -> dict:
    command = [sys.executable, __file__, "--engine", name, "--work", str(work), "--workers", str(args.workers)]
    command += ["--documents", str(args.documents)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "failed"}
    return json.loads(done.stdout.splitlines()[-1])


def compare(work: Path, args: argparse.Namespace) -> None:
    build_corpus(args.folders, args.megabytes, work)
    offsets = np.load(work / "offsets.npy")
    size = offsets[-1] / 1e6
    print(
        f"{len(offsets) - 1:,} documents, {size:.1f} MB; threshold {THRESHOLD}, {NGRAM}-grams, {args.workers} thread(s)"
    )
    count = min(args.truth, len(offsets) - 1)
    truth = true_pairs(work, count) if count else set()
    if count:
        print(f"{len(truth):,} pairs with J >= {THRESHOLD} among the first {count:,} documents")
    print("engine             wall s   CPU s  MB/CPU s   read   sign  pairs  MB more    pairs       P       R")
    results = {}
    for name in args.engines:
        runs = [run_engine(name, work, args) for _ in range(args.repeats)]
        if "failed" in runs[0]:
            print(f"{name:17}{runs[0]['failed'][:90]}")
            continue
        best = min(runs, key=lambda r: sum(cpu for _, cpu in r["steps"].values()))
        wall, cpu = (sum(s[i] for s in best["steps"].values()) for i in range(2))
        results[name] = cpu
        found = np.load(work / f"pairs-{name}.npy").reshape(-1, 2)
        mine = set(map(tuple, found[(found < count).all(axis=1)].tolist()))
        precision = len(mine & truth) / len(mine) if mine else float("nan")
        recall = len(mine & truth) / len(truth) if truth else float("nan")
        steps = "".join(f"{best['steps'][s][1]:7.2f}" for s in ("read", "sign", "pairs"))
        print(f"{name:17}{wall:8.2f}{cpu:8.2f}{size / cpu:10.1f}{steps}{best['extra_bytes'] / 1e6:9.0f}{best['pairs']:9,}"
              f"{precision:8.4f}{recall:8.4f}", flush=True)
    if {"lsh", "datasketch"} <= results.keys():
        a, b = (np.load(work / f"pairs-{n}.npy").reshape(-1, 2) for n in ("lsh", "datasketch"))
        equal = set(map(tuple, a.tolist())) == set(map(tuple, b.tolist()))
        print(f"lsh and datasketch give {'the same pairs' if equal else 'DIFFERENT pairs'}")
    for name in ("datasketch", "rensa", "gaoya"):
        for own in ("exact", "lsh", "lsh-mix64"):
            if name in results and own in results:
                print(f"file to pairs, per CPU second: {own} {results[name] / results[own]:.1f} times {name}")


# ---------------------------------------------------------------- a million documents, and the plan to a billion


def million(work: Path, args: argparse.Namespace) -> None:
    """The four stages on small pieces of the machine's text; memory is that of band and cluster, apart from signing."""
    write_pieces(args.folders, args.documents, work / "pieces.jsonl")
    size = (work / "pieces.jsonl").stat().st_size / 1e6
    signed, clustered = (run_engine(name, work, args) for name in ("million-sign", "million-cluster"))
    if "failed" in signed or "failed" in clustered:
        raise SystemExit(str(signed.get("failed") or clustered.get("failed")))
    n = clustered["documents"]
    print(f"{n:,} documents, {size:.0f} MB of jsonl, {args.workers} thread(s)")
    for name, (wall, cpu) in (signed["steps"] | clustered["steps"]).items():
        print(f"  {name:10} wall {wall:7.1f} s  CPU {cpu:7.1f} s  {1e6 * cpu / n:7.2f} us per document")
    print(f"  {clustered['dropped']:,} dropped in {clustered['clusters']:,} clusters")
    print(f"  resident beyond the start, band and cluster: {clustered['resident_bytes'] / n:.0f} B per document "
          f"({clustered['buckets_bytes'] / 1e6:.0f} MB allowed for buckets)")
    print(f"  on disk: {clustered['disk_bytes'] / n:.0f} B per document")
    plan(size * 1e6 / n, n, signed["steps"], clustered)


def plan(bytes_per_document: float, n: int, sign: dict, clustered: dict) -> None:
    """A billion documents of 5.9 kB (the Pile's mean), from this run's constants: signing by bytes (too much, since
    what a document costs beside its bytes weighs most in pieces of 400), the rest by documents."""
    billion, mean = 1e9, 5900.0
    per_byte = sign["sign"][1] / n / bytes_per_document
    hours = {
        "sign": billion * mean * per_byte / 3600,
        **{k: v[1] / n * billion / 3600 for k, v in clustered["steps"].items()}
    }
    print(
        "plan to 1,000,000,000 documents of 5.9 kB (5.9 TB), CPU hours at most: " + ", ".join(
            f"{k} {v:,.1f}" for k, v in hours.items()
        )
    )
    disk = clustered["disk_bytes"] / n * billion / 1e12
    memory = 24 * billion / 1e9
    spread = (hours["sign"] + hours["buckets"]) / 64
    print(f"  disk between the stages {disk:.1f} TB; the cluster stage holds 24 B per document: {memory:.0f} GB on one machine")
    print(f"  sign and buckets are independent tasks: {spread:,.1f} h on 64 cores (--backend ray, --part-mb 1024, --memory-mb 8192);")
    print(f"  cluster is one process: {hours['cluster']:.1f} h")


def write_pieces(folders: list[str], count: int, path: Path) -> None:
    """Documents of about 400 bytes, cut at line ends from files of any size."""
    if path.exists():
        return
    left = count
    with open(path, "w", encoding="utf-8") as out:
        while left:
            for file in shuffled_files(folders, 200, 4_000_000):
                raw = file.read_bytes()
                if b"\0" in raw or not _is_utf8(raw):
                    continue
                held = ""
                for line in raw.decode().splitlines(keepends=True):
                    held += line
                    if len(held) >= 400:
                        out.write(json.dumps({"text": held}, ensure_ascii=False) + "\n")
                        held, left = "", left - 1
                        if not left:
                            return
            print(f"only {count - left:,} pieces of text here; the files are taken again", file=sys.stderr)


def _million_config():  # type: ignore[no-untyped-def]
    from pythia_tools import dedup

    return dedup.preset("datasketch", part_bytes=16 << 20, memory_bytes=16 << 20)


def million_sign(work: Path, args: argparse.Namespace) -> dict:
    from pythia_tools.dedup.sign import Job, sign_shard

    _warm()
    clock = Clock()
    sign_shard(Job(_million_config(), [[str(work / "pieces.jsonl")]], work), 0, args.workers)
    clock.lap("sign")
    return {"steps": clock.steps}


def million_cluster(work: Path, args: argparse.Namespace) -> dict:
    from pythia_tools.dedup import band
    from pythia_tools.dedup.cluster import write_clusters
    from pythia_tools.dedup.sign import Job

    _warm()
    config = _million_config()
    job = Job(config, [[str(work / "pieces.jsonl")]], work)
    config.bands_and_rows()
    memory = AnonymousMemory()
    clock = Clock()
    signed = job.signed()
    documents = sum(p.facts["documents"] for p in signed)
    for task in band.bucket_tasks(config, documents):
        band.write_buckets(job, task)
    clock.lap("buckets")
    clusters = write_clusters(job, signed)
    clock.lap("cluster")
    disk = sum(p.stat().st_size for p in job.work.rglob("*") if p.is_file())
    return {
        "steps": clock.steps, "documents": documents, "dropped": clusters.facts["dropped"],
        "clusters": clusters.facts["clusters"], "resident_bytes": memory.stop(), "disk_bytes": disk,
        "buckets_bytes": config.memory_bytes
    }


class AnonymousMemory:
    """Peak of the process's own memory (RssAnon, without mapped files) above what it had at the start, sampled."""

    def __init__(self) -> None:
        self._start = self._peak = self._now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self._peak - self._start

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._peak = max(self._peak, self._now())

    @staticmethod
    def _now() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
