"""Term frequency: few-shot accuracy on a term against how often the model had seen it, checkpoint by checkpoint.

Protocol: Razeghi et al. 2022; Biderman et al. 2023 (Pythia), section 4.3. Exposures come from `counts.count_terms`.
"""

from pythia_tools.analyses.term_frequency.analysis import TermFrequency, TermFrequencyOptions
from pythia_tools.analyses.term_frequency.arithmetic import arithmetic_items, time_unit_items
from pythia_tools.analyses.term_frequency.definitions import compare_definitions, steps_to_count, trajectory
from pythia_tools.analyses.term_frequency.emergence import emergence
from pythia_tools.analyses.term_frequency.items import Item, fact_items, template_items
from pythia_tools.analyses.term_frequency.published import publish_run, read_published
from pythia_tools.analyses.term_frequency.questions import question_items, question_patterns, read_questions
from pythia_tools.analyses.term_frequency.statistics import binned_accuracy, by_term, summarize
from pythia_tools.analyses.term_frequency.tasks import ClosedTask, GreedyTask
from pythia_tools.analysis import item_table as measure

__all__ = [
    "ClosedTask", "GreedyTask", "Item", "TermFrequency", "TermFrequencyOptions", "arithmetic_items", "binned_accuracy",
    "by_term", "compare_definitions", "emergence", "fact_items", "measure", "publish_run", "question_items",
    "question_patterns", "read_published", "read_questions", "steps_to_count", "summarize", "template_items",
    "time_unit_items", "trajectory",
]
