"""What the model had seen by step N: exact counts of n-grams, text, numbers, pairs, sets and the Pythia paper's rule.

`seen` finds the places instead, and `document_exposures` counts whole documents.
"""

from pythia_tools.counts.counting import Counts, count, count_terms, shard_batches
from pythia_tools.counts.documents import document_exposures, documents_of_rows
from pythia_tools.counts.ngram_index import NgramIndex, build_ngram_index, open_ngram_index
from pythia_tools.counts.patterns import CoOccurrence, Ngram, Number, Pair, Pattern, PythiaRule, Text
from pythia_tools.counts.places import seen
from pythia_tools.counts.vocabulary import TokenBytes, token_bytes, tokenizer_of

__all__ = [
    "CoOccurrence", "Counts", "Ngram", "NgramIndex", "Number", "Pair", "Pattern", "PythiaRule", "Text", "TokenBytes",
    "build_ngram_index", "count", "count_terms", "document_exposures", "documents_of_rows", "open_ngram_index", "seen",
    "shard_batches", "token_bytes", "tokenizer_of",
]
