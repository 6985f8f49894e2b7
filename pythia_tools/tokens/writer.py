"""Writing a token store, byte-identical to GPT-NeoX's builder; no file has its final name before it is whole."""

from __future__ import annotations

import array
import contextlib
import hashlib
import os
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import numpy as np

from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import atomic_write
from pythia_tools.tokens.index import checked_sizes, code_of, write_index
from pythia_tools.tokens.store import prefix_of


class StoreWriter:
    """Writes `PREFIX.bin` and then `PREFIX.idx`; use as a context manager.

        with StoreWriter("data/train", np.uint16) as out:
            out.add_document(ids)

    Each document is one sequence, as in every published store. An error inside the block leaves no file behind.
    """

    def __init__(self, prefix: str | os.PathLike[str], dtype: Any = np.uint16):
        self.prefix = prefix_of(prefix)
        code_of(dtype)
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.n_tokens = 0
        self._digest = hashlib.sha256()
        self._sizes = array.array("i")
        self._stack = contextlib.ExitStack()
        self._out: Any = None

    def __enter__(self) -> StoreWriter:
        self._out = self._stack.enter_context(atomic_write(self.prefix.with_name(self.prefix.name + ".bin")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out, index = None, self.prefix.with_name(self.prefix.name + ".idx")
        if kind is None:
            # An index of an older store must not meet the new .bin if we are killed between the two renames.
            index.unlink(missing_ok=True)
        self._stack.__exit__(kind, error, trace)
        if kind is None:
            write_index(index, self.dtype, np.frombuffer(self._sizes, np.int32), np.arange(len(self._sizes) + 1))

    def __len__(self) -> int:
        """Sequences so far."""
        return len(self._sizes)

    @property
    def sha256(self) -> str:
        """Of the `.bin` so far."""
        return self._digest.hexdigest()

    def add_document(self, tokens: Any) -> None:
        """Append one document."""
        values = self._fit(tokens)
        self.add_documents(values, [values.size])

    def add_documents(self, tokens: Any, sizes: Iterable[int]) -> None:
        """Append many documents at once: `tokens` one after the other, `sizes` of each.

        Raises: RequestError when an id does not fit the dtype, DataError when a length does not fit int32.
        """
        values, lengths = self._fit(tokens), checked_sizes(self.prefix, sizes)
        if lengths.sum() != values.size:
            raise RequestError(f"{values.size} tokens came with lengths that sum to {lengths.sum()}")
        if self._out is None:
            raise RequestError("this writer is not open; use it in a `with` block")
        data = values.tobytes()
        self._out.write(data)
        self._digest.update(data)
        self.n_tokens += values.size
        self._sizes.frombytes(lengths.astype(np.int32).tobytes())

    def _fit(self, tokens: Any) -> np.ndarray:
        """`tokens` in the store's dtype; ids that would wrap around are refused."""
        values = np.asarray(tokens)
        if values.ndim != 1:
            raise RequestError(f"tokens must be one-dimensional, these have shape {values.shape}")
        if values.dtype == self.dtype:
            return values
        if values.size and self.dtype.kind in "ui":
            if values.dtype.kind not in "ui":
                raise RequestError(f"token ids must be whole numbers, these are {values.dtype}")
            limits = np.iinfo(self.dtype)
            low, high = int(values.min()), int(values.max())
            if low < limits.min or high > limits.max:
                raise RequestError(
                    f"token ids from {low} to {high} do not fit {self.dtype.name} ({limits.min} to {limits.max}); "
                    "choose a wider dtype"
                )
        return values.astype(self.dtype)
