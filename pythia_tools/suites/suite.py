"""A suite: its models, their steps, and the checkpoints a request means."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pythia_tools.core import progress
from pythia_tools.core.errors import RequestError, few, unknown
from pythia_tools.suites.checkpoint import Checkpoint, Defect, Folder, HubRevision, ModelInfo
from pythia_tools.suites.steps import Request, select


@dataclass(frozen=True)
class Places:
    """Where the checkpoints of one model are: a hub repository or a folder pattern, and how steps are labelled.

    `label_factor` and `label_offset` turn a step into the number in its revision (v0 runs with doubled batches
    are labelled on the scale of the undoubled ones, so step 500 is `step1000`). `revisions` names them one by one, in
    this repository or one of their own.
    """

    steps: tuple[int, ...]
    repo: str | None = None
    revision: str | None = "step{step}"
    folder: Path | None = None
    pattern: str = "step{step}"
    label_factor: int = 1
    label_offset: int = 0
    revisions: Mapping[int, str | HubRevision] = field(default_factory=dict)

    def at(self, model: str, step: int) -> Path:
        """The folder of a step, for models in folders."""
        assert self.folder is not None
        return self.folder / self.pattern.format(model=model, step=step)


@dataclass(frozen=True)
class Suite:
    """A family of models with known checkpoints.

    `order` names the data order the runs consumed (a name or a path; None when unknown; a model's own
    `order` wins where it has one); `tokenizer` is a hub repository (`owner/name`, `owner/name@revision`) or a local
    path, and again a model's own wins. `folder` is the suite's own folder, None for suites on the hub.
    """

    name: str
    models: dict[str, ModelInfo]
    places: dict[str, Places]
    description: str = ""
    sources: tuple[str, ...] = ()
    order: str | None = None
    folder: Path | None = None
    tokens_per_step: int | None = None
    batch_rows: int | None = None
    seq_length: int | None = None
    tokenizer: str | None = None

    def model(self, name: str) -> ModelInfo:
        """Raises UnknownNameError naming the nearest and all."""
        if name not in self.models:
            raise unknown(f"model of {self.name}", name, self.models)
        return self.models[name]

    def steps(self, model: str) -> list[int]:
        """Steps at which the model was saved, ascending."""
        self.model(model)
        return list(self.places[model].steps)

    def checkpoint(self, model: str, step: int) -> Checkpoint:
        """One checkpoint, whether or not its step is on the grid."""
        info, place = self.model(model), self.places[model]
        named = self._revision(place, info, step)
        revision = named.revision if isinstance(named, HubRevision) else named
        location: Folder | HubRevision
        if place.folder is not None:
            location = Folder(place.at(model, step))
        else:
            assert place.repo is not None, "the schema checks that a model has a repo or a folder"
            location = named if isinstance(named, HubRevision) else HubRevision(place.repo, revision)
        tokens = step * info.tokens_per_step if info.tokens_per_step else None
        return Checkpoint(self.name, info, step, tokens, revision, location, info.dtype)

    def _revision(self, place: Places, info: ModelInfo, step: int) -> str | HubRevision:
        if step in place.revisions:
            return place.revisions[step]
        if place.revision is None:
            raise RequestError(
                f"{self.name}/{info.name}: no revision is known for step {step}; name it under revisions in a manifest")
        tokens = step * (info.tokens_per_step or 0)
        return place.revision.format(
            step=step, label=step * place.label_factor + place.label_offset, model=info.name,
            tokens_b=-(-tokens // 10**9), tokens_b_nearest=(tokens + 5 * 10**8) // 10**9,
        )

    def checkpoints(
        self, models: Iterable[str] | str | None = None, steps: Request = "all", *, allow_defective: bool | None = None,
        leave_out_defective: bool = False,
    ) -> list[Checkpoint]:
        """Checkpoints by model (in the order asked, or the suite's), then step.

        `steps` is a request of the step language (`suites.steps`). Choosing is not loading, so known-wrong checkpoints
        may be chosen; what loads them refuses unless told to go on. `allow_defective` False refuses here already,
        True warns. `leave_out_defective`: those known to be wrong are not chosen, and how many is said.
        Raises: RequestError, UnknownNameError.
        """
        wanted = list(self.models) if models is None else [models] if isinstance(models, str) else list(models)
        if not wanted:
            raise RequestError(f"no models asked of {self.name}; known: {', '.join(self.models)}")
        steps = steps if isinstance(steps, str | int) else list(steps)
        found = []
        for name in dict.fromkeys(wanted):
            info = self.model(name)
            chosen = select(steps, self.steps(name), tokens_per_step=info.tokens_per_step,
                            who=f"{self.name}/{name}", lenient=info.branch != "main")
            found += [self.checkpoint(name, step) for step in chosen]
        if leave_out_defective:
            sound = [c for c in found if all(defect.severity != "wrong" for defect in c.defects)]
            if len(sound) < len(found):
                left = f"{len(found) - len(sound)} of {len(found)} checkpoints"
                progress.note(f"{self.name}: {left} are known to be wrong and left out")
            found = sound
        if not found:
            raise RequestError(f"steps {steps!r} name no checkpoint of {', '.join(wanted)} in {self.name}")
        if allow_defective is not None:
            check_defects(found, allow_defective=allow_defective)
        return found


def check_defects(checkpoints: Iterable[Checkpoint], *, allow_defective: bool) -> None:
    """One message per model with known-wrong checkpoints: a RequestError, or if allowed a warning, once a process."""
    wrong: dict[tuple[str, str, Defect], list[int]] = {}
    for checkpoint in checkpoints:
        for defect in checkpoint.defects:
            if defect.severity == "wrong":
                wrong.setdefault((checkpoint.suite, checkpoint.model.name, defect), []).append(checkpoint.step)
    messages = [f"{suite}/{model}: {_steps(steps)} known to be wrong: {defect.what} ({defect.source})"
                for (suite, model, defect), steps in wrong.items()]
    if not messages:
        return
    if not allow_defective:
        raise RequestError(
            f"{'; '.join(messages)}; leave them out with --leave-out-defective, or go on with "
            "--allow-defective (allow_defective=True)")
    for message, (suite, model, defect) in zip(messages, wrong, strict=True):
        if (suite, model, defect.what) not in _warned:
            _warned.add((suite, model, defect.what))
            progress.warn(message)


_warned: set[tuple[str, str, str]] = set()


def _steps(steps: list[int]) -> str:
    return f"step {steps[0]} is" if len(steps) == 1 else f"steps {few(steps, 8)} are"
