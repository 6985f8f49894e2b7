"""The nouns of a suite: where a checkpoint's files are, what a model is, what a checkpoint is.

All frozen, all cheap: nothing here opens a file or a connection.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Folder:
    """A local `save_pretrained` folder."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class HubRevision:
    """A repository and revision on the hub (or on HF_ENDPOINT)."""

    repo: str
    revision: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}"


@dataclass(frozen=True)
class Defect:
    """A known fault of some checkpoints, with its source. `steps` None means all of them.

    `severity` is `wrong` (the weights are not what the name says: loaders refuse unless told to go on)
    or `note` (worth knowing, harmless: step0 equal to step1).
    """

    steps: tuple[int, ...] | None
    what: str
    source: str
    severity: str = "wrong"

    def covers(self, step: int) -> bool:
        return self.steps is None or step in self.steps


@dataclass(frozen=True)
class ModelInfo:
    """One training run of a suite: `70m`, `160m-seed3`, `m-swap`.

    `shape` holds architecture, layers, d_model, heads, vocab (padded), rotary_pct, context where known.
    `branch` is `main`, or the intervention's name; `base` and `branch_step` say what a branch left and when.
    `schedule` holds kind, warmup, decay_steps, floor (see `suites.learning_rate`); `order` names the data
    order this run consumed; `stored_dtype` is the files' dtype and `buffers` what they hold besides the
    parameters; `initialisation` names the weights' distribution at step 0 (see `suites.initial_std`);
    `tokenizer` is `owner/name` or `owner/name@revision` on the hub, or a local path.
    """

    name: str
    params: int | None
    non_embedding: int | None
    branch: str = "main"
    base: str | None = None
    branch_step: int | None = None
    seed: int | None = None
    shape: dict[str, Any] = field(default_factory=dict, hash=False, compare=False, repr=False)
    defects: tuple[Defect, ...] = field(default=(), repr=False)
    peak_lr: float | None = field(default=None, repr=False)
    schedule: dict[str, Any] = field(default_factory=dict, hash=False, compare=False, repr=False)
    order: str | None = field(default=None, repr=False)
    tokens_per_step: int | None = field(default=None, repr=False)
    batch_rows: int | None = field(default=None, repr=False)
    dtype: str | None = field(default=None, repr=False)
    stored_dtype: str | None = field(default=None, repr=False)
    buffers: str | None = field(default=None, repr=False)
    initialisation: str | None = field(default=None, repr=False)
    note: str | None = field(default=None, repr=False)
    tokenizer: str | None = field(default=None, repr=False)
    tokenizer_source: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Checkpoint:
    """One model at one step; `tokens` is step × tokens per step of its run (None when unknown)."""

    suite: str
    model: ModelInfo
    step: int
    tokens: int | None
    revision: str
    location: Folder | HubRevision
    dtype: str | None = None
    """The dtype analyses should load it in (the suite's dtype policy); None: the analysis' default."""

    @property
    def identity(self) -> dict[str, Any]:
        """The identity columns of every table (`tables.IDENTITY`)."""
        return {
            "suite": self.suite, "model": self.model.name, "params": self.model.params, "branch": self.model.branch,
            "seed": self.model.seed, "step": self.step, "tokens": self.tokens,
        }

    @property
    def defects(self) -> tuple[Defect, ...]:
        """The known faults that cover this checkpoint."""
        return tuple(d for d in self.model.defects if d.covers(self.step))

    def __str__(self) -> str:
        return f"{self.suite}/{self.model.name}/step{self.step}"
