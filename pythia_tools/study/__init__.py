"""The whole study over a suite: all analyses in one sweep, with a report."""

from pythia_tools.study.study import Study, plan_study, run_study

__all__ = ["Study", "plan_study", "run_study"]
