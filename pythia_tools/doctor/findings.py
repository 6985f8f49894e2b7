"""What an audit finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One fault (`wrong`) or remark (`note`) about one checkpoint."""

    model: str
    step: int
    check: str
    detail: str
    severity: str = "wrong"
