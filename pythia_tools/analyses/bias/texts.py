"""Texts to ids for scoring: the split of a context and its continuation, the empty context.

Rules are those of EleutherAI's lm-evaluation-harness, so that scores can be compared: spaces at the end of a context
belong to the continuation; context and continuation are encoded together and cut at the context's length; an empty
context is the beginning-of-text id.
"""

from collections.abc import Sequence

from pythia_tools.core.errors import RequestError
from pythia_tools.models.continuations import Request
from pythia_tools.tokens import Openable, open_tokenizer


class Encoder:
    """A tokenizer, and the id that stands for an empty context: its beginning-of-text id, else its end-of-text id."""

    def __init__(self, tokenizer: Openable):
        self.tokenizer = open_tokenizer(tokenizer)
        prefix = self.tokenizer.beginning
        if prefix is None:
            raise RequestError("this tokenizer has no beginning- or end-of-text token to begin with; give another")
        self.prefix = prefix

    def requests(self, pairs: Sequence[tuple[str, str]]) -> list[Request]:
        """One Request per (context, continuation). Raises RequestError for an empty continuation."""
        moved = [_move_spaces(context, continuation) for context, continuation in pairs]
        whole = self.tokenizer.ids([a + b for a, b in moved])
        contexts = self.tokenizer.ids([a for a, _ in moved])
        return [self._request(a, w, c) for (a, _), w, c in zip(moved, whole, contexts, strict=True)]

    def _request(self, text: str, whole: list[int], context: list[int]) -> Request:
        if not text:
            begun = whole[:1] == [self.prefix]
            context, whole = (whole[:1], whole) if begun else ([self.prefix], [self.prefix, *whole])
        request = Request(tuple(context), tuple(whole[len(context) :]))
        if not request.continuation:
            raise RequestError(f"nothing to score after {text[-60:]!r}: the continuation is empty")
        return request


def _move_spaces(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    if not kept:
        return ("", context + continuation) if not context else (context, continuation)
    return kept, context[len(kept) :] + continuation
