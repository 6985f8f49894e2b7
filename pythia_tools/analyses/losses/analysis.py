"""The losses of a suite, declared: on held-out rows, around each checkpoint, and on rows of all training."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pythia_tools import plots
from pythia_tools.analyses.losses import rows, summary, table, task
from pythia_tools.analysis import Analysis, Context, Export, Figure, Options, Sentence, Task, joined, option
from pythia_tools.analysis import words as say
from pythia_tools.core.tables import at_last_step

FILE = Path("losses.csv")
FILES = {str(FILE): table.COLUMNS}


@dataclass(frozen=True)
class LossesOptions(Options):
    """What losses are measured on."""

    rows: int = option(
        96, "rows on either side of a checkpoint and of all training; twice as many are held out", minimum=1
    )
    heldout: str | None = option(
        None, "an order (name, manifest or prefix) whose rows no run consumed, for the held-out ones", metavar="ORDER"
    )


class Losses(Analysis[LossesOptions]):
    """Loss on held-out rows, around each checkpoint, and on rows of all training.

    examples:
      pythia-tools losses pythia-micro --out runs/losses
      pythia-tools losses pythia --leave-out-defective --dry-run
      pythia-tools losses pythia --leave-out-defective --out runs/pythia-losses
      pythia-tools losses pythia-deduped --models 70m 160m --steps 1000,16000,143000 --rows 32 --out runs/loss

    losses.csv is the table to ship: a line per checkpoint and row set, nats per token and bits per byte with intervals,
    digests of weights and data. Rows of the batches before and after a checkpoint differ only in having been trained
    on; rows drawn from all of training are the same for every checkpoint, which has consumed some of them. Held-out
    rows are --heldout, else those of the order beyond the last step, else the suite's own; a suite without any is
    measured on the others only; a model whose order is not known is not measured around its checkpoints. Rows with
    planted items are left out, because no held-out row holds any.
    A plan (--dry-run) reads no row; neighbouring rows of an order on the hub are one request.
    """

    name = task.NAME
    version = 4
    Options = LossesOptions
    metrics = summary.METRICS
    columns = task.COLUMNS
    exported = FILES
    shown = ("nll", "bits_per_byte")
    methods = (
        "Loss is the mean negative log-likelihood in nats per token, over {rows} rows of the batches right before a "
        "checkpoint (just consumed), as many of those right after it (about to be consumed), as many drawn uniformly "
        "from all that the longest run consumed, and held-out rows where the suite has some. The first two differ only "
        "in having been trained on; rows that hold planted items are "
        "left out, so that the held-out ones differ from the second in nothing. Bits per byte are the summed loss of "
        "the targets that spell text over ln 2 times their UTF-8 bytes. Intervals are over rows, "
        "of which no two of a set begin in one document."
    )

    def tasks(self, context: Context, options: LossesOptions) -> list[Task]:
        chosen, spelled = self._rows(context, options), task.known_bytes(context)
        return [task.LossTask(one, spelled) for one in chosen]

    def _rows(self, context: Context, options: LossesOptions) -> list[rows.RowSet]:
        return rows.named(context, options.rows, options.heldout)

    def items(self, result: Mapping[str, pd.DataFrame], context: Context, options: LossesOptions) -> pd.DataFrame:
        return table.with_consumed(joined(result), self._rows(context, options))

    def summarize(self, items: pd.DataFrame, context: Context, options: LossesOptions) -> pd.DataFrame:
        return summary.summarize(items)

    def exports(self, items: pd.DataFrame, context: Context, options: LossesOptions) -> Iterable[Export]:
        if len(items):
            yield Export(FILE, table.table(items, self._rows(context, options)))

    def figures(self, items: pd.DataFrame, summary: pd.DataFrame) -> Iterator[Figure]:
        main = summary[summary["branch"] == "main"]
        if len(main):
            yield Figure("loss", plots.losses(main),
                         "Loss over training: held-out rows, rows just consumed, rows about to be consumed, rows of "
                         "all training.")

    def sentences(self, summary: pd.DataFrame) -> list[Sentence]:
        main = summary[summary["branch"] == "main"]
        heldout = main[(main["metric"] == "nll") & (main["subset"] == rows.HELDOUT)]
        gap = main[(main["metric"] == "nll_gap") & (main["subset"] == rows.AFTER)]
        spelled = main[(main["metric"] == "bits_per_byte") & (main["subset"] == rows.HELDOUT)]
        return [*_heldout(heldout), *_spelled(spelled), *_gap(gap)]


def _heldout(heldout: pd.DataFrame) -> Iterator[Sentence]:
    if heldout.empty:
        return
    big = heldout[heldout["model"] == say.largest(heldout)].sort_values("step")
    first, last = say.records(big.iloc[[0, -1]])
    start = f"{say.number(first['value'], '.2f')} nats per token at step {first['step']:,}"
    told, unit = (f"{say.compare_ends(big)} from {start} to", "") if len(big) > 1 else ("is", " nats per token")
    yield Sentence.of(
        f"Held-out loss of {last['model']} {told} {say.number(last['value'], '.2f')}{unit} at step {last['step']:,}.",
        big.iloc[[0, -1]],
    )
    final = say.by_size(at_last_step(heldout))
    if len(final) > 1:
        values = say.listing([f"{r['model']} {say.number(r['value'], '.2f')}" for r in say.records(final)])
        ends = "in the largest model than in the smallest"
        words = (f"higher {ends}", f"lower {ends}", f"not detectably different {ends}", "not defined at both ends")
        told = f" {say.compare_ends(final, words)}:" if say.sized(final) else ""
        yield Sentence.of(f"At the last step it is{told} {values}.", final)


def _spelled(bits: pd.DataFrame) -> Iterator[Sentence]:
    read = say.by_size(at_last_step(bits)).tail(1)
    for last in say.records(read):
        value = f"{say.number(last['value'], '.2f')}{say.interval(last)}"
        yield Sentence.of(
            f"At step {last['step']:,}, {last['model']} needs {value} bits per byte of held-out text.", read
        )


def _gap(gap: pd.DataFrame) -> Iterator[Sentence]:
    if gap.empty:
        return
    read = say.by_size(at_last_step(gap.dropna(subset=["value"]))).tail(1)
    if read.empty:
        return
    (last,) = say.records(read)
    words = ("lower", "higher", "not detectably lower or higher", "lower or higher (no interval says which)")
    word = say.direction(last["value"], last["low"], last["high"], words)
    bounds = say.interval(last, lambda v: f"{v:+.3f}")
    yield Sentence.of(
        f"After step {last['step']:,}, {last['model']}'s loss on the rows it has just consumed is {word} "
        f"than on the rows it is about to consume, by {last['value']:+.3f}{bounds} nats per token.", read,
    )
