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
from typing import Any, get_args, get_origin, get_type_hints

from pythia_tools.core import files
from pythia_tools.core.errors import RequestError, unknown

FORMAT = 1
"""Raised when code changes what comes out of a recipe, so that an old suite is never taken for a new one."""

MANY = 10**9
LIMITS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1), "steps": (1, MANY), "batch_rows": (1, 10**6),
    "seq_length": (32, 10**6),  # room for planted sentences
    "vocab": (512, 65_000),  # bytes and planted words; ids of 16 bits
    "checkpoint_every": (1, MANY), "heldout_rows": (1, 10**6), "max_document_rows": (1, 10**6), "swap_from": (1, MANY),
    "keep_states": (1, MANY), "warmup": (0, 1), "min_lr": (0, 1), "betas": (0, 1 - 1e-9), "weight_decay": (0, 10),
    "clip": (1e-9, MANY), "dedup_threshold": (0.1, 1), "d_model": (1, 10**5), "layers": (1, 10**3),
    "heads": (1, 10**3), "peak_lr": (1e-9, 1), "copies": (1, 4096), "controls": (0, 4096), "burst_steps": (1, MANY),
    "burst_copies": (1, 4096), "burst_each": (0, 4096), "relations": (1, 3), "entities": (1, 10**3),
    "top": (1, 10**6), "exponent": (0, 10), "operands": (1, 80), "sentences": (0, 10**6), "skew": (0.5, 1),
}
"""Field → least and greatest value, of each number in it."""
OTHERS = {"name": "text", "models": "a list of mappings of name, d_model, layers, heads, peak_lr",
          "copies": "a mapping of exposures (1 to 4096) to numbers of canaries"}


class Checked:
    """Fields are of their types, and numbers within LIMITS. Raises RequestError naming the first that is not."""

    def __post_init__(self) -> None:
        for name, wanted in get_type_hints(type(self)).items():
            low, high = LIMITS.get(name, (0, 0))
            numbers = "numbers" if "float" in str(wanted) else "whole numbers"
            allowed = OTHERS.get(name, f"{numbers} from {low} to {high}")
            came = getattr(self, name)
            _need(_fits(wanted, came, low, high), f"{name} is {came!r:.80}; allowed: {allowed}")


def _fits(wanted: Any, value: object, low: float, high: float) -> bool:
    inside = get_args(wanted)
    if get_origin(wanted) is tuple:
        kinds = (*inside[:1],) * len(value) if isinstance(value, tuple) and inside[-1] is ... else inside
        return isinstance(value, tuple) and len(value) == len(kinds) and all(
            _fits(kind, v, low, high) for kind, v in zip(kinds, value, strict=True)
        )
    if inside:  # or None
        return value is None or _fits(inside[0], value, low, high)
    if wanted in (int, float):
        return type(value) in (int, wanted) and low <= value <= high  # type: ignore[operator]
    return isinstance(value, wanted)


def _need(ok: bool, what: str) -> None:
    if not ok:
        raise RequestError(f"recipe: {' '.join(what.split())}")


@dataclass(frozen=True)
class ModelSpec(Checked):
    """One model: its name, shape and peak learning rate."""

    name: str
    d_model: int
    layers: int
    heads: int
    peak_lr: float


@dataclass(frozen=True)
class Canaries(Checked):
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
class Facts(Checked):
    """`relations` × `entities` invented facts; the entity of rank r is mentioned top / r^exponent times, or once."""

    relations: int = 3
    entities: int = 80
    top: int = 800
    exponent: float = 1.2


@dataclass(frozen=True)
class Sums(Checked):
    """`operands` two-digit first operands; that of rank r is in about top / r sums, shared evenly by nine partners."""

    operands: int = 24
    top: int = 2400


@dataclass(frozen=True)
class Pronouns(Checked):
    """`sentences` with an occupation and pronouns of which a share `skew` follows the occupation's stereotype."""

    sentences: int = 15_000
    skew: float = 0.85


@dataclass(frozen=True)
class Recipe(Checked):
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
        super().__post_init__()
        _need(re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name) is not None, f"name {self.name!r:.80} is no folder's name")
        names = [m.name for m in self.models]
        _need(len(set(names)) == len(names) > 0, f"models {names}: a suite has at least one, each with its own name")
        for spec in self.models:
            right = re.fullmatch(r"[a-z][a-z0-9]*", spec.name) is not None
            _need(right, f"model name {spec.name!r:.80}; allowed: lower-case letters and digits, a letter first")
            unit = 8 * spec.heads  # a quarter of a head rotates, in pairs
            what = f"model {spec.name}: d_model is {spec.d_model}"
            _need(spec.d_model % unit == 0, f"{what}; allowed: multiples of {unit}")
        fits = (self.swap_from or 0) < self.steps
        _need(fits, f"swap_from is {self.swap_from}; allowed: 1 to {self.steps - 1}, or null")
        late = [s for s in self.keep_states if s > self.steps]
        _need(not late, f"keep_states {late}; allowed: 1 to {self.steps}")
        _need(len(self.canaries.plan) > 0, "canaries: none; give controls, copies or bursts")
        steps = set(self.checkpoints())
        wrong = [s for s in self.canaries.burst_steps if s not in steps]
        _need(not wrong, f"canaries: burst_steps {wrong} are not checkpoints; allowed: {sorted(steps - {0})}")

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
    _need(base in ("default", "tiny"), f"base is {base!r:.80}; allowed: default, tiny")
    recipe: Recipe = _changed(tiny_recipe() if base == "tiny" else Recipe(), value, "fields")
    return recipe


def _changed(base: Any, value: object, where: str) -> Any:
    """A dataclass, or one of that type, with some fields from a mapping, nested ones too."""
    kind = base if isinstance(base, type) else type(base)
    known = {f.name: f.default for f in dataclasses.fields(kind)}
    _need(isinstance(value, Mapping), f"{where} is {value!r:.80}; allowed: a mapping of {', '.join(known)}")
    given = {str(name): v for name, v in value.items()}  # type: ignore[attr-defined]
    extra = sorted(given.keys() - known)
    _need(not extra, f"{where}: unknown {', '.join(extra)}; allowed: {', '.join(known)}")
    if base is kind:
        missing = sorted(known.keys() - given)
        _need(not missing, f"{where}: missing {', '.join(missing)}")
        return kind(**given)
    for name, v in given.items():
        if dataclasses.is_dataclass(known[name]):
            given[name] = _changed(getattr(base, name), v, name)
        elif name == "models" and isinstance(v, list | tuple):
            given[name] = tuple(_changed(ModelSpec, model, name) for model in v)
        elif name == "copies" and isinstance(v, Mapping) and all(type(count) is int for count in v):
            given[name] = tuple(sorted(v.items()))
        else:
            given[name] = _frozen(v)
    return dataclasses.replace(base, **given)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list | tuple) else value
