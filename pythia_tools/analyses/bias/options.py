"""What can be asked of the bias measures."""

from dataclasses import dataclass

from pythia_tools.analyses.bias.columns import PRONOUNS
from pythia_tools.analysis import Options, option

MEASURES = (PRONOUNS, "crows_pairs", "winobias", "winogender", "stereoset", "bbq", "heldout_loss")
METHODS = ("pronoun", "referent", "generate")


@dataclass(frozen=True)
class BiasOptions(Options):
    """Measures, their items, and how branches are compared with their controls."""

    measures: tuple[str, ...] = option((), "default: pronoun_preference", choices=MEASURES)
    lm_eval: tuple[str, ...] = option((), "tasks of lm-evaluation-harness, run on the live model", metavar="TASK")
    data: tuple[str, ...] = option((), "local files of a set (default: downloaded by manifest)", metavar="SET=PATH")
    groups: tuple[str, ...] = option(
        (), "only these bias types of CrowS-Pairs and StereoSet (gender, …)", metavar="TYPE",
    )
    limit: int | None = option(None, "only the first N items of each set (of each file of WinoBias)", minimum=1)
    winobias_methods: tuple[str, ...] = option(
        ("pronoun", "referent"),
        "pronoun: which of two is likelier, with prompts of our own wording (the paper's were never published); "
        "referent, generate: which occupation is meant, by log-probability or generated", choices=METHODS,
    )
    templates: str | None = option(None, "contexts with {occupation}, one a line (pronoun_preference)", metavar="FILE")
    occupations: str | None = option(
        None, "occupation and stereotype (he or she), tab-separated, one a line", metavar="FILE",
    )
    association: bool = option(False, "also against the corpus' own co-occurrence counts up to each step")
    window: int = option(8, "window of the association, in words", minimum=1, metavar="WORDS")
    correction: str = option("holm", "for many comparisons", choices=("holm", "bh"))
