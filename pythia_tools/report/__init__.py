"""Reports: one self-contained HTML page of finished runs, readable on a phone and on paper, everything escaped."""

from pythia_tools.report.page import Picture, Section, build_report, render

__all__ = ["Picture", "Section", "build_report", "render"]
