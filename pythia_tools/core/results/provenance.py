"""What a result file says about where it came from: versions, code revision, machine, time."""

import importlib.metadata
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pythia_tools.core.parallel import core_count

PACKAGES = (
    "pythia-tools", "torch", "transformers", "huggingface-hub", "safetensors", "tokenizers", "datasets",
    "numpy", "pandas", "pyarrow", "scipy", "numba", "datasketch", "matplotlib",
)


def provenance() -> dict[str, Any]:
    """JSON-able facts about this process; no host name, user name or token."""
    return {
        "versions": versions(), "python": platform.python_version(), "platform": platform.platform(),
        "processors": core_count(), "git_revision": git_revision(),
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str | None]:
    return {name: version_of(name) for name in PACKAGES}


def version_of(name: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_revision() -> str | None:
    """Commit of the source checkout this package runs from, `-dirty` when changed; None for an installed wheel."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
