"""Where a checkpoint's files are, and what the hub says about their content before they are fetched.

Local folders are used as they are. Hub checkpoints are fetched (verified, resumable) into the hub cache; while one is
held, a disk budget does not evict it. The sha256 that the hub states for each weight file lets a sweep recognise
weights it has already worked through without downloading them again.
"""

import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from pythia_tools import hub
from pythia_tools.core.errors import DataError, EnvironmentFailure
from pythia_tools.suites.checkpoint import Checkpoint, Folder

_SHA256 = re.compile(r"[0-9a-f]{64}")


def local_folder(checkpoint: Checkpoint, stop: threading.Event | None = None) -> Path:
    """The checkpoint's `save_pretrained` folder on this machine, downloaded first when it is on the hub.

    Setting `stop` ends a download at its next chunk; what came is kept for the next time.
    """
    if isinstance(checkpoint.location, Folder):
        return checkpoint.location.path

    return Path(hub.fetch(checkpoint, stop=stop))


def stated_contents(checkpoint: Checkpoint) -> list[str] | None:
    """sha256 of each weight file as the hub states them, sorted; None when it does not, or cannot be asked now."""
    if isinstance(checkpoint.location, Folder) or hub.offline():
        return None
    repo, revision = checkpoint.location.repo, checkpoint.location.revision
    try:
        hub.branches(repo, retries=hub.BRIEF)
        found = [file.sha256 for file in hub.listing(repo, revision).tensor_files]
    except (DataError, EnvironmentFailure):
        return None  # the fetch will say what is wrong
    known = [sha256 for sha256 in found if sha256 is not None]
    return sorted(known) if len(known) == len(found) else None


def cached_contents(paths: Sequence[Path]) -> list[str] | None:
    """The same, read off the names of the hub cache's blobs (verified when they were placed); None for other files."""
    names = [Path(os.path.realpath(path)) for path in paths]
    if all(name.parent.name == "blobs" and _SHA256.fullmatch(name.name) for name in names):
        return sorted(name.name for name in names)
    return None
