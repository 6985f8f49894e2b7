"""What exists on the hub against the step grid. Cost: one request per repository."""

from __future__ import annotations

from pythia_tools.core.errors import DataError
from pythia_tools.hub.repositories import branches
from pythia_tools.suites import Folder, HubRevision, Suite


def grid_states(suite: Suite, model: str) -> tuple[dict[int, str], list[str]]:
    """({step: present or missing} over the grid, branches that no step of the grid names).

    A repository that does not exist misses every step. Raises: EnvironmentFailure when the hub cannot be reached.
    """
    states: dict[int, str] = {}
    there: dict[str, str] = {}
    named: set[str] = set()
    for step in suite.steps(model):
        location = suite.checkpoint(model, step).location
        if isinstance(location, Folder):
            states[step] = "present" if (location.path / "config.json").is_file() else "missing"
            continue
        there = there or _branches(location)
        named.add(location.revision)
        states[step] = "present" if location.revision in there else "missing"
    if not states and suite.places[model].repo is not None:
        there = _branches(HubRevision(str(suite.places[model].repo), "main"))
    return states, sorted(set(there) - named - {"main"})


def _branches(location: HubRevision) -> dict[str, str]:
    try:
        return branches(location.repo)
    except DataError:
        return {}
