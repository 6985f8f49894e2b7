"""A task of the harness on live models: its requests as ids, built once, scored or answered in parts.

Requests become ids as HFLM makes them (context and continuation encoded together, an end-of-text id before what has no
context, cut from the left to the model's positions, long texts in windows that overlap by one id) and are scored by
`models.continuations`: sorted once, shared beginnings computed once. Texts are generated greedily and end as HFLM's do.
Cost: per checkpoint one pass over the ids of every request; a part holds PART requests, or PART_IDS ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import pandas as pd
from torch import nn

from pythia_tools.analyses.evaluate import harness
from pythia_tools.analyses.evaluate.columns import NAME, REQUEST
from pythia_tools.analysis import Context, Task
from pythia_tools.core.errors import RequestError
from pythia_tools.core.files import digest
from pythia_tools.models import decode
from pythia_tools.models.continuations import Request, Scorer
from pythia_tools.models.score import max_positions

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from pythia_tools.tokens import Tokenizer

PART = 512
PART_IDS = 1 << 18
NEW_IDS = 256
"""How many ids HFLM generates where a task does not say."""
GREEDY = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}
"""Settings of generation that are understood; those of sampling say nothing when the likeliest id is taken."""


@dataclass(frozen=True)
class Ending:
    """When generation ends: after `new` ids, or at one of the texts `until`. `windows`: how many ids back each of them
    is looked for, as HFLM does.
    """

    new: int
    until: tuple[str, ...]
    windows: tuple[int, ...]


class Answers(NamedTuple):
    """Of n requests: log-likelihoods (n,) float64 nats, whether they are greedy, leads (n,), ids cut (n,), texts."""

    ll: np.ndarray
    greedy: Sequence[bool | None]
    lead: np.ndarray
    cut: np.ndarray
    text: Sequence[str | None]


class Kind(Protocol):
    """Requests of one kind: `scored` ids of each, `sizes`, ids that pass through a model for it."""

    scored: list[int]
    sizes: list[int]

    def run(self, context: Context, model: nn.Module, chosen: Sequence[int]) -> Answers: ...


class Pairs:
    """Log-likelihoods of continuations after contexts."""

    def __init__(self, encoder: HFLM, instances: Sequence[Instance]):
        self.instances = list(instances)
        pairs = encoder.loglikelihood(self.instances, disable_tqdm=True)
        for instance, (context, continuation) in zip(self.instances, pairs, strict=True):
            if not (context and continuation):
                raise RequestError(
                    f"{instance.task_name}, document {instance.doc_id}: a request without "
                    f"{'a context' if continuation else 'a continuation'} ({str(instance.args)[:80]}); mend its texts"
                )
        self.requests = [Request(tuple(context), tuple(continuation)) for context, continuation in pairs]
        self.scored = [len(r.continuation) for r in self.requests]
        self.sizes = [len(r.context) + len(r.continuation) for r in self.requests]
        self._scorers: dict[tuple[int, ...], Scorer] = {}

    def run(self, context: Context, model: nn.Module, chosen: Sequence[int]) -> Answers:
        key = (chosen[0], chosen[-1])
        if key not in self._scorers:
            some = [self.requests[k] for k in chosen]
            self._scorers[key] = Scorer(some, batch_size=context.execution.batch_size, leads=True)
        found = self._scorers[key](model)
        assert found.greedy is not None and found.lead is not None, "leads were asked for"
        greedy = [None if lost else bool(g) for lost, g in zip(np.isnan(found.total), found.greedy, strict=True)]
        return Answers(found.total, greedy, found.lead, found.cut, [None] * len(chosen))


class Rolling:
    """Log-likelihoods of whole texts, in windows as long as the model's positions."""

    def __init__(self, encoder: HFLM, instances: Sequence[Instance]):
        self.instances = list(instances)
        self.beginning = int(encoder.prefix_token_id)
        self.texts = [encoder.tok_encode(instance.args[0]) for instance in self.instances]
        self.scored = self.sizes = [len(text) for text in self.texts]
        self._scorers: dict[tuple[int, ...], tuple[Scorer, np.ndarray]] = {}

    def run(self, context: Context, model: nn.Module, chosen: Sequence[int]) -> Answers:
        key = (chosen[0], chosen[-1], max_positions(model))
        if key not in self._scorers:
            windows = [(k, Request(tuple(a), tuple(b))) for k in chosen for a, b in self._windows(k, key[-1])]
            scorer = Scorer([request for _, request in windows], batch_size=context.execution.batch_size)
            self._scorers[key] = scorer, np.array([k - chosen[0] for k, _ in windows], dtype=np.int64)
        scorer, owners = self._scorers[key]
        total = np.bincount(owners, weights=scorer(model).total, minlength=len(chosen))
        n = len(chosen)
        return Answers(total, [None] * n, np.full(n, np.nan), np.zeros(n, dtype=np.int64), [None] * n)

    def _windows(self, k: int, positions: int) -> list[tuple[list[int], list[int]]]:
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        return [
            make_disjoint_window(window) for window in
            get_rolling_token_windows(self.texts[k], self.beginning, max_seq_len=positions, context_len=1)
        ]


class Generations:
    """Greedy texts after contexts."""

    def __init__(self, encoder: HFLM, instances: Sequence[Instance]):
        self.instances, self.encoder = list(instances), encoder
        self.prompts = [self._ids(instance.args[0]) for instance in self.instances]
        self.endings = [self._ending(instance) for instance in self.instances]
        self.scored = [0] * len(self.prompts)
        self.sizes = [len(p) + e.new for p, e in zip(self.prompts, self.endings, strict=True)]

    def _ids(self, text: str) -> list[int]:
        return [int(i) for i in self.encoder.tok_batch_encode([text])[0][0]]

    def _ending(self, instance: Instance) -> Ending:
        from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

        asked = dict(normalize_gen_kwargs(instance.args[1], NEW_IDS))
        strange = sorted(set(asked) - GREEDY)
        if strange or asked.get("do_sample"):
            what = "samples its answers" if not strange else f"sets {', '.join(strange)}"
            raise RequestError(f"{instance.task_name} {what}; only greedy generation is evaluated here")
        tokenizer = self.encoder.tokenizer
        until = handle_stop_sequences(asked["until"], eos=tokenizer.decode(tokenizer.eos_token_id))
        windows = [len(tokenizer.encode(text, add_special_tokens=False)) + 2 for text in until]
        return Ending(int(asked["max_gen_toks"]), tuple(until), tuple(windows))

    def run(self, context: Context, model: nn.Module, chosen: Sequence[int]) -> Answers:
        texts: list[str | None] = [None] * len(chosen)
        cut = np.zeros(len(chosen), dtype=np.int64)
        for ending in dict.fromkeys(self.endings[k] for k in chosen):
            here = [n for n, k in enumerate(chosen) if self.endings[k] == ending]
            room = max_positions(model) - ending.new
            if room <= 0:
                raise RequestError(
                    f"{self.instances[chosen[0]].task_name} generates {ending.new} ids and the model has "
                    f"{max_positions(model)} positions; lower max_gen_toks in the task's generation_kwargs"
                )
            prompts = [self.prompts[chosen[n]][-room:] for n in here]
            made = decode.greedy(
                model, prompts, ending.new, batch_size=context.execution.batch_size, done=self._done(ending, model)
            )
            for n, prompt, ids in zip(here, prompts, made, strict=True):
                texts[n], cut[n] = self._text(ids, ending), len(self.prompts[chosen[n]]) - len(prompt)
        nothing = np.full(len(chosen), np.nan)
        return Answers(nothing, [None] * len(chosen), nothing, cut, texts)

    def _done(self, ending: Ending, model: nn.Module) -> Callable[[list[int]], bool]:
        stated = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        ends = {stated} if isinstance(stated, int) else set(stated or ())
        tokenizer = self.encoder.tokenizer

        def done(ids: list[int]) -> bool:
            return ids[-1] in ends or any(
                text in tokenizer.decode(ids[-window:])
                for text, window in zip(ending.until, ending.windows, strict=True)
            )

        return done

    def _text(self, ids: list[int], ending: Ending) -> str | None:
        """None where the model's logits were no numbers."""
        from lm_eval.models.utils import postprocess_generated_text

        if decode.LOST in ids:
            return None
        return str(postprocess_generated_text(self.encoder.tok_decode(ids), list(ending.until), None))


KINDS: dict[str, Callable[[HFLM, Sequence[Instance]], Kind]] = {
    "loglikelihood": Pairs, "loglikelihood_rolling": Rolling, "generate_until": Generations,
}


class EvaluateTask(Task):
    """All requests of one task of the harness, in parts of whole documents."""

    def __init__(self, asked: harness.HarnessTask, tokenizer: Tokenizer):
        self.name, self.asked = f"{NAME}/{asked.name}", asked
        encoder = harness.encoder(tokenizer)
        with harness.quiet():
            self._kinds = {
                kind: KINDS[kind](encoder, [i for i in asked.instances if i.request_type == kind])
                for kind in dict.fromkeys(i.request_type for i in asked.instances)
            }
        numbers = dict.fromkeys(self._kinds, 0)
        self._places: list[tuple[str, int]] = []  # of each request: its kind, and its number within that
        for instance in asked.instances:
            self._places.append((instance.request_type, numbers[instance.request_type]))
            numbers[instance.request_type] += 1
        sizes = [self._kinds[kind].sizes[number] for kind, number in self._places]
        self.ids = sum(sizes)
        self._starts = _starts(asked.documents, sizes)
        self.parts = len(self._starts) - 1
        self.digest = digest([asked.about, tokenizer.digest])

    @cached_property
    def table(self) -> pd.DataFrame:
        """What of the rows is the same for every checkpoint."""
        scored = [self._kinds[kind].scored[number] for kind, number in self._places]
        with harness.compiled_once():
            texts = [_measured(self.asked, instance) for instance in self.asked.instances]
            gold = [_is_gold(self.asked, instance) for instance in self.asked.instances]
        return pd.DataFrame({
            "task": self.asked.name, "kind": self.asked.kind, "shots": self.asked.shots,
            "doc_id": self.asked.documents, "choice": self.asked.numbers,
            "gold": pd.array(gold, dtype="boolean"), "n_tokens": scored, "characters": [len(t) for t in texts],
            "bytes": [len(t.encode()) for t in texts],
        })

    def run(self, context: Context, model: nn.Module, part: int) -> pd.DataFrame:
        here = slice(self._starts[part], self._starts[part + 1])
        frame = self.table.iloc[here].reset_index(drop=True)
        ll, lead = np.full((2, len(frame)), np.nan)
        cut = np.zeros(len(frame), dtype=np.int64)
        greedy: list[bool | None] = [None] * len(frame)
        text: list[str | None] = [None] * len(frame)
        for kind, of_kind in self._kinds.items():
            rows = [n for n, (other, _) in enumerate(self._places[here]) if other == kind]
            if rows:
                found = of_kind.run(context, model, [self._places[here][n][1] for n in rows])
                ll[rows], lead[rows], cut[rows] = found.ll, found.lead, found.cut
                for n, is_greedy, said in zip(rows, found.greedy, found.text, strict=True):
                    greedy[n], text[n] = is_greedy, said
        frame = frame.assign(
            ll=ll, lead=lead, margin=_margins(frame, ll), cut=cut, is_greedy=pd.array(greedy, dtype="boolean"),
            text=pd.array(text, dtype="string"),
        )
        return frame.astype({c: column.dtype for c, column in REQUEST.items()})[list(REQUEST)]


def _starts(documents: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Where parts begin, and the end: a part ends with the document that fills it."""
    starts, ids = [0], 0
    for k, size in enumerate(sizes):
        full = k - starts[-1] >= PART or ids >= PART_IDS
        if full and documents[k] != documents[k - 1]:
            starts.append(k)
            ids = 0
        ids += size
    return [*starts, len(sizes)]


def _measured(asked: harness.HarnessTask, instance: Instance) -> str:
    """The text whose length counts: the choice, the continuation, or the whole text."""
    choices = asked.choices(instance)
    if choices:  # those past the choices are the same ones without their context
        return choices[instance.idx % len(choices)]
    if instance.request_type == "generate_until":
        return ""
    return str(instance.args[-1] if instance.request_type == "loglikelihood" else instance.args[0])


def _is_gold(asked: harness.HarnessTask, instance: Instance) -> bool | None:
    """None for what is no choice: other kinds of tasks, and choices without their context (mutual information)."""
    choices = asked.choices(instance)
    return None if not choices or instance.idx >= len(choices) else instance.idx in asked.gold(instance)


def _margins(table: pd.DataFrame, lls: np.ndarray) -> np.ndarray:
    """Of each choice the log-likelihood minus the highest of its document's others; NaN without others."""
    found = np.full(len(table), np.nan)
    document, choice = table["doc_id"].to_numpy(), table["gold"].notna().to_numpy()
    for whole in np.split(np.arange(len(table)), np.flatnonzero(np.diff(document)) + 1):
        rows = whole[choice[whole]]
        if len(rows) > 1 and not np.isnan(lls[rows]).any():
            own = lls[rows]
            first, second = np.sort(own)[::-1][:2]
            found[rows] = own - np.where(np.arange(len(own)) == np.argmax(own), second, first)
    return found


def tasks_of(asked: Mapping[str, harness.HarnessTask], tokenizer: Tokenizer) -> list[Task]:
    """One task of a sweep for each task of the harness."""
    return [EvaluateTask(task, tokenizer) for task in asked.values()]
