"""What an analysis is and how it is carried out: declaration, options, context, execution, sweep, plan, run."""

from pythia_tools.analysis.context import Context
from pythia_tools.analysis.declaration import Analysis, AnyAnalysis, Drawn, Export, Figure, Sentence
from pythia_tools.analysis.execution import Execution, Where
from pythia_tools.analysis.options import Options, option
from pythia_tools.analysis.perform import Prepared, measure, prepare, prepare_all, run, run_all
from pythia_tools.analysis.planning import plan
from pythia_tools.analysis.scores import ScoreTask, token_scores
from pythia_tools.analysis.sweep import SweepPlan, SweepResult, plan_sweep, sweep
from pythia_tools.analysis.task import Key, Task
from pythia_tools.analysis.truth import TRUTH_METRICS, compare_with_truth

__all__ = [
    "TRUTH_METRICS", "Analysis", "AnyAnalysis", "Context", "Drawn", "Execution", "Export", "Figure", "Key", "Options",
    "Prepared", "ScoreTask", "Sentence", "SweepPlan", "SweepResult", "Task", "Where", "compare_with_truth", "measure",
    "option", "plan", "plan_sweep", "prepare", "prepare_all", "run", "run_all", "sweep", "token_scores",
]
