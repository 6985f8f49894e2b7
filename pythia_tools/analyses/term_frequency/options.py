"""What can be asked of term frequency."""

from dataclasses import dataclass

from pythia_tools.analyses.term_frequency.arithmetic import CONVERSIONS, OPERATIONS, SEED
from pythia_tools.analysis import Options, option

FROM_FILE = ("questions", "facts", "template")
TASKS = ("planted", *OPERATIONS, *CONVERSIONS, *FROM_FILE)


@dataclass(frozen=True)
class TermFrequencyOptions(Options):
    """Tasks, their questions, and how exposures are counted."""

    task: tuple[str, ...] = option(
        (), "default: planted where there is a truth manifest, else multiplication", choices=TASKS
    )
    shots: tuple[int, ...] = option((16,), "few-shot examples", minimum=0)
    seed: int = option(SEED, "of the draw of examples, 42 as published")
    operands: int = option(100, "first operands 0 to N-1", minimum=1)
    second: int = option(50, "second operands 1 to N", minimum=1)
    file: str | None = option(None, "questions, facts (prompt, answer, term), or the table of a template")
    examples: str | None = option(None, "questions to draw few-shot examples from (default: --file)", metavar="FILE")
    template: str | None = option(None, "a prompt with {columns} of --file")
    answer: str | None = option(None, "the answer behind it, with its leading space, likewise")
    term: str | None = option(None, "the text whose exposures count, likewise")
    open: bool = option(False, "decode greedily instead of choosing among all answers (facts, template)")
    exposures: str | None = option(None, "a table of term, step, exposures instead of counting", metavar="FILE")
    count_as: str = option("pythia", "how operands count: by the Pythia paper's rule, by it in text with cleaned-up "
                           "spaces (as its script of 2023 decoded), or as numbers",
                           choices=("pythia", "paper", "cleaned", "number"))
    last: int | None = option(None, "also compare with exposures in the last N steps", minimum=1)
    trajectory: tuple[str, ...] = option((), "terms to draw over training", metavar="TERM")
    bin_base: int | None = option(
        None, "bins of exposures are powers of this number (default: 2 where terms are planted, else 10)", minimum=2,
    )
