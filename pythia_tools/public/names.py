"""Which checkpoint a public file is about, in the words of the shipped suites.

The same weights have had several names: `pythia-19m` became `pythia-70m-v0`, `pythia-v1.1-70m` `pythia-70m`,
`intervention-pythia-v1.1-1.4b-deduped-long` `pythia-intervention-long-1.4b-deduped`. A name is brought to the hub's
present one, and that is looked up in the manifests, with the step of its revision.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath

from pythia_tools.core import manifests
from pythia_tools.suites import Suite, load_suite

CURRENT = {
    "19m": "70m", "125m": "160m", "350m": "410m", "800m": "1b", "1.3b": "1.4b", "2.7b": "2.8b", "6.7b": "6.9b",
    "13b": "12b",
}
"""Size's name before January 2023, which the first release (v0) was published under → today's."""
_PYTHIA = re.compile(
    r"(?P<swapped>intervention-)?pythia-(?:v1(?:\.1)?-)?(?P<new_swapped>intervention-)?(?P<new_long>long-)?"
    r"(?P<size>[\d.]+[mb])(?:-bf16)?(?:-(?P<batch>[\d.]+)MtokBS)?(?P<deduped>-deduped)?(?P<long>-long)?(?P<rest>-.+)?"
)
_MTOK = 1 << 20


@dataclass(frozen=True)
class Run:
    """A training run: the identity columns, but for the step; tokens of one step, None unknown."""

    suite: str | None
    model: str
    params: int | None = None
    branch: str = "main"
    seed: int | None = None
    step_tokens: int | None = None
    release: str | None = None

    def at(self, step: int | None) -> dict[str, object]:
        """The identity columns of its checkpoint at a step, and the release."""
        tokens = step * self.step_tokens if step is not None and self.step_tokens else None
        return {"suite": self.suite, "model": self.model, "params": self.params, "branch": self.branch,
                "seed": self.seed, "step": step, "tokens": tokens, "release": self.release}


def of_suite(suite: str, model: str) -> Run:
    """A model of a shipped suite; one that the suite lacks (an intervention of v0) has its base model's facts."""
    known = _suite(suite)
    base, _, branch = model.partition("-intervention")
    info = known.models.get(model) or known.models[base]
    return Run(suite, model, info.params, f"intervention{branch}" if "-intervention" in model else info.branch,
               info.seed, info.tokens_per_step, _release(suite))


def known(suite: str, model: str) -> Run:
    """A model of a shipped suite, or where it has none of that name, a run of which only the names are known."""
    return of_suite(suite, model) if model in _suite(suite).models else Run(suite, model)


def pythia(size: str, *, deduped: bool, v0: bool, swapped: bool = False, long: bool = False) -> Run:
    """A Pythia run by its properties; `size` as either release spelled it."""
    size = CURRENT.get(size.lower(), size.lower())
    branch = ("-intervention" if swapped else "") + ("-long" if swapped and long else "")
    if swapped and not v0:
        return of_suite("pythia-interventions", size + branch)
    return of_suite("pythia" + ("-deduped" if deduped else "") + ("-v0" if v0 else ""), size + branch)


def named(pretrained: str, revision: str | None) -> tuple[Run, int | None]:
    """The run and step that a model argument means: a hub name (`owner/name`) with its revision, or a folder.

    >>> run, step = named("EleutherAI/pythia-v1.1-12b-deduped", "step143000")
    >>> run.suite, run.model, step
    ('pythia-deduped', '12b', 143000)
    >>> named("exports/tiny/xs/step12", None)[0].model
    'xs'
    """
    found = _PYTHIA.fullmatch(PurePosixPath(pretrained).name) if pretrained.count("/") == 1 else None
    size = found["size"] if found else ""
    if found and found["batch"] and size in _suite("pythia").models:
        run = of_suite("pythia", size)
        tokens = round(float(found["batch"]) * _MTOK)
        model = f"{size}-{found['batch']}MtokBS"
        return Run(run.suite, model, run.params, run.branch, run.seed, tokens, run.release), _step(revision)
    repo = _present(found) if found else pretrained
    if repo.count("/") == 1:
        hit = _on_hub(repo, revision)
        if hit is not None:
            return hit
    return _in_folder(pretrained, revision)


def _present(found: re.Match[str]) -> str:
    """The hub's present name of a Pythia model."""
    swapped, long = found["swapped"] or found["new_swapped"], found["long"] or found["new_long"]
    size, first = CURRENT.get(found["size"], found["size"]), found["size"] in CURRENT
    name = ("intervention-" if swapped else "") + ("long-" if long else "") + size
    return f"EleutherAI/pythia-{name}{found['deduped'] or ''}{found['rest'] or ''}{'-v0' if first else ''}"


def _on_hub(repo: str, revision: str | None) -> tuple[Run, int | None] | None:
    off_grid = None
    for suite in _suites():
        for model, place in suite.places.items():
            if place.repo != repo:
                continue
            run = of_suite(suite.name, model)
            if revision in (None, "main"):  # Pythia's main branch is its last step, by the release's contract
                return run, place.steps[-1] if suite.name.startswith("pythia") else None
            step = next((step for step in place.steps if suite.checkpoint(model, step).revision == revision), None)
            if step is not None:
                return run, step
            off_grid = off_grid or (run, _step(revision))
    return off_grid


def _in_folder(path: str, revision: str | None) -> tuple[Run, int | None]:
    parts = PurePosixPath(path.rstrip("/")).parts
    step = _step(revision)
    if re.fullmatch(r"step-?\d+", parts[-1]) and len(parts) > 1:
        *parts_, last = parts  # FOLDER/MODEL/stepN, as suites in folders are laid out
        return Run(parts_[-2] if len(parts_) > 1 else None, parts_[-1]), _step(last)
    return Run(parts[-2] if len(parts) > 1 else None, parts[-1]), step


def _step(revision: str | None) -> int | None:
    found = re.search(r"step-?(\d+)", revision or "")
    return int(found[1]) if found else None


def _release(suite: str) -> str | None:
    return ("v0" if suite.endswith("-v0") else "v1") if suite.startswith("pythia") else None


def _suites() -> Iterator[Suite]:
    """Shipped suites, Pythia's first; one at a time, since few are needed."""
    return map(_suite, sorted(manifests.names("suites"), key=lambda n: (not n.startswith("pythia"), n)))


@cache
def _suite(name: str) -> Suite:
    return load_suite(name)
