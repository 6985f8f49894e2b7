"""The store of token curves at its full size, and how well ages of acquisition find known ones.

    python scripts/benchmarks/curves.py                          # 1,000,000 tokens × 154 steps, about two minutes
    python scripts/benchmarks/curves.py --tokens 100000 --only store

store   values like a language model's (a sigmoid in log step and noise of 2 to 5 %) are written checkpoint by
        checkpoint, each time in a process of its own, with all steps and with half of them: bytes on disk, seconds, peak
        memory; then 300 tokens, rows and 10 steps at random are read back from a store opened anew, and compared.
        `noise` are values without any pattern, which nothing compresses much.
ages    made curves with known ages: bias, error and share without a measured age of each method, by noise and shape
fits    microseconds per curve of each method
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pythia_tools.analyses.curves import open_store
from pythia_tools.analyses.curves.acquisition import METHODS
from pythia_tools.analyses.curves.assembly import Assembly
from pythia_tools.suites import Checkpoint, Folder, ModelInfo, load_suite

ROW_TOKENS = 10
VOCABULARY = 50_277
CHANCE = float(np.log2(VOCABULARY))


class Made:
    """Curves of tokens: chance down to an end, around a mid-point in log10 steps."""

    def __init__(self, tokens: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.end = np.clip(rng.gamma(1.2, 3, tokens), 0.02, 15).astype(np.float32)
        self.mid = rng.normal(2.8, 0.5, tokens).astype(np.float32)
        self.scale = rng.uniform(0.1, 0.5, tokens).astype(np.float32)

    def at(self, step: int, pattern: bool = True) -> np.ndarray:
        """(tokens,) float16 bits at a step."""
        rng = np.random.default_rng([1, step])
        if not pattern:
            return rng.uniform(0, 20, len(self.end)).astype(np.float16)
        down = 1 / (1 + np.exp((self.mid - np.log10(max(step, 0.5))) / self.scale))
        bits = CHANCE + (self.end - CHANCE) * down
        return np.abs(bits * (1 + 0.035 * rng.standard_normal(len(bits), dtype=np.float32))).astype(np.float16)


def steps_of(count: int) -> list[int]:
    """The steps of Pythia, or so many of them, evenly spread."""
    every = load_suite("pythia").steps("70m")
    return [every[i] for i in np.unique(np.linspace(0, len(every) - 1, count).astype(int))]


def write(folder: Path, tokens: int, steps: int, pattern: bool) -> dict[str, float]:
    made = Made(tokens)
    row = np.arange(tokens) // ROW_TOKENS
    places = pd.DataFrame({"row": row, "position": np.arange(tokens) % ROW_TOKENS * 12, "token": np.arange(tokens) % VOCABULARY})
    info = ModelInfo("made", None, None)
    checkpoints = [Checkpoint("made", info, s, None, f"step{s}", Folder(folder)) for s in steps_of(steps)]
    start, own = time.perf_counter(), 0.0
    assembly = Assembly(folder, places, checkpoints)
    for checkpoint in checkpoints:
        values = made.at(checkpoint.step, pattern)
        began = time.perf_counter()
        assembly.add(checkpoint, 0, values, VOCABULARY)
        own += time.perf_counter() - began
    return {"seconds": own, "with making": time.perf_counter() - start,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def store(tokens: int, steps: int, folder: str | None) -> None:
    print("| values | steps | MB on disk | bytes per value | s to write | peak MB |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for name, count in (("curves", steps // 2), ("curves", steps), ("noise", steps)):
            own = Path(place) / f"{name}-{count}"
            command = [sys.executable, __file__, "--write", str(own), "--tokens", str(tokens), "--steps", str(count)]
            told = json.loads(subprocess.run([*command, "--pattern", name], capture_output=True, text=True, check=True).stdout)
            size = sum(path.stat().st_size for path in own.iterdir())
            print(f"| {name} | {count} | {size / 1e6:.0f} | {size / tokens / count:.2f} | {told['seconds']:.1f} | {told['peak']:.0f} |", flush=True)
        read(Path(place) / f"curves-{steps}", tokens)


def read(folder: Path, tokens: int) -> None:
    began = time.perf_counter()
    opened, made, rng = open_store(folder), Made(tokens), np.random.default_rng(5)
    opened.token(0, 0)
    print(f"\nopened in {1e3 * (time.perf_counter() - began):.0f} ms\n\n| read | median ms | worst of all ms |\n|---|---|---|")
    steps = opened.run().steps
    taken: dict[str, list[float]] = {"a token's curve": [], "a row": [], "a step": []}
    for token in rng.integers(0, tokens, 300).tolist():
        row, position = token // ROW_TOKENS, token % ROW_TOKENS * 12
        began = time.perf_counter()
        curve = opened.token(row, position)
        taken["a token's curve"].append(time.perf_counter() - began)
        began = time.perf_counter()
        rows = opened.row(row)
        taken["a row"].append(time.perf_counter() - began)
        assert (rows[token % ROW_TOKENS] == curve).all()
        assert curve[17] == made.at(steps[17])[token] if token % 30 == 0 else True
    for step in rng.choice(steps, 10, replace=False).tolist():
        began = time.perf_counter()
        values = opened.step(step)
        taken["a step"].append(time.perf_counter() - began)
        assert (values == made.at(step)).all(), "what is read is what was written"
    for name, seconds in taken.items():
        print(f"| {name} | {1e3 * np.median(seconds):.2f} | {1e3 * max(seconds):.1f} |")


def ages(curves: int = 400) -> None:
    """Mean error of the ages found, and their absolute error, in decades of steps."""
    print("\n| curves | noise, bits | method | bias | mean absolute error | clipped | failed |\n|---|---|---|---|---|---|---|")
    rng, steps = np.random.default_rng(3), np.array(steps_of(154))
    x = np.log10(np.maximum(steps, 0.5))
    mid = rng.uniform(1.5, 4.2, curves)
    for shape in ("sigmoid", "sigmoid, 30 % forgotten again", "flat, then sudden"):
        scale = 0.03 if "sudden" in shape else 0.25
        down = 10 / (1 + np.exp((mid[:, None] - x) / scale))
        if "forgotten" in shape:
            down -= 3 / (1 + np.exp((np.minimum(mid + 0.9, 4.8)[:, None] - x) / 0.1))
        for noise in (0.1, 0.5):
            made = CHANCE - down + rng.normal(0, noise, down.shape)
            for name, method in METHODS.items():
                found = method(made, steps, CHANCE)
                error = found.age - mid
                print(f"| {shape} | {noise} | {name} | {np.nanmean(error):+.3f} | {np.nanmean(np.abs(error)):.3f} | "
                      f"{found.clipped.mean():.1%} | {found.failed.mean():.1%} |", flush=True)


def fits(curves: int = 1000) -> None:
    print("\n| method | µs per curve of 154 checkpoints |\n|---|---|")
    steps = steps_of(154)
    made = np.stack([Made(curves).at(step) for step in steps], axis=1).astype(np.float64)
    for name, method in METHODS.items():
        method(made[:10], steps, CHANCE)
        began = time.process_time()
        method(made, steps, CHANCE)
        print(f"| {name} | {1e6 * (time.process_time() - began) / curves:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=154)
    parser.add_argument("--only", choices=["store", "ages", "fits"])
    parser.add_argument("--folder", help="where the stores are written (default: the system's folder for such)")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--pattern", default="curves", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        print(json.dumps(write(Path(args.write), args.tokens, args.steps, args.pattern == "curves")))
        return
    if args.only in (None, "store"):
        store(args.tokens, args.steps, args.folder)
    if args.only in (None, "ages"):
        ages()
    if args.only in (None, "fits"):
        fits()


if __name__ == "__main__":
    main()
