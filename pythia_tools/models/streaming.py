"""Many checkpoints through one live module: weights swapped in place while the next checkpoint is fetched.

While checkpoint k computes, a background thread downloads checkpoint k+1 (at most one in flight), takes the digest of
its weights and, by that, pages them in. Time over N checkpoints ≈ first fetch + Σ max(fetch, compute); memory = one
live module + one file in flight. Only the network wait and the digest are overlapped: on few cores a cast in the
background would take from the computation what it gives.
"""

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pythia_tools import hub
from pythia_tools.core.errors import RequestError
from pythia_tools.models.devices import choose_device, choose_dtype, named_dtype
from pythia_tools.models.digest import Cancelled, WeightsRecord, record_of_contents, weights_record
from pythia_tools.models.loading import architecture, build, label, require_finite, swap
from pythia_tools.models.places import local_folder, stated_contents
from pythia_tools.models.weights import TensorFiles, weight_files
from pythia_tools.suites import Checkpoint, check_defects


@dataclass(frozen=True)
class Prepared:
    """A checkpoint whose weights are known; `folder` None: its files were not needed, so they were not fetched."""

    checkpoint: Checkpoint
    folder: Path | None
    record: WeightsRecord


def stream(
    checkpoints: Iterable[Checkpoint], device: str | torch.device = "auto", dtype: str | torch.dtype | None = None, *,
    prefetch: bool = True, allow_defective: bool = False,
) -> Iterator[nn.Module]:
    """Yield each checkpoint's model in turn: the same live module per architecture, in eval mode, no gradients.

    The yielded module carries `.checkpoint` and `.weights_digest`; it holds these weights until the next one is asked
    for. Hooks, compiled graphs and parameter references survive the swap. Logits equal `from_pretrained`'s bit for bit.
    A module is kept while its model comes again later in `checkpoints`; order them by model to hold one at a time.
    Disk: a budget ($PYTHIA_TOOLS_DISK_BUDGET, or `hub.set_budget`) of two checkpoints is enough; passed ones make room.

    Raises: RequestError for a checkpoint known to be defective (unless `allow_defective`); DataError naming checkpoint
    and tensor, or the fetch's own error, when that checkpoint's turn comes.
    """
    listed = list(checkpoints)
    check_defects(listed, allow_defective=allow_defective)
    live = LiveModules(device, dtype, listed)
    with contextlib.closing(prepare(listed, prefetch=prefetch)) as ready:
        for prepared in ready:
            yield live.show(prepared)


def checkpoint_of(model: nn.Module) -> Checkpoint:
    """The checkpoint whose weights a streamed module holds now. Raises RequestError for another module."""
    found = getattr(model, "checkpoint", None)
    if not isinstance(found, Checkpoint):
        raise RequestError(f"this {type(model).__name__} is not from `stream`, so its checkpoint is not known")
    return found


class LiveModules:
    """The live modules of one pass, one per architecture, dropped when no later checkpoint needs them."""

    def __init__(self, device: str | torch.device, dtype: str | torch.dtype | None, checkpoints: Sequence[Checkpoint]):
        self.device = choose_device(device)
        self.dtype = dtype
        self._modules: dict[str, nn.Module] = {}
        self._used_by: dict[str, set[str]] = {}
        self._left = Counter(map(_family, checkpoints))

    def show(self, prepared: Prepared) -> nn.Module:
        """The live module with this checkpoint's weights in it."""
        checkpoint = prepared.checkpoint
        folder = prepared.folder if prepared.folder is not None else local_folder(checkpoint)
        self.skip(checkpoint)
        require_finite(prepared.record, checkpoint, folder)
        dtype = choose_dtype(checkpoint, self.dtype, self.device, named_dtype(prepared.record.stored))
        tensors = TensorFiles(folder)
        key = f"{architecture(folder, tensors)} {dtype}"
        self._used_by.setdefault(key, set()).add(_family(checkpoint))
        module = self._modules.get(key)
        if module is None:
            self._drop_unneeded(key)
            module = self._modules[key] = build(folder, self.device, self.dtype, checkpoint)
            module.requires_grad_(False)
        else:
            swap(module, folder, checkpoint, tensors)
        return label(module, checkpoint, prepared.record, folder)

    def skip(self, checkpoint: Checkpoint) -> None:
        """This checkpoint needs no module any more."""
        self._left[_family(checkpoint)] -= 1

    def _drop_unneeded(self, keep: str) -> None:
        for key in [k for k in self._modules if k != keep]:
            if not any(self._left[family] > 0 for family in self._used_by[key]):
                del self._modules[key]


Wanted = Callable[[Checkpoint, WeightsRecord], bool]


def prepare(
    checkpoints: Sequence[Checkpoint], *, prefetch: bool = True, wanted: Wanted | None = None,
) -> Generator[Prepared, None, None]:
    """Fetch and digest checkpoints in order, the next one in the background while the caller holds one.

    At most one is in flight. An error of the background fetch is raised when that checkpoint's turn comes. `wanted`:
    asked about hub checkpoints whose weights were seen before; when it says no they are not fetched.
    """
    cancel = _Cancel()
    ahead: _Ahead | None = None
    try:
        for position, checkpoint in enumerate(checkpoints):
            current = ahead if ahead is not None else _Ahead(checkpoint, cancel, wanted, background=False)
            fetched = current.wait_for_files()
            if not fetched:
                current.result()  # an error surfaces before anything further is asked for
            with hub.pinned(checkpoint) if fetched else contextlib.nullcontext():
                more = position + 1 < len(checkpoints)
                # before the digest is waited for, so that one fetch follows the other without a gap
                ahead = _Ahead(checkpoints[position + 1], cancel, wanted) if prefetch and more else None
                yield current.result()
    finally:
        cancel.set()


class _Cancel(threading.Event):
    """Set when the stream is closed, or the interpreter ends with the stream still open (an interrupt in the caller's
    loop).
    """

    def is_set(self) -> bool:
        return super().is_set() or bool(getattr(threading, "_SHUTTING_DOWN", False))


class _Ahead:
    """One checkpoint being fetched, then digested, in a daemon thread: an interrupted process does not wait for a
    download.
    """

    def __init__(
        self, checkpoint: Checkpoint, cancel: threading.Event, wanted: Wanted | None, *, background: bool = True,
    ):
        self._checkpoint, self._cancel, self._wanted = checkpoint, cancel, wanted
        self._outcome: Prepared | BaseException | None = None
        self._folder: Path | None = None
        self._fetched = threading.Event()
        self._thread = threading.Thread(target=self._work, name="checkpoint-prefetch", daemon=True)
        if background:
            self._thread.start()
        else:
            self._work()

    def wait_for_files(self) -> bool:
        """Wait until the files are here (True), or turn out not to be needed or not to come (False)."""
        while not self._fetched.wait(0.2):  # in slices, so that an interrupt is noticed on every platform
            pass
        return self._folder is not None

    def result(self) -> Prepared:
        while self._thread.is_alive():
            self._thread.join(0.2)
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    def _work(self) -> None:
        try:
            self._outcome = self._prepare()
        except BaseException as error:
            self._outcome = error
        finally:
            self._fetched.set()

    def _prepare(self) -> Prepared:
        checkpoint, wanted = self._checkpoint, self._wanted
        known = record_of_contents(stated_contents(checkpoint)) if wanted is not None else None
        if wanted is not None and known is not None and not wanted(checkpoint, known):
            return Prepared(checkpoint, None, known)
        self._folder = local_folder(checkpoint, self._cancel)
        self._fetched.set()
        if self._cancel.is_set():
            raise Cancelled
        _page_in(self._folder)
        return Prepared(checkpoint, self._folder, weights_record(self._folder, self._cancel))


def _page_in(folder: Path) -> None:
    """Ask the kernel to read the weight files ahead; costs no processor time of ours."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in weight_files(folder):
        with contextlib.suppress(OSError), open(path, "rb") as handle:
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _family(checkpoint: Checkpoint) -> str:
    """Checkpoints that are likely to share an architecture: what decides how long a live module is kept."""
    return f"{checkpoint.suite}/{checkpoint.model.base or checkpoint.model.name}"
