"""Gender bias over training: measures on live models, interventions against controls, honest statistics.

    task = bias.PronounTask(tokenizer, bias.pronoun_items(templates, occupations))
    items = bias.measure(checkpoints, task)            # one row per checkpoint × item
    summary = bias.summarize(items)                    # shares, means, branch against control, with intervals
    print("\\n".join(map(str, bias.verdicts(summary))))
"""

from pythia_tools.analyses.bias.analysis import Bias, BiasOptions
from pythia_tools.analyses.bias.association import associate
from pythia_tools.analyses.bias.choices import CrowsPairs, read_pairs
from pythia_tools.analyses.bias.measure import Encoder
from pythia_tools.analyses.bias.pronouns import PronounTask, pronoun_items
from pythia_tools.analyses.bias.published import publish_run, read_published
from pythia_tools.analyses.bias.sentences import verdicts
from pythia_tools.analyses.bias.statistics import agreement, compare, comparison_summary
from pythia_tools.analyses.bias.summaries import summarize
from pythia_tools.analyses.bias.winobias import WinoBias, WinoBiasAnswers, read_sentences
from pythia_tools.analysis import item_table as measure

__all__ = [
    "Bias", "BiasOptions", "CrowsPairs", "Encoder", "PronounTask", "WinoBias", "WinoBiasAnswers", "agreement",
    "associate", "compare", "comparison_summary", "measure", "pronoun_items", "publish_run", "read_pairs",
    "read_published", "read_sentences", "summarize", "verdicts",
]
