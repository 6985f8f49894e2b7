"""`audit(suite)`: every check over every model, one table, one verdict."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pythia_tools.doctor import checks
from pythia_tools.doctor.checks import Finding
from pythia_tools.doctor.evidence import Evidence, gather, main_digests
from pythia_tools.suites import Checkpoint, Suite
from pythia_tools.suites.steps import Request

COLUMNS = ["suite", "model", "step", "check", "severity", "known", "detail"]
CURVE = ["suite", "model", "step", "tokens", "row_norm", "bytes"]


@dataclass(frozen=True)
class Audit:
    """`findings`: one row per fault or remark. `curve`: one row per checkpoint whose rows were read:
    suite, model, step, tokens, row_norm (mean L2 norm of the sampled embedding rows), bytes (read over the network)."""

    suite: str
    examined: int
    findings: pd.DataFrame
    curve: pd.DataFrame

    @property
    def defective(self) -> pd.DataFrame:
        """model and step of checkpoints with at least one fault."""
        wrong = self.findings[self.findings["severity"] == "wrong"]
        return wrong[["model", "step"]].drop_duplicates().reset_index(drop=True)

    @property
    def sound(self) -> bool:
        return len(self.defective) == 0

    @property
    def verdict(self) -> str:
        read = int(self.curve["bytes"].sum()) if len(self.curve) else 0
        cost = f", {read / 1e6:.1f} MB read" if read else ""
        if self.sound:
            return f"{self.suite}: sound; {self.examined} checkpoints examined{cost}"
        known = int(self.findings[self.findings["severity"] == "wrong"].groupby(["model", "step"])["known"].any().sum())
        return (f"{self.suite}: {len(self.defective)} of {self.examined} checkpoints are defective ({known} of them "
                f"known, {len(self.defective) - known} new){cost}")


def audit(
    suite: Suite, models: Iterable[str] | str | None = None, steps: Request = "all", *, quick: bool = False,
    rows: int | None = None,
) -> Audit:
    """Audits checkpoints without downloading them: files, duplicates, sizes, shapes, embedding rows, step 0, NaN.

    `quick` looks at listings only; otherwise each checkpoint on the hub costs at most 1 MB: 256 embedding rows, fewer
    where they are wide (`hub.sample_rows`); `rows` asks for that many whatever they cost. Known defects are marked, not
    hidden.
    Raises: RequestError (unknown names), EnvironmentFailure (hub unreachable).
    """
    asked = suite.checkpoints(models, steps)
    by_model: dict[str, list[Checkpoint]] = {}
    for checkpoint in asked:
        by_model.setdefault(checkpoint.model.name, []).append(checkpoint)
    found: list[Finding] = []
    curve: list[list[object]] = []
    slim: list[Evidence] = []
    mains: dict[str, dict[str, str]] = {}
    for name, checkpoints in by_model.items():
        evidence = gather(checkpoints, quick=quick, row_count=rows)
        main = main_digests(checkpoints[-1].location) if steps in ("all", ["all"]) else {}
        mains[name] = main
        found += checks.loading(evidence)
        for check in (checks.sizes, checks.shapes, checks.smooth, checks.first_update, checks.initialisation):
            found += check(suite.models[name], evidence)
        found += checks.main_is_last(suite.models[name], evidence, main)
        for e in evidence:
            if e.rows is not None:
                norm = float(np.linalg.norm(e.rows.astype(np.float64), axis=1).mean())
                curve.append([suite.name, name, e.step, e.checkpoint.tokens, norm, e.network_bytes])
            e.rows = None
        slim += evidence
    found += checks.duplicates(slim, mains)
    return Audit(suite.name, len(asked), _table(suite, found), pd.DataFrame(curve, columns=CURVE))


def _table(suite: Suite, found: list[Finding]) -> pd.DataFrame:
    """Findings in the suite's order; `known` when the manifest lists a fault of that checkpoint."""
    order = {name: i for i, name in enumerate(suite.models)}
    rows = []
    for f in sorted(found, key=lambda f: (order[f.model], f.step, f.severity == "note", f.check)):
        known = any(d.severity == "wrong" and d.covers(f.step) for d in suite.models[f.model].defects)
        rows.append([suite.name, f.model, f.step, f.check, f.severity, known and f.severity == "wrong", f.detail])
    return pd.DataFrame(rows, columns=COLUMNS)
