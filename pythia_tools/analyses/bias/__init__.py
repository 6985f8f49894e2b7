"""Gender bias over training: measures on live models, interventions against controls, honest statistics.

    task = bias.PronounTask(tokenizer, bias.pronoun_items(templates, occupations))
    items = bias.measure(checkpoints, task)            # one row per checkpoint × item
    summary = bias.summarize(items)                    # shares, means, branch against control, with intervals
    print("\\n".join(map(str, bias.verdicts(summary))))
"""

from pythia_tools.analyses.bias.analysis import Bias, BiasOptions
from pythia_tools.analyses.bias.association import associate
from pythia_tools.analyses.bias.coreference import BBQ, StereoSet, Winogender, read_bbq, read_stereoset, read_winogender
from pythia_tools.analyses.bias.crows import CrowsPairs, read_pairs
from pythia_tools.analyses.bias.harness import HarnessTask
from pythia_tools.analyses.bias.heldout import HeldoutLoss
from pythia_tools.analyses.bias.measure import measure
from pythia_tools.analyses.bias.pronouns import PronounItem, PronounTask, pronoun_items
from pythia_tools.analyses.bias.published import publish_run, read_published
from pythia_tools.analyses.bias.sentences import verdicts
from pythia_tools.analyses.bias.sets import load_set
from pythia_tools.analyses.bias.statistics import agreement, combine_seeds, compare, comparison_summary
from pythia_tools.analyses.bias.summaries import summarize
from pythia_tools.analyses.bias.texts import Encoder
from pythia_tools.analyses.bias.winobias import Sentence, WinoBias, WinoBiasAnswers, read_sentences

__all__ = [
    "BBQ", "Bias", "BiasOptions", "CrowsPairs", "Encoder", "HarnessTask", "HeldoutLoss", "PronounItem", "PronounTask",
    "Sentence", "StereoSet", "WinoBias", "WinoBiasAnswers", "Winogender", "agreement", "associate", "combine_seeds",
    "compare", "comparison_summary", "load_set", "measure", "pronoun_items", "publish_run", "read_bbq", "read_pairs",
    "read_published", "read_sentences", "read_stereoset", "read_winogender", "summarize", "verdicts",
]
