"""`load_suite`: a shipped name, the trained micro suite, a manifest path, or a folder of checkpoints."""

import os
import re
from pathlib import Path

from pythia_tools.core import files, manifests
from pythia_tools.core.errors import RequestError, unknown
from pythia_tools.suites.checkpoint import ModelInfo
from pythia_tools.suites.schema import read_suite
from pythia_tools.suites.shapes import measured
from pythia_tools.suites.suite import Places, Suite

MANIFEST = "suite.yaml"
MICRO = "pythia-micro"
STEP_FOLDER = re.compile(r"step(\d+)")


def suite_names() -> list[str]:
    """Names of the shipped suites, and of the trained ones below the cache folder."""
    return [*manifests.names("suites"), *sorted(p.parent.name for p in trained_root().glob(f"*/{MANIFEST}"))]


def trained_root() -> Path:
    """Where trained suites live: `<cache_dir>/suites`."""
    return files.cache_dir() / "suites"


def load_suite(name_or_path: str | Path) -> Suite:
    """The suite called `name_or_path`: a shipped or trained suite's name, a manifest's path, or a folder.

    A folder with a `suite.yaml` is read by it; without one, FOLDER/stepN or FOLDER/MODEL/stepN is discovered.
    Cost: one small file, or a folder listing. Raises: UnknownNameError, RequestError, DataError.
    """
    text = str(name_or_path)
    if text in manifests.names("suites"):
        return read_suite(manifests.find("suites", text))
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*", text):
        trained = trained_root() / text / MANIFEST
        if trained.is_file():
            return read_suite(trained)
        if text == MICRO:
            raise RequestError(f"{MICRO} has not been trained on this machine yet; run `pythia-tools train` first")
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        return read_suite(path / MANIFEST) if (path / MANIFEST).is_file() else discover(path)
    if path.is_file():
        return read_suite(path)
    if "/" in text or text.endswith((".yaml", ".yml")):
        raise RequestError(
            f"{text}: no such manifest file or folder; give a path to a .yaml, a folder FOLDER/stepN or "
            f"FOLDER/MODEL/stepN, or a name: {', '.join(suite_names())}")
    raise unknown("suite", text, [*suite_names(), MICRO] if MICRO not in suite_names() else suite_names(),
                  hint="(or give a path to a manifest or a folder of checkpoints)")


HELD = ("config.json", "*.safetensors", "pytorch_model*.bin")
"""Any of these makes a `stepN` folder a checkpoint, be it a damaged one."""


def discover(folder: str | Path) -> Suite:
    """The suite in a folder without a manifest: FOLDER/stepN (one model) or FOLDER/MODEL/stepN.

    Shapes and parameters come from each model's config.json; tokens per step stay unknown.
    """
    root = Path(folder).resolve()
    own = _steps(root)
    models = {root.name: root} if own else {p.name: p for p in sorted(root.iterdir()) if p.is_dir() and _steps(p)}
    if not models:
        raise RequestError(
            f"{folder}: no checkpoints here; expected FOLDER/stepN or FOLDER/MODEL/stepN, each a save_pretrained "
            f"folder, or a {MANIFEST}")
    infos, places = {}, {}
    for name, path in models.items():
        places[name] = Places(_steps(path), folder=path)
        infos[name] = ModelInfo(name, **measured(places[name].at(name, step) for step in places[name].steps))
    return Suite(root.name, infos, places, description=f"checkpoints found in {root}", folder=root)


def _steps(folder: Path) -> tuple[int, ...]:
    """Steps of the `stepN` sub-folders with a config.json or weights; `step007` and the like are not ours."""
    found = (STEP_FOLDER.fullmatch(p.name) for p in folder.iterdir() if any(map(any, map(p.glob, HELD))))
    return tuple(sorted(int(m[1]) for m in found if m and str(int(m[1])) == m[1]))
