"""Gender bias over training: measures on live models, interventions against controls, honest statistics.

    task = bias.PronounTask(tokenizer, bias.pronoun_items(templates, occupations))
    items = bias.measure(checkpoints, [task])          # one row per checkpoint × item
    summary = bias.summarize(items)                    # shares, means, branch against control, with intervals
    print("\\n".join(bias.verdicts(bias.compare(items))))
"""

from pythia_tools.analyses.bias.association import associate
from pythia_tools.analyses.bias.choices import ChoiceScorer
from pythia_tools.analyses.bias.coreference import BBQ, StereoSet, Winogender, read_bbq, read_stereoset, read_winogender
from pythia_tools.analyses.bias.crows import CrowsPairs, read_pairs
from pythia_tools.analyses.bias.harness import HarnessTask
from pythia_tools.analyses.bias.measure import join, measure, summarize
from pythia_tools.analyses.bias.pronouns import PronounItem, PronounTask, pronoun_items
from pythia_tools.analyses.bias.sets import EvaluationSet, load_set
from pythia_tools.analyses.bias.statistics import agreement, combine_seeds, compare, comparison_summary, verdicts
from pythia_tools.analyses.bias.texts import Encoder, load_tokenizer, suite_tokenizer
from pythia_tools.analyses.bias.winobias import Sentence, WinoBias, read_sentences
from pythia_tools.models.continuations import Loglikelihoods, Request, Scorer

__all__ = [
    "BBQ", "ChoiceScorer", "CrowsPairs", "Encoder", "EvaluationSet", "HarnessTask", "Loglikelihoods", "PronounItem", "PronounTask",
    "Request", "Scorer", "Sentence", "StereoSet", "WinoBias", "Winogender", "agreement", "associate", "combine_seeds", "compare",
    "comparison_summary", "join", "load_set", "load_tokenizer", "measure", "pronoun_items", "read_bbq", "read_pairs",
    "read_sentences", "read_stereoset", "read_winogender", "suite_tokenizer", "summarize", "verdicts",
]
