"""Bytes read for an embedding-norm curve: rows by HTTP range beside whole files, over a local server with the hub's
protocol.

    python scripts/benchmarks/partial_reads.py                        # 20 checkpoints at the 70M shape, about a minute
    python scripts/benchmarks/partial_reads.py --shape 410m --checkpoints 5 --format torch

A checkpoint is float16 at a Pythia shape with random weights (and, as `torch`, the causal masks that old files hold).
Three readers:

rows     `hub.open_weights(...).rows(...)`: headers and 256 fixed rows of embed_in; the curve of the doctor
tensor   embed_in whole, by range
whole    `hf_hub_download` of the real client, then the same rows from the file

Bytes are counted by the server. Each revision differs, so nothing is shared. The curve of `rows` must equal that of
`whole`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {"14m": (6, 128), "70m": (6, 512), "160m": (12, 768), "410m": (24, 1024)}
VOCABULARY = 50304
EMBED = "gpt_neox.embed_in.weight"


def main() -> None:
    args = arguments()
    work = Path(tempfile.mkdtemp(prefix="partial-reads-", dir=args.folder))
    os.environ |= {
        "PYTHIA_TOOLS_HOME": str(work / "home"), "HF_HUB_CACHE": str(work / "cache"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1"
    }
    sys.path.insert(0, str(ROOT / "tests"))
    from hub_server import Hub

    try:
        with Hub(rate=args.rate * 1e6 if args.rate else None, cdn=True) as server:
            os.environ["HF_ENDPOINT"] = server.url
            name = "model.safetensors" if args.format == "safetensors" else "pytorch_model.bin"
            paths = [write(work / f"step{k}", args.shape, k, args.format) for k in range(args.checkpoints)]
            size = paths[0].stat().st_size
            repo = server.add_model(
                "me/model", {f"step{k}": {"config.json": b"{}", name: path} for k, path in enumerate(paths)}
            )
            for branch in repo.branches.values():
                assert branch[name].digests, "the public hub knows its digests, so they are no part of the times"
            print(f"{args.shape}, {args.format}, {args.checkpoints} checkpoints of {size / 1e6:.1f} MB")
            print(f"{'reader':8} {'bytes/checkpoint':>16} {'requests':>9} {'s/checkpoint':>13} {'share of whole':>15}")
            curves = {}
            for reader in ("rows", "tensor", "whole"):
                curves[reader] = measure(server, reader, args.checkpoints, name, size)
        assert np.allclose(curves["rows"], curves["whole"], rtol=0, atol=0), "the curves differ"
        print("the curves of rows and whole are equal")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def measure(server: Any, reader: str, checkpoints: int, name: str, size: int) -> list[float]:
    """One reader over all checkpoints; prints its line and returns the curve."""
    server.forget()
    began = time.perf_counter()
    curve = [READERS[reader](server, step, name) for step in range(checkpoints)]
    seconds = (time.perf_counter() - began) / checkpoints
    asked = [r for r in server.requests if r.file is not None and r.sent and r.file.endswith(name)]
    sent = sum(r.sent for r in asked) / checkpoints
    print(f"{reader:8} {sent:16,.0f} {len(asked) / checkpoints:9.1f} {seconds:13.3f} {sent / size:15.2%}")
    return curve


def rows_curve(server: Any, step: int, name: str) -> float:
    from pythia_tools import hub

    weights = hub.open_weights(checkpoint(step))
    return norm(weights.rows(EMBED, hub.sample_rows(weights.spot(EMBED), vocab=50254)))


def tensor_curve(server: Any, step: int, name: str) -> float:
    from pythia_tools import hub

    weights = hub.open_weights(checkpoint(step))
    return norm(weights.tensor(EMBED))


def whole_curve(server: Any, step: int, name: str) -> float:
    from huggingface_hub import HfApi

    from pythia_tools import hub
    from pythia_tools.suites import Checkpoint, Folder, ModelInfo

    path = HfApi(endpoint=server.url).hf_hub_download("me/model", name, revision=f"step{step}")
    local = Checkpoint("benchmark", ModelInfo("m", None, None), step, None, f"step{step}", Folder(Path(path).parent))
    weights = hub.open_weights(local)
    value = norm(weights.rows(EMBED, hub.sample_rows(weights.spot(EMBED), vocab=50254)))
    Path(path).resolve().unlink()
    return value


READERS = {"rows": rows_curve, "tensor": tensor_curve, "whole": whole_curve}


def checkpoint(step: int) -> Any:
    from pythia_tools.suites import Checkpoint, HubRevision, ModelInfo

    return Checkpoint(
        "benchmark", ModelInfo("m", None, None), step, None, f"step{step}", HubRevision("me/model", f"step{step}")
    )


def norm(rows: np.ndarray) -> float:
    return float(np.linalg.norm(rows.astype(np.float64), axis=1).mean())


def write(folder: Path, shape: str, seed: int, layout: str) -> Path:
    """One checkpoint of random float16 tensors under GPT-NeoX's names."""
    import torch
    from safetensors.torch import save_file

    layers, d = SHAPES[shape]
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    tensors = OrderedDict({EMBED: torch.randn(VOCABULARY, d).half()})
    for i in range(layers):
        block = f"gpt_neox.layers.{i}."
        for part, rows, columns in (
            ("attention.query_key_value", 3 * d, d), ("attention.dense", d, d), ("mlp.dense_h_to_4h", 4 * d, d),
            ("mlp.dense_4h_to_h", d, 4 * d)
        ):
            tensors[f"{block}{part}.weight"] = torch.randn(rows, columns).half()
            tensors[f"{block}{part}.bias"] = torch.zeros(rows).half()
        if layout == "torch":
            tensors[f"{block}attention.bias"] = torch.ones(1, 1, 2048, 2048).bool().tril()
    tensors["embed_out.weight"] = torch.randn(VOCABULARY, d).half()
    if layout == "torch":
        torch.save(tensors, folder / "pytorch_model.bin")
        return folder / "pytorch_model.bin"
    save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="70m")
    parser.add_argument("--format", choices=["safetensors", "torch"], default="safetensors")
    parser.add_argument("--checkpoints", type=int, default=20)
    parser.add_argument(
        "--rate", type=float, help="megabytes per second that the server gives (default: as fast as it can)"
    )
    parser.add_argument("--folder", help="where to write (default: the temporary folder)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
