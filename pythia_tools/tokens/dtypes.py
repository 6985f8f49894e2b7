"""The dtype codes of an `.idx` file.

Codes 1-5 and 8 mean the same in every lineage. Codes 6 and 7 do not: GPT-NeoX writes 6 for float32 and 7 for float64,
Megatron-core the reverse. Token ids use 8 (uint16) or 4 (int32).
"""

from __future__ import annotations

import numpy as np

from pythia_tools.core.errors import DataError, RequestError

NEOX = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f4", 7: "<f8", 8: "<u2"}
DTYPE_CODES: dict[int, np.dtype] = {code: np.dtype(kind) for code, kind in NEOX.items()}
MEGATRON_CODES: dict[int, np.dtype] = {**DTYPE_CODES, 6: np.dtype("<f8"), 7: np.dtype("<f4")}
SMALL_VOCAB = 65_500


def dtype_of(code: int, path: object, *, megatron: bool = False) -> np.dtype:
    """The dtype of a code read from `path`. Raises DataError for a code that no lineage defines."""
    table = MEGATRON_CODES if megatron else DTYPE_CODES
    if code not in table:
        known = ", ".join(f"{c} ({d.name})" for c, d in table.items())
        raise DataError(f"{path}: dtype code {code} is not one of {known}; the index is damaged")
    return table[code]


def code_of(dtype: object, *, megatron: bool = False) -> int:
    """The code of a dtype. Raises RequestError for one that the format cannot hold."""
    table = MEGATRON_CODES if megatron else DTYPE_CODES
    try:
        wanted = np.dtype(dtype)  # type: ignore[call-overload]
    except TypeError:
        wanted = None
    for code, known in table.items():
        if wanted is not None and known == wanted:
            return code
    raise RequestError(f"dtype {dtype!r} cannot be stored; use one of {', '.join(d.name for d in DTYPE_CODES.values())}")


def dtype_for_vocab(vocab_size: int | None) -> np.dtype:
    """The builders' rule: uint16 when the unpadded vocabulary is known and below 65,500, else int32."""
    return np.dtype("<u2") if vocab_size is not None and vocab_size < SMALL_VOCAB else np.dtype("<i4")
