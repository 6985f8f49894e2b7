"""Versions, devices, manifests and caches of this installation; --online: one small checkpoint, one batch by range.

example:
  pythia-tools selfcheck
  pythia-tools selfcheck --online       # first contact with the public hub in one command (about 60 MB)
"""

import argparse
import os
import platform
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pythia_tools import hub, suites
from pythia_tools.cli.options import emit
from pythia_tools.core import files, manifests
from pythia_tools.core.errors import EXIT_DONE, EXIT_ENVIRONMENT, PythiaToolsError
from pythia_tools.core.parallel import core_count
from pythia_tools.core.results.provenance import versions
from pythia_tools.hub import client
from pythia_tools.order import load_order
from pythia_tools.order.manifest import read_manifest

ONLINE = ("pythia", "14m", 143000)
ORDER = ("pile-deduped-preshuffled", 3000)

READERS: dict[str, Callable[[Path], object]] = {
    "suites": suites.read_suite, "orders": read_manifest, "evaluation_sets": manifests.read
}
Row = tuple[str, str, str]
"""(what, ok | fail | note, detail)"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--online", action="store_true", help="also fetch one checkpoint and one batch from the hub")


def run(args: argparse.Namespace) -> int:
    rows = [("python", "ok", f"{platform.python_version()} on {platform.platform()}, {core_count()} cores")]
    found = versions().items()
    rows += [(name, "ok", at) if at else (name, "fail", f"not installed; pip install {name}") for name, at in found]
    rows += [*_devices(), *(_tried(f"manifests: {kind}", partial(_manifests, kind)) for kind in READERS), *_folders()]
    if args.online:
        rows += [_tried("hub: checkpoint", _checkpoint), _tried("hub: batch", _batch)]
    width = max(len(what) for what, _, _ in rows)
    lines = "\n".join(f"{state:4}  {what:{width}}  {detail}" for what, state, detail in rows)
    emit([dict(zip(("what", "state", "detail"), row, strict=True)) for row in rows], args, lines)
    return EXIT_ENVIRONMENT if any(state == "fail" for _, state, _ in rows) else EXIT_DONE


def _devices() -> list[Row]:
    try:
        import torch
    except ImportError as error:
        return [("device cpu", "fail", f"torch does not load: {error}")]
    rows: list[Row] = [("device cpu", "ok", f"{torch.get_num_threads()} threads")]
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(i)
        rows.append((f"device cuda:{i}", "ok", f"{properties.name}, {files.human_bytes(properties.total_memory)}"))
    if torch.backends.mps.is_available():
        rows.append(("device mps", "ok", "Apple GPU"))
    return rows


def _manifests(kind: str) -> str:
    """Every shipped manifest, read by the loader that would use it."""
    for name in manifests.names(kind):
        READERS[kind](manifests.find(kind, name))
    return f"{len(manifests.names(kind))} read"


def _folders() -> list[Row]:
    from huggingface_hub import constants

    rows: list[Row] = []
    for what, folder in (("cache", files.cache_dir()), ("hub cache", client.cache_root())):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        detail = f"{folder}, {files.human_bytes(shutil.disk_usage(there).free)} free"
        rows.append((what, "ok", detail) if os.access(there, os.W_OK) else (what, "fail", f"{detail}, not writable"))
    known = os.environ.get("HF_TOKEN") or Path(constants.HF_TOKEN_PATH).is_file()
    rows.append(("hub token", "note", "set" if known else "not set (only gated and private repositories need one)"))
    mode = ", offline (HF_HUB_OFFLINE)" if client.offline() else ""
    rows.append(("hub", "note", f"{client.shown(client.endpoint())}{mode}"))
    return rows


def _tried(what: str, check: Callable[[], str]) -> Row:
    began = time.monotonic()
    try:
        detail = check()
    except PythiaToolsError as error:
        return what, "fail", str(error)
    return what, "ok", f"{detail} in {time.monotonic() - began:.1f} s"


def _checkpoint() -> str:
    """The smallest checkpoint whole: downloaded, verified, loaded, run once."""
    import torch

    from pythia_tools import models
    from pythia_tools.tokens import open_tokenizer

    name, model, step = ONLINE
    checkpoint = suites.load_suite(name).checkpoint(model, step)
    ids = torch.tensor([open_tokenizer(hub.fetch(checkpoint)).encode("The capital of France is")])
    with torch.no_grad():
        loss = float(models.load(checkpoint, "cpu", "float32")(ids, labels=ids).loss)
    return f"{checkpoint} fetched, verified and run (loss {loss:.2f} on one sentence)"


def _batch() -> str:
    name, step = ORDER
    order = load_order(name)
    rows = order.rows(step * order.batch_rows, step * order.batch_rows + 4)
    return f"4 rows of batch {step} of {name} by range, {rows.shape[1]} tokens each"
