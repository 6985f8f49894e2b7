"""Term frequency: few-shot accuracy on a term against how often the model had seen it, checkpoint by checkpoint.

Protocol: Razeghi et al. 2022; Biderman et al. 2023 (Pythia), section 4.3. Exposures come from `counts.count_terms`.
"""

from pythia_tools.analyses.term_frequency.analysis import by_term, summarize
from pythia_tools.analyses.term_frequency.arithmetic import arithmetic_items, time_unit_items
from pythia_tools.analyses.term_frequency.closed import ClosedTask
from pythia_tools.analyses.term_frequency.definitions import compare_definitions, steps_to_count, trajectory
from pythia_tools.analyses.term_frequency.emergence import emergence_sizes, emergence_steps
from pythia_tools.analyses.term_frequency.facts import fact_items, template_items
from pythia_tools.analyses.term_frequency.greedy import GreedyTask
from pythia_tools.analyses.term_frequency.items import Item
from pythia_tools.analyses.term_frequency.measure import gather, measure
from pythia_tools.analyses.term_frequency.paper_figures import binned_accuracy, gap_table, number_controls
from pythia_tools.analyses.term_frequency.questions import Question, question_items, question_patterns, read_questions
from pythia_tools.analyses.term_frequency.stored import read_stored

__all__ = [
    "ClosedTask", "GreedyTask", "Item", "Question", "arithmetic_items", "binned_accuracy", "by_term", "compare_definitions",
    "emergence_sizes", "emergence_steps", "fact_items", "gap_table", "gather", "measure", "number_controls", "question_items",
    "question_patterns", "read_questions", "read_stored", "steps_to_count", "summarize", "template_items", "time_unit_items", "trajectory",
]
