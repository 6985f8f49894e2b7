"""Reports: one self-contained HTML page of finished runs."""

from pythia_tools.report.build import build_report
from pythia_tools.report.page import Picture, Section, render

__all__ = ["Picture", "Section", "build_report", "render"]
