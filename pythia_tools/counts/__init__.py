"""What the model had seen by step N: exact counts of n-grams, text, numbers, pairs, entity sets and the paper's rule over an order."""

from pythia_tools.counts.counting import ArrayOrder, Counts, count, count_terms
from pythia_tools.counts.documents import document_exposures, documents_of_rows, exposure_shares, steps_of_document
from pythia_tools.counts.ngram_index import NgramIndex, build_ngram_index, open_ngram_index
from pythia_tools.counts.paper_rule import PaperCounts, PaperRule, paper_totals
from pythia_tools.counts.patterns import Ngram, Number, Pair, Paper, Pattern, Text, Together
from pythia_tools.counts.places import seen
from pythia_tools.counts.vocabulary import TokenBytes, token_bytes

__all__ = [
    "ArrayOrder", "Counts", "Ngram", "NgramIndex", "Number", "Pair", "Paper", "PaperCounts", "PaperRule", "Pattern", "Text", "Together",
    "TokenBytes", "build_ngram_index", "count", "count_terms", "document_exposures", "documents_of_rows", "exposure_shares",
    "open_ngram_index", "paper_totals", "seen", "steps_of_document", "token_bytes",
]
