"""`audit(suite)`: every check over every model, one table, one verdict."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import pandas as pd

from pythia_tools.doctor import checks, paths
from pythia_tools.doctor.evidence import Evidence, Finding, gather, main_digests
from pythia_tools.suites import Checkpoint, ModelInfo, Suite, learning_rate
from pythia_tools.suites.steps import Request

COLUMNS = ["suite", "model", "step", "check", "severity", "known", "detail"]
CURVE = ["suite", "model", "step", "tokens", "row_norm", "bytes"]
ALONE = (checks.reading, checks.sizes, checks.shapes, checks.precision, checks.configs, checks.first_update,
         checks.initialisation)


@dataclass(frozen=True)
class Audit:
    """`findings`: one row per fault or remark. `curve`: one row per checkpoint whose tensors were read:
    suite, model, step, tokens, row_norm (mean L2 norm of the sampled embedding rows), bytes (read over the network).
    `looked_at` says what was read and compared, `left_out` what was not (None: nothing).
    """

    suite: str
    examined: int
    findings: pd.DataFrame
    curve: pd.DataFrame
    looked_at: str
    left_out: str | None = None

    @property
    def defective(self) -> pd.DataFrame:
        """model and step of checkpoints with at least one fault."""
        wrong = self.findings[self.findings["severity"] == "wrong"]
        return wrong[["model", "step"]].drop_duplicates().reset_index(drop=True)

    @property
    def clean(self) -> bool:
        """Nothing wrong was found in what was looked at."""
        return len(self.defective) == 0

    @property
    def sound(self) -> bool:
        """Nothing is wrong, and everything was looked at."""
        return self.clean and self.left_out is None

    @property
    def verdict(self) -> str:
        if self.clean:
            said = "sound" if self.sound else "nothing wrong in what was looked at"
            said += f"; {self.examined} checkpoints examined"
        else:
            wrong = self.findings[self.findings["severity"] == "wrong"]
            known = int(wrong.groupby(["model", "step"])["known"].any().sum())
            said = (f"{len(self.defective)} of {self.examined} checkpoints are defective ({known} of them known, "
                    f"{len(self.defective) - known} new)")
        return f"{self.suite}: {said}. Looked at: {self.looked_at}. Not looked at: {self.left_out or 'nothing'}."


def audit(
    suite: Suite, models: Iterable[str] | str | None = None, steps: Request = "all", *, quick: bool = False,
) -> Audit:
    """Audits checkpoints without downloading them: files, duplicates, sizes, configuration, and every tensor: its
    format, its values, and its path through training.

    Folders are read whole. On the hub each checkpoint costs at most 1 MB and its one-dimensional tensors, which are
    read whole; `quick` looks at listings only. Known defects are marked, not hidden; what is damaged is a finding.
    Raises: RequestError (unknown names), EnvironmentFailure (hub unreachable).
    """
    asked = suite.checkpoints(models, steps)
    by_model: dict[str, list[Checkpoint]] = {}
    for checkpoint in asked:
        by_model.setdefault(checkpoint.model.name, []).append(checkpoint)
    evidence: dict[str, list[Evidence]] = {}
    mains: dict[str, dict[str, str]] = {}
    for name, checkpoints in by_model.items():
        evidence[name] = gather(checkpoints, quick=quick)
        mains[name] = main_digests(checkpoints[-1].location) if steps in ("all", ["all"]) else {}
    everything = [e for seen in evidence.values() for e in seen]
    bases = _unasked_bases(suite, evidence)
    found = [*checks.duplicates(everything, mains)]
    copied = {(f.model, f.step) for name, seen in evidence.items()  # whose place on the path is another step's
              for f in checks.duplicates(seen, {name: mains[name]}) if f.severity == "wrong"}
    runs = {}
    for name, seen in evidence.items():
        info = suite.models[name]
        for check in ALONE:
            found += check(info, seen)
        found += checks.main_is_last(info, seen, mains[name])
        runs[name] = [e for e in _with_base(info, bases | evidence) if (e.model, e.step) not in copied]
        found += [f for f in paths.along(runs[name], _progress(info, runs[name])) if f.model == name]
    curve = [[suite.name, e.model, e.step, e.checkpoint.tokens, e.row_norm, e.network_bytes]
             for e in everything if e.tensors]
    return Audit(suite.name, len(asked), _table(suite, found), pd.DataFrame(curve, columns=CURVE),
                 _looked_at(everything), _left_out(everything, runs))


def _unasked_bases(suite: Suite, evidence: dict[str, list[Evidence]]) -> dict[str, list[Evidence]]:
    """The last checkpoints before the branch point of local bases that were not asked for: branches are held to them.
    """
    found = {}
    for info in (suite.models[name] for name in evidence):
        if info.base is not None and info.base not in evidence and suite.places[info.base].folder is not None:
            before = [step for step in suite.steps(info.base) if step <= (info.branch_step or 0)]
            found[info.base] = gather([suite.checkpoint(info.base, step) for step in before[-3:]]) if before else []
    return found


def _with_base(info: ModelInfo, evidence: dict[str, list[Evidence]]) -> list[Evidence]:
    """A run's checkpoints; a branch's after those of its base up to the branch point."""
    base = evidence.get(info.base or "", []) if info.branch_step is not None else []
    return [e for e in base if e.step <= (info.branch_step or 0)] + evidence[info.name]


def _progress(info: ModelInfo, path: Sequence[Evidence]) -> list[float]:
    """How far training had come at each checkpoint: the sum of learning rates, or the step where they are unknown."""
    if not info.schedule or not path:
        return [float(e.step) for e in path]
    rates = (learning_rate(info.schedule, 1.0, update) for update in range(path[-1].step))
    sums = [0.0, *accumulate(rates)]
    return [sums[e.step] for e in path]


def _looked_at(evidence: Sequence[Evidence]) -> str:
    read = sum(t["size"] for e in evidence for t in e.tensors.values())
    held = sum(t["values"] for e in evidence for t in e.tensors.values())
    if not held:
        return "file listings"
    configs = sum(e.config is not None for e in evidence)
    cost = sum(e.network_bytes for e in evidence)
    share = "every value" if read == held else f"{read:,} of {held:,} values ({read / held:.2%})"
    within = "" if read == held else ", one-dimensional tensors whole and samples of the others"
    return (f"{share} of the tensors of {sum(bool(e.tensors) for e in evidence)} checkpoints{within}; {configs} "
            f"config.json" + (f"; {cost / 1e6:.1f} MB read" if cost else ""))


def _left_out(evidence: Sequence[Evidence], along: dict[str, list[Evidence]]) -> str | None:
    """What nobody looked at, and what could not be compared."""
    left = []
    if closed := [str(e.checkpoint) for e in evidence if not e.tensors]:
        left.append(f"the tensors of {len(closed)} checkpoints ({', '.join(closed[:3])}{', …' if closed[3:] else ''})")
    if any(e.tensors and not e.whole for e in evidence):
        left.append("what lies between the samples")
    if unread := sum(e.config is None for e in evidence):
        left.append(f"config.json of {unread} checkpoints")
    if short := [name for name, path in along.items() if 0 < sum(bool(e.tensors) for e in path) < 3]:
        left.append(f"the path of {', '.join(short)} through training (fewer than three steps)")
    return "; ".join(left) or None


def _table(suite: Suite, found: list[Finding]) -> pd.DataFrame:
    """Findings in the suite's order; `known` when the manifest lists a fault of that checkpoint."""
    order = {name: i for i, name in enumerate(suite.models)}
    rows = []
    for f in sorted(found, key=lambda f: (order[f.model], f.step, f.severity == "note", f.check)):
        known = any(d.severity == "wrong" and d.covers(f.step) for d in suite.models[f.model].defects)
        rows.append([suite.name, f.model, f.step, f.check, f.severity, known and f.severity == "wrong", f.detail])
    return pd.DataFrame(rows, columns=COLUMNS)
