"""What a micro suite is made of: every number of it, checked, frozen, and digested.

The default is `pythia-micro`: three models that take about two minutes each core on a laptop of 2026. `tiny_recipe()`
is the same thing in seconds, for tests and first tries. The schedule's and initialisation's form is Pythia's
(Biderman et al. 2023, arXiv:2304.01373); learning rates are higher, because the models are four orders smaller.
"""

import dataclasses
import math
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pythia_tools.core import files
from pythia_tools.core.errors import RequestError, unknown

FORMAT = 1
"""Raised when code changes what comes out of a recipe, so that an old suite is never taken for a new one."""

MANY = 10**9
Limits = dict[str, tuple[type, float, float]]
"""Field → its type, least and greatest value."""
LIMITS: Limits = {
    "seed": (int, 0, 2**32 - 1), "steps": (int, 1, MANY), "batch_rows": (int, 1, MANY),
    "seq_length": (int, 32, MANY),  # room for planted sentences
    "vocab": (int, 512, 65_000),  # bytes and planted words; ids of 16 bits
    "checkpoint_every": (int, 1, MANY), "heldout_rows": (int, 1, MANY), "max_document_rows": (int, 1, MANY),
    "warmup": (float, 0, 1), "min_lr": (float, 0, 1), "weight_decay": (float, 0, 10), "clip": (float, 1e-9, MANY),
    "dedup_threshold": (float, 0.1, 1),
}
MODEL_LIMITS: Limits = {
    "d_model": (int, 1, MANY), "layers": (int, 1, MANY), "heads": (int, 1, MANY), "peak_lr": (float, 1e-9, 1),
}


@dataclass(frozen=True)
class ModelSpec:
    """One model: its name, shape and peak learning rate."""

    name: str
    d_model: int
    layers: int
    heads: int
    peak_lr: float


@dataclass(frozen=True)
class Canaries:
    """Whole held-out windows planted verbatim. `copies` maps exposures to the number of distinct canaries.

    Bursts: for each of `burst_steps`, `burst_each` canaries of every count in `burst_copies` are planted one copy per
    batch in the last batches before that checkpoint. `controls` are windows from the same source, planted nowhere.
    """

    copies: tuple[tuple[int, int], ...] = (
        (1, 40), (2, 24), (4, 24), (8, 20), (16, 20), (32, 20), (64, 16), (128, 12), (256, 8),
    )
    controls: int = 60
    burst_steps: tuple[int, ...] = (600, 900, 1200)
    burst_copies: tuple[int, ...] = (1, 4, 16, 32)
    burst_each: int = 2

    @property
    def plan(self) -> list[tuple[int, int | None]]:
        """(copies, burst step) of every canary; controls first, bursts last."""
        spread = [(copies, None) for copies, n in ((0, self.controls), *self.copies) for _ in range(n)]
        copies = [n for n in sorted(self.burst_copies) for _ in range(self.burst_each)]
        return [*spread, *((n, step) for step in self.burst_steps for n in copies)]


@dataclass(frozen=True)
class Facts:
    """`relations` × `entities` invented facts; the entity of rank r is mentioned top / r^exponent times, or once."""

    relations: int = 3
    entities: int = 80
    top: int = 800
    exponent: float = 1.2


@dataclass(frozen=True)
class Sums:
    """`operands` two-digit first operands; that of rank r is in about top / r sums, shared evenly by nine partners."""

    operands: int = 24
    top: int = 2400


@dataclass(frozen=True)
class Pronouns:
    """`sentences` with an occupation and pronouns of which a share `skew` follows the occupation's stereotype."""

    sentences: int = 15_000
    skew: float = 0.85


@dataclass(frozen=True)
class Recipe:
    """A micro suite. Steps, rows and checkpoints as in Pythia: step s has consumed rows [0, batch_rows · s)."""

    name: str = "pythia-micro"
    models: tuple[ModelSpec, ...] = (
        ModelSpec("xs", 32, 2, 4, 1.2e-2),
        ModelSpec("s", 64, 3, 4, 8e-3),
        ModelSpec("m", 128, 4, 4, 4e-3),
    )
    seed: int = 1234
    steps: int = 1500
    batch_rows: int = 16
    seq_length: int = 64
    vocab: int = 1280
    checkpoint_every: int = 150
    """Checkpoints: 0 and powers of two below the first of these, then every so many steps, and the last step."""
    warmup: float = 0.02
    min_lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    clip: float = 1.0
    swap_from: int | None = 1200
    """The step at which the branch with swapped pronouns leaves the main run (None: no branch)."""
    keep_states: tuple[int, ...] = ()
    """Further steps whose optimizer state is kept, so that other branches can leave there (the swap's always is)."""
    canaries: Canaries = Canaries()
    facts: Facts = Facts()
    sums: Sums = Sums()
    pronouns: Pronouns = Pronouns()
    heldout_rows: int = 512
    dedup_threshold: float = 0.7
    max_document_rows: int = 6

    def __post_init__(self) -> None:
        _check(self)

    @property
    def rows(self) -> int:
        """Rows that training consumes."""
        return self.steps * self.batch_rows

    @property
    def num_samples(self) -> int:
        """What GPT-NeoX asks of the index maps for this run: rows plus half a per cent."""
        return math.ceil(self.rows * 1.005)

    def checkpoints(self) -> tuple[int, ...]:
        """Steps at which every model is saved."""
        return checkpoint_steps(self.steps, self.checkpoint_every, also=tuple(self.branch_points()))

    def branch_points(self) -> frozenset[int]:
        """Steps whose optimizer state is kept."""
        return frozenset({*self.keep_states, *([self.swap_from] if self.swap_from else [])})

    def digest(self) -> str:
        """Changes with any number of the recipe, with the corpus (the running Python's library), and with `FORMAT`."""
        return files.digest({"recipe": dataclasses.asdict(self), "format": FORMAT, "python": platform.python_version()})

    def model(self, name: str) -> ModelSpec:
        """The model of that name. Raises: UnknownNameError."""
        for spec in self.models:
            if spec.name == name:
                return spec
        raise unknown("model", name, [m.name for m in self.models])


def checkpoint_steps(steps: int, every: int, also: tuple[int, ...] = ()) -> tuple[int, ...]:
    """0, powers of two up to 512, then multiples of `every`, and the last step.

    Example: `checkpoint_steps(1500, 150)` → 0, 1, 2, 4, …, 512, 600, 750, …, 1500.
    """
    powers = [2**k for k in range(10) if 2**k <= steps]
    return tuple(sorted({0, *powers, *(s for s in range(every, steps + 1, every) if s > powers[-1]), steps, *also}))


def tiny_recipe(**changes: Any) -> Recipe:
    """Two sizes, 60 steps, a few seconds: the same machinery, nothing learned."""
    tiny = Recipe(
        "micro-tiny", (ModelSpec("xxs", 16, 1, 2, 1.2e-2), ModelSpec("xs", 32, 2, 4, 1.2e-2)),
        steps=60, checkpoint_every=20, swap_from=40, heldout_rows=32,
        canaries=Canaries(
            ((1, 4), (2, 3), (8, 2), (32, 1)), controls=4, burst_steps=(40,), burst_copies=(1, 4), burst_each=1,
        ),
        facts=Facts(relations=2, entities=8, top=24), sums=Sums(operands=4, top=90), pronouns=Pronouns(sentences=300),
    )
    return dataclasses.replace(tiny, **changes)


def recipe_from(value: Mapping[str, Any]) -> Recipe:
    """The default recipe with a mapping's fields laid over it (a YAML config). Raises RequestError naming the field."""
    value = dict(value)
    base = value.pop("base", "default")
    if base not in ("default", "tiny"):
        raise RequestError(f"recipe: base is {base!r}; allowed: default, tiny")
    return _changed(tiny_recipe() if base == "tiny" else Recipe(), value, "recipe")


Part = TypeVar("Part", Recipe, Canaries, Facts, Sums, Pronouns)


def _changed(base: Part, value: object, where: str) -> Part:
    """A dataclass with some fields replaced, nested ones too."""
    if not isinstance(value, Mapping):
        raise RequestError(f"{where}: is a {type(value).__name__}; it must be a mapping")
    known = [f.name for f in dataclasses.fields(base)]
    if extra := sorted(set(map(str, value)) - set(known)):
        raise RequestError(f"{where}: unknown {', '.join(extra)}; allowed: {', '.join(known)}")
    changes = {}
    for name, given in value.items():
        if dataclasses.is_dataclass(getattr(base, name)):
            given = _changed(getattr(base, name), given, f"{where}: {name}")
        elif name == "models":
            given = _models(given)
        elif name == "copies" and isinstance(given, Mapping):
            given = sorted(given.items())
        changes[name] = _frozen(given)
    try:
        return dataclasses.replace(base, **changes)
    except TypeError as error:  # a comparison that text or a list cannot take part in
        raise RequestError(f"{where}: {error}") from error


def _models(given: Any) -> tuple[ModelSpec, ...]:
    try:
        return tuple(ModelSpec(**m) for m in given)
    except TypeError as error:
        wanted = "a list of mappings with name, d_model, layers, heads, peak_lr"
        raise RequestError(f"recipe: models: must be {wanted} ({error})") from error


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list | tuple) else value


def _need(ok: bool, what: str) -> None:
    if not ok:
        raise RequestError(f"recipe: {what}")


def _check(recipe: Recipe) -> None:
    """Raises RequestError naming the first field that is wrong."""
    _check_numbers(recipe, LIMITS)
    names = [m.name for m in recipe.models]
    _need(len(set(names)) == len(names) > 0, f"models {names}: a suite has at least one, each with a name of its own")
    for spec in recipe.models:
        right = re.fullmatch(r"[a-z][a-z0-9]*", str(spec.name)) is not None
        _need(right, f"model name {spec.name!r}; allowed: lower-case letters and digits, a letter first")
        _check_numbers(spec, MODEL_LIMITS, f"model {spec.name}: ")
        unit = 8 * spec.heads  # a quarter of a head rotates, in pairs
        _need(spec.d_model % unit == 0, f"model {spec.name}: d_model is {spec.d_model}; allowed: multiples of {unit}")
    _check_numbers(recipe.pronouns, {"skew": (float, 0.5, 1)}, "pronouns: ")
    fits = recipe.swap_from is None or 0 < recipe.swap_from < recipe.steps
    _need(fits, f"swap_from is {recipe.swap_from!r}; allowed: 1 to {recipe.steps - 1}, or null")
    wrong = [s for s in recipe.keep_states if not (isinstance(s, int) and 0 < s <= recipe.steps)]
    _need(not wrong, f"keep_states {wrong}; allowed: 1 to {recipe.steps}")
    steps = set(recipe.checkpoints())
    wrong = [s for s in recipe.canaries.burst_steps if s not in steps]
    _need(not wrong, f"canaries: burst_steps {wrong} are not checkpoints; allowed: {sorted(steps - {0})}")
    fits = all(0 < copies <= 4096 and n > 0 for copies, n in recipe.canaries.copies)
    _need(fits, "canaries: copies must map exposures (1 to 4096) to a number of canaries")


def _check_numbers(holder: Recipe | ModelSpec | Pronouns, limits: Limits, where: str = "") -> None:
    for name, (kind, low, high) in limits.items():
        value = getattr(holder, name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        right = (whole or (kind is float and isinstance(value, float))) and low <= value <= high
        wanted = "whole numbers" if kind is int else "numbers"
        _need(right, f"{where}{name} is {value!r}; allowed: {wanted} from {low} to {high}")
