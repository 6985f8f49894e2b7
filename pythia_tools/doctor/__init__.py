"""The doctor: audits checkpoint suites (and published results) without downloading them whole.

`audit(suite)` gives findings, a curve of embedding norms, and a verdict; `audit_results(file)` the same for evaluation
results. Why: 86 of the 154 branches of one public Pythia model hold the wrong weights, and nothing that loads them
notices.
"""

from pythia_tools.doctor.audit import Audit, audit
from pythia_tools.doctor.results import audit_results, audit_table

__all__ = ["Audit", "audit", "audit_results", "audit_table"]
