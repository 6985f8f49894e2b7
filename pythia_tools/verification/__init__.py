"""Numbers of a run against published ones, and published ones against themselves.

    found = pt.verify("runs/zero", pt.published("evals.tar.xz"))
    found.verdict                   # "equal", "within noise" or "outside"
    found.numbers                   # one row per published number: verdict, noise, cause
    found.neighbours                # which other checkpoints fit as well or better
"""

from pythia_tools.verification.check import Verification, verify
from pythia_tools.verification.noise import differences
from pythia_tools.verification.published import findings

__all__ = ["Verification", "differences", "findings", "verify"]
