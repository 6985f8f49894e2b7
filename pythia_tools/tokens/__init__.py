"""Tokens: the tokenizer, and stores, the `.bin`/`.idx` files of GPT-NeoX and Megatron, whole or in shards.

Stores are mapped into memory and never merged on disk.
"""

from pythia_tools.tokens.index import DTYPE_CODES, StoreIndex, dtype_for_vocab, read_index, write_index
from pythia_tools.tokens.local import ByteSource, LocalBytes, find_shards, shard_names
from pythia_tools.tokens.store import TokenStore, open_store
from pythia_tools.tokens.tokenizer import Openable, Tokenizer, char_bytes, open_tokenizer, piece_bytes
from pythia_tools.tokens.writer import StoreWriter

__all__ = [
    "ByteSource", "DTYPE_CODES", "LocalBytes", "Openable", "StoreIndex", "StoreWriter", "TokenStore", "Tokenizer",
    "char_bytes", "dtype_for_vocab", "find_shards", "open_store", "open_tokenizer", "piece_bytes", "read_index",
    "shard_names", "write_index",
]
