"""What an analysis is and how it is carried out: declaration, options, context, execution, sweep, plan, run."""

from pythia_tools.analysis.context import TRUTH_METRICS, Context, Execution, Where, compare_with_truth
from pythia_tools.analysis.declaration import Analysis, AnyAnalysis, Drawn, Export, Figure
from pythia_tools.analysis.perform import Prepared, measure, prepare, prepare_all, run, run_all
from pythia_tools.analysis.planning import plan
from pythia_tools.analysis.scores import ScoreTask, token_scores
from pythia_tools.analysis.sweep import Key, Reading, Task, item_table, joined, sweep
from pythia_tools.core import words
from pythia_tools.core.options import Options, option
from pythia_tools.core.words import Sentence

__all__ = [
    "TRUTH_METRICS", "Analysis", "AnyAnalysis", "Context", "Drawn", "Execution", "Export", "Figure", "Key", "Options",
    "Prepared", "Reading", "ScoreTask", "Sentence", "Task", "Where", "compare_with_truth", "item_table", "joined",
    "measure", "option", "plan", "prepare", "prepare_all", "run", "run_all", "sweep", "token_scores", "words",
]
