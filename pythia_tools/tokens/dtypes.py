"""The dtype codes of an `.idx` file.

Codes 1-5 and 8 mean the same in every lineage. Codes 6 and 7 do not: GPT-NeoX writes 6 for float32 and 7 for float64,
Megatron-core the reverse; here they are GPT-NeoX's. Token ids use 8 (uint16) or 4 (int32).
"""

import contextlib

import numpy as np

from pythia_tools.core.errors import DataError, RequestError

DTYPE_CODES: dict[int, np.dtype] = {
    code: np.dtype(kind) for code, kind in enumerate(("u1", "i1", "<i2", "<i4", "<i8", "<f4", "<f8", "<u2"), 1)
}
SMALL_VOCAB = 65_500


def dtype_of(code: int, path: object) -> np.dtype:
    """The dtype of a code read from `path`. Raises DataError for a code that no lineage defines."""
    if code not in DTYPE_CODES:
        known = ", ".join(f"{c} ({d.name})" for c, d in DTYPE_CODES.items())
        raise DataError(f"{path}: dtype code {code} is not one of {known}; the index is damaged")
    return DTYPE_CODES[code]


def code_of(dtype: object) -> int:
    """The code of a dtype. Raises RequestError for one that the format cannot hold."""
    codes = {stored: code for code, stored in DTYPE_CODES.items()}
    with contextlib.suppress(TypeError, KeyError):
        return codes[np.dtype(dtype)]  # type: ignore[call-overload]
    known = ", ".join(d.name for d in DTYPE_CODES.values())
    raise RequestError(f"dtype {dtype!r} cannot be stored; use one of {known}")


def dtype_for_vocab(vocab_size: int | None) -> np.dtype:
    """The builders' rule: uint16 when the unpadded vocabulary is known and below 65,500, else int32."""
    return np.dtype("<u2") if vocab_size is not None and vocab_size < SMALL_VOCAB else np.dtype("<i4")
