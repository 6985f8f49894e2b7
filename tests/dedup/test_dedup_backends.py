"""Backends by name."""

from __future__ import annotations

import sys

import pytest

from pythia_tools.core.errors import EnvironmentFailure, UnknownNameError
from pythia_tools.dedup.backends import open_backend


def test_unknown_and_missing_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="unknown backend 'spark'; known: local, ray"):
        open_backend("spark").__enter__()
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EnvironmentFailure, match="needs Ray; pip install"):
        open_backend("ray").__enter__()
