"""Seconds per checkpoint: `pt.stream` beside a loop over `from_pretrained`, on local files and over a rate-limited
server.

    python scripts/benchmarks/streaming.py             # 70M and 410M shapes, about ten minutes, 3 GB of disk
    python scripts/benchmarks/streaming.py --shapes 70m --checkpoints 20 --rate 140MB

Checkpoints have random weights at Pythia shapes, float16 on disk, run in float32. Three tables:

local    seconds per switch on the same warm files, no computation between; `new`: weights never seen (their digest is
         taken too), `known`: seen before. `loop` is from_pretrained, the previous model dropped.
memory   resident memory over many switches, and its bound: one live module and the files of one checkpoint and of one
         in flight.
network  total time over N checkpoints with a real computation on each, through a server of so many bytes per second.
         bound = first fetch + 1.05 × Σ max(fetch, compute), with fetch and compute measured alone; `compute` is the
         forward passes, `+switch` counts the copy into the live module as computation too, `as it ran` takes fetches
         and computations as long as they were within the stream, where they (and the server, and other jobs of the
         machine) compete. With --waiting the computation is a wait of that length, as when an accelerator computes and
         the processor is free.

Each contender runs in a process of its own, with the same number of threads; the server has a process of its own too.
Revisions that the server offers differ in the last values of the last tensor, so one file on disk serves them all.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {"tiny": (64, 1, 2), "14m": (128, 6, 4), "70m": (512, 6, 8), "160m": (768, 12, 12), "410m": (1024, 24, 16)}
VOCABULARY, LENGTH = 50304, 64


def main() -> None:
    args = _arguments()
    if args.worker:
        print(json.dumps(WORKERS[args.worker](json.loads(args.given))))
        return
    folder = Path(tempfile.mkdtemp(prefix="streaming-", dir=args.folder))
    try:
        for shape in args.shapes:
            made = [str(write_checkpoint(folder / shape / f"step{k}", shape, k)) for k in range(3)]
            print(f"\n== {shape}: {_bytes(made[0]) / 1e6:.0f} MB per checkpoint on disk")
            if "local" in args.parts:
                compare_local(folder, made, args)
            if "memory" in args.parts:
                compare_memory(folder, made, args)
            if "network" in args.parts:
                compare_network(folder, made[0], args)
            shutil.rmtree(folder / shape)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_checkpoint(folder: Path, shape: str, number: int) -> Path:
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, logging

    width, layers, heads = SHAPES[shape]
    config = GPTNeoXConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width,
        vocab_size=VOCABULARY, max_position_embeddings=2048, rotary_pct=0.25, bos_token_id=0, eos_token_id=0
    )
    torch.manual_seed(number)
    logging.disable_progress_bar()
    GPTNeoXForCausalLM(config).half().save_pretrained(folder)
    return folder


# ---- local files

def compare_local(folder: Path, made: list[str], args: argparse.Namespace) -> None:
    given = {"folders": made, "switches": 4 * len(made)}
    loops, streams = [], []
    for _ in range(args.repeats):  # taking turns, so that a busy minute hits both
        loops.append(run("loop-local", given, folder, args))
        streams.append(run("stream-local", given, folder, args))
    loop = [t for r in loops for t in r["seconds"]]
    new, known = ([t for r in streams for t in r[kind]] for kind in ("new", "known"))
    print(f"{'local, s per switch':<28}{'best':>8}{'median':>8}")
    for name, times in (("from_pretrained loop", loop), ("stream, weights known", known), ("stream, weights new", new)):
        print(f"  {name:<26}{min(times):8.3f}{statistics.median(times):8.3f}")
    print(
        f"  known/loop {min(known) / min(loop):.2f} (best) {statistics.median(known) / statistics.median(loop):.2f} "
        f"(median); new/loop {min(new) / min(loop):.2f}, {statistics.median(new) / statistics.median(loop):.2f}; "
        f"logits equal: {all(r['equal'] for r in streams)}"
    )


def worker_loop_local(given: dict[str, Any]) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, logging

    logging.disable_progress_bar()
    seconds = []
    for number in range(given["switches"]):
        model = None
        start = time.perf_counter()
        model = AutoModelForCausalLM.from_pretrained(
            given["folders"][number % len(given["folders"])], dtype=torch.float32
        ).eval()
        seconds.append(time.perf_counter() - start)
        del model
    return {"seconds": seconds[1:]}


def worker_stream_local(given: dict[str, Any]) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, logging

    import pythia_tools as pt

    logging.disable_progress_bar()
    folders = given["folders"]
    chosen = [checkpoint(folders[number % len(folders)], number) for number in range(given["switches"])]
    seconds, start = [], time.perf_counter()
    for model in pt.stream(chosen, device="cpu"):
        seconds.append(time.perf_counter() - start)
        if len(seconds) == len(chosen):
            ids = torch.arange(LENGTH)[None]
            expected = AutoModelForCausalLM.from_pretrained(model.checkpoint.location.path, dtype=torch.float32).eval()
            equal = torch.equal(model(ids).logits, expected(ids).logits)
        start = time.perf_counter()
    return {"new": seconds[1:len(folders)], "known": seconds[len(folders):], "equal": equal}


# ---- memory

def compare_memory(folder: Path, made: list[str], args: argparse.Namespace) -> None:
    tiny = str(write_checkpoint(folder / "tiny", "tiny", 0))
    found = run("memory", {"folders": made, "switches": args.switches, "tiny": tiny}, folder, args)
    module, stored = found["module_bytes"] / 1e6, _bytes(made[0]) / 1e6
    rss = [value - found["before"] for value in found["rss_mb"]]
    late = rss[5:]
    print(
        f"memory over {len(rss)} switches, MB above the start: peak "
        f"{max(found['peak_mb'] - found['before'], *rss):.0f}, after switch 5 {late[0]:.0f}, last {late[-1]:.0f}, "
        f"range {max(late) - min(late):.0f}; bound {module + 2 * stored:.0f} (module {module:.0f} + file {stored:.0f} "
        f"+ in flight {stored:.0f})"
    )


def worker_memory(given: dict[str, Any]) -> dict[str, Any]:
    import pythia_tools as pt

    folders = given["folders"]
    chosen = [checkpoint(folders[number % len(folders)], number) for number in range(given["switches"])]
    for model in pt.stream([checkpoint(given["tiny"], k) for k in range(2)], device="cpu"):
        compute(model, 1)  # whatever libraries keep for themselves is there before the measurement begins
    del model
    before, rss, module_bytes = _rss_mb(), [], 0
    for model in pt.stream(chosen, device="cpu"):
        rss.append(_rss_mb())
        module_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / 1e6
    return {"before": before, "rss_mb": rss, "peak_mb": peak, "module_bytes": module_bytes}


# ---- network

def compare_network(folder: Path, base: str, args: argparse.Namespace) -> None:
    given = json.dumps({"base": base, "branches": args.checkpoints + 3, "rate": args.rate})
    server = subprocess.Popen(
        [sys.executable, __file__, "--worker", "server", "--given", given],
        stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True,
    )
    assert server.stdout is not None
    try:
        url = json.loads(server.stdout.readline())["url"]
        alone = {"url": url, "bytes": _bytes(base), "branches": list(range(args.checkpoints, args.checkpoints + 3))}
        fetch = run("fetch-alone", alone, folder, args)["seconds"]
        for share in args.compute:
            _one_regime(folder, base, url, statistics.median(fetch), share, args)
    finally:
        server.kill()
        server.wait()


def _one_regime(folder: Path, base: str, url: str, fetch: float, share: float, args: argparse.Namespace) -> None:
    rows = 0 if args.waiting else run("rows-for", {"folder": base, "seconds": fetch * share}, folder, args)["rows"]
    n = args.checkpoints
    given = {
        "url": url, "bytes": _bytes(base), "branches": list(range(n)), "rows": rows,
        "wait": fetch * share if args.waiting else None
    }
    loop = run("loop-network", given, folder, args)
    ours = run("stream-network", given, folder, args)
    typical, switch = statistics.median(ours["alone"]), ours["switch"]
    bounds = {
        "bound": fetch + 1.05 * n * max(fetch, typical), "+switch": fetch + 1.05 * n * max(fetch, typical + switch),
        "as it ran": fetch + 1.05 * sum(
            map(max, [*ours["fetches"][1:], 0.0], (seconds + switch for seconds in ours["inside"]))
        )
    }
    print(
        f"network, {n} checkpoints, {args.rate / 1e6:.0f} MB/s: fetch alone {fetch:.2f} s, compute alone {typical:.2f} "
        f"s ({f'{rows} rows' if rows else 'waiting'}), switch {switch:.2f} s, first model after {ours['first']:.2f} s"
    )
    print(f"  from_pretrained loop {loop['total']:7.1f} s   (sum of fetch and compute {n * (fetch + typical):.1f})")
    judged = ", ".join(
        f"{name} {value:.1f} ({'met' if ours['total'] <= value else 'MISSED'})" for name, value in bounds.items()
    )
    print(f"  stream               {ours['total']:7.1f} s   {judged}; {loop['total'] / ours['total']:.2f}x the loop's speed")


def worker_server(given: dict[str, Any]) -> dict[str, Any]:
    """Serves the base checkpoint under many branches, each with last values of its own, until killed."""
    sys.path.insert(0, str(ROOT / "tests"))
    from hub_server import Entry, Hub

    class Patched(Entry):
        """The base file with its last 32 bytes replaced: other content, no other disk."""

        def __init__(self, path: Path, number: int) -> None:
            super().__init__(path)
            import numpy as np

            self.tail = np.full(16, 0.001 * (number + 1), np.float16).tobytes()

        def read(self, start: int = 0, stop: int | None = None) -> bytes:
            data = super().read(start, stop)
            end = start + len(data)
            cut = self.size - 32
            return data if end <= cut else data[: max(0, cut - start)] + self.tail[max(0, start - cut):end - cut]

    base = Path(given["base"])
    hub = Hub(rate=given["rate"])
    branches = {}
    for number in range(given["branches"]):
        files = {p.name: Entry(p) for p in base.iterdir()}
        files["model.safetensors"] = Patched(base / "model.safetensors", number)
        branches[f"step{number}"] = files
    repo = hub.add_model("bench/model", {})
    repo.branches.update(branches)
    for branch in branches:
        repo.commit(branch)  # digests are taken now, not in the measured time
    hub.start()
    print(json.dumps({"url": hub.url}), flush=True)
    sys.stdin.read()
    return {}


def worker_fetch_alone(given: dict[str, Any]) -> dict[str, Any]:
    from pythia_tools import hub
    from pythia_tools.models.digest import weights_digest

    hub.branches("bench/model")
    seconds = []
    for number in given["branches"]:
        start = time.perf_counter()
        hub.fetch(hub_checkpoint(number))
        seconds.append(time.perf_counter() - start)
        weights_digest(hub_checkpoint(number))
    return {"seconds": seconds}


def worker_rows_for(given: dict[str, Any]) -> dict[str, Any]:
    """How many rows of computation take so many seconds here."""
    import pythia_tools as pt

    model = pt.models.load(given["folder"], device="cpu")
    compute(model, 16)
    best = min(compute(model, 32) for _ in range(3)) / 32
    return {"rows": max(8, round(given["seconds"] / best))}


def worker_loop_network(given: dict[str, Any]) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, logging
    from transformers.models.gpt_neox import modeling_gpt_neox  # noqa: F401 - imported before the clock starts, for both

    logging.disable_progress_bar()
    begin, seconds, dropped = time.perf_counter(), [], 0.0
    for number in given["branches"]:
        model = AutoModelForCausalLM.from_pretrained(
            "bench/model", revision=f"step{number}", dtype=torch.float32
        ).eval()
        seconds.append(compute(model, given["rows"], given["wait"]))
        del model
        start = time.perf_counter()
        shutil.rmtree(Path(os.environ["HF_HUB_CACHE"]) / "models--bench--model")  # this machine's disk, not the loop's duty
        dropped += time.perf_counter() - start
    return {"total": time.perf_counter() - begin - dropped, "compute": seconds}


def worker_stream_network(given: dict[str, Any]) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM  # noqa: F401 - imported before the clock starts, for both
    from transformers.models.gpt_neox import modeling_gpt_neox  # noqa: F401

    import pythia_tools as pt
    from pythia_tools import hub  # noqa: F401
    from pythia_tools.models import streaming

    chosen = [hub_checkpoint(number) for number in given["branches"]]
    switches: list[float] = []
    fetches: list[float] = []
    swap, local_folder = streaming.swap, streaming.local_folder

    def fetched(*place: Any) -> Path:
        start = time.perf_counter()
        folder = local_folder(*place)
        fetches.append(time.perf_counter() - start)
        return folder

    def timed(*args: Any) -> None:
        start = time.perf_counter()
        swap(*args)
        switches.append(time.perf_counter() - start)

    streaming.swap, streaming.local_folder = timed, fetched
    begin, first, inside = time.perf_counter(), 0.0, []
    for model in pt.stream(chosen, device="cpu"):
        first = first or time.perf_counter() - begin
        inside.append(compute(model, given["rows"], given["wait"]))
    total = time.perf_counter() - begin
    alone = [compute(model, given["rows"], given["wait"]) for _ in range(3)]
    return {
        "total": total, "first": first, "switch": statistics.median(switches), "alone": alone, "inside": inside,
        "fetches": fetches
    }


# ---- shared

def compute(model: Any, rows: int, wait: float | None = None) -> float:
    """Forward passes over so many rows, or a wait; seconds."""
    import torch

    if wait is not None:
        time.sleep(wait)
        return wait
    ids = torch.randint(0, 50_000, (16, LENGTH), generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    with torch.no_grad():
        for at in range(0, rows, 16):
            model.gpt_neox(ids[: min(16, rows - at)])
    return time.perf_counter() - start


def checkpoint(folder: str, number: int) -> Any:
    from pythia_tools.suites import Checkpoint, Folder, ModelInfo

    return Checkpoint(
        "bench", ModelInfo("m", None, None), number, None, f"step{number}", Folder(Path(folder)), "float32"
    )


def hub_checkpoint(number: int) -> Any:
    from pythia_tools.suites import Checkpoint, HubRevision, ModelInfo

    place = HubRevision("bench/model", f"step{number}")
    return Checkpoint("bench", ModelInfo("m", None, None), number, None, place.revision, place, "float32")


def run(worker: str, given: dict[str, Any], folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One contender in a process and with caches of its own; a disk budget of three checkpoints and a bit."""
    home = Path(tempfile.mkdtemp(dir=folder))
    environment = {
        **os.environ, "PYTHIA_TOOLS_HOME": str(home / "home"), "HF_HUB_CACHE": str(home / "hub"),
        "OMP_NUM_THREADS": str(args.threads), "HF_ENDPOINT": given.get("url", "http://127.0.0.1:9"),
        "PYTHIA_TOOLS_DISK_BUDGET": str(int(3.3 * given.get("bytes", 1e9)))
    }
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--worker", worker, "--given", json.dumps(given)], env=environment, text=True,
            check=True, stdout=subprocess.PIPE, stderr=None if args.verbose else subprocess.DEVNULL
        )
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return json.loads(done.stdout.splitlines()[-1])


def _rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _bytes(folder: str) -> int:
    return sum(p.stat().st_size for p in Path(folder).glob("*.safetensors"))


def _worker_names() -> Iterator[tuple[str, Any]]:
    for name, value in list(globals().items()):
        if name.startswith("worker_"):
            yield name.removeprefix("worker_").replace("_", "-"), value


WORKERS = dict(_worker_names())


def _arguments() -> argparse.Namespace:
    from pythia_tools.hub import parse_bytes

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["70m", "410m"], choices=SHAPES)
    parser.add_argument(
        "--parts", nargs="+", default=["local", "memory", "network"], choices=["local", "memory", "network"]
    )
    parser.add_argument("--checkpoints", type=int, default=20, help="over the network (default 20)")
    parser.add_argument("--switches", type=int, default=50, help="for the memory table (default 50)")
    parser.add_argument("--repeats", type=int, default=3, help="of the local comparison (default 3)")
    parser.add_argument(
        "--rate", type=parse_bytes, default=parse_bytes("140MB"), help="bytes per second of the server (default 140MB)"
    )
    parser.add_argument(
        "--compute", nargs="+", type=float, default=[0.5, 1.5], help="computation per checkpoint, in units of its fetch"
    )
    parser.add_argument(
        "--waiting", action="store_true", help="the computation leaves the processor free, as on an accelerator"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", help="where to put the files (default: the system's temporary folder)")
    parser.add_argument("--verbose", action="store_true", help="show what the contenders write to stderr")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--given", default="{}", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
