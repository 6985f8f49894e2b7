"""One checkpoint in one module, and the next checkpoint's weights into the same module.

The first module of an architecture comes from transformers' own `from_pretrained`, so its arithmetic is theirs; from
then on weights are copied in place, which keeps hooks, compiled graphs and references to parameters alive. Names,
shapes and values are checked before a single value is copied; a checkpoint that does not fit leaves the module as it
was. Architectures whose files need more than renaming (merged experts and the like) go through `from_pretrained` and a
copy.

Cost per switch: one pass over the weights (a cast from float16 runs at memory speed).
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from pythia_tools.core import files
from pythia_tools.core.errors import DataError
from pythia_tools.models.devices import choose_device, choose_dtype, dtype_name
from pythia_tools.models.digest import WeightsRecord, weights_record
from pythia_tools.models.places import local_folder
from pythia_tools.models.weights import TensorFiles, canonical_name, has_own_head, is_buffer
from pythia_tools.suites.checkpoint import Checkpoint

_NOT_ARCHITECTURE = {"_name_or_path", "dtype", "torch_dtype", "transformers_version"}
_SAMPLES = 4096
WHAT_TRANSFORMERS_RAISES = (
    OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError, ArithmeticError, AssertionError,
    ImportError, StrictDataclassError,
)
"""At a config.json or files that no model was ever saved with."""
Copy = tuple[str, torch.Tensor, torch.Tensor]
"""A stored tensor's name, the module's tensor that it fills, its values."""


def load(
    checkpoint: Checkpoint | str | os.PathLike[str], device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
) -> nn.Module:
    """One checkpoint as a transformers module in eval mode, with `.checkpoint` and `.weights_digest`.

    Raises: DataError naming checkpoint and tensor when weights are missing, unexpected, of another shape, NaN or Inf.
    """
    known = checkpoint if isinstance(checkpoint, Checkpoint) else None
    folder = local_folder(known) if known is not None else Path(checkpoint)  # type: ignore[arg-type]
    record = weights_record(folder)
    require_finite(record, known, folder)
    module = build(folder, choose_device(device), dtype, known)
    return label(module, known, record, folder)


def architecture(folder: Path, tensors: TensorFiles) -> str:
    """A digest of the folder's config without what differs between checkpoints of one architecture.

    Whether the files hold an output head of their own belongs to it: whatever the config says, transformers ties the
    head of a model to its embedding only where they do not.
    """
    config = {k: v for k, v in read_config(folder).items() if k not in _NOT_ARCHITECTURE}
    return files.digest([config, has_own_head(tensors)])


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json. Raises DataError when it is missing or not a mapping."""
    path = folder / "config.json"
    config = files.read_json(path)
    if not isinstance(config, dict):
        raise DataError(f"{path}: not a model's config; fetch or write the checkpoint again")
    return config


def build(
    folder: Path, device: torch.device, dtype: str | torch.dtype | None, checkpoint: Checkpoint | None = None,
) -> nn.Module:
    """A fresh module of the folder's architecture and weights, checked tensor by tensor."""
    read_config(folder)
    tensors = TensorFiles(folder)
    chosen = choose_dtype(checkpoint, dtype, device, tensors.stored_dtype())
    module, complaints = _from_pretrained(folder, chosen)
    named = _name(checkpoint, folder)
    plan, differences = compare(module, tensors)
    _refuse(named, complaints + _conflicts(plan))
    _require_no_overflow(named, tensors.values(), chosen, module.state_dict())
    module.__dict__["_pythia_tools_copied"] = not differences and _same_values(plan)
    module.to(device)  # type: ignore[arg-type]
    return module.eval()


def swap(
    module: nn.Module, folder: Path, checkpoint: Checkpoint | None = None, tensors: TensorFiles | None = None,
) -> None:
    """Overwrite the module's weights with the folder's, in place; the module is untouched when names or shapes do not
    fit. `tensors`: the folder's, where they are open already.
    """
    tensors = TensorFiles(folder) if tensors is None else tensors
    named, dtype = _name(checkpoint, folder), next(module.parameters()).dtype
    stored: Iterable[torch.Tensor] = tensors.values()
    if module.__dict__.get("_pythia_tools_copied", True):
        plan, complaints = compare(module, tensors)
        stored = [value for _, _, value in plan]
    else:
        other, complaints = _from_pretrained(folder, dtype)
        source = other.state_dict()
        plan = [(name, target, source[name]) for name, target in module.state_dict(keep_vars=True).items()]
    _refuse(named, complaints + _conflicts(plan))
    _require_no_overflow(named, stored, dtype, {name: value for name, _, value in plan})
    module.__dict__["checkpoint"] = None  # nobody's weights, should the copy be interrupted
    with torch.no_grad():
        for _, target, value in plan:
            target.copy_(value.to(target.device) if target.device.type != "cpu" else value)


def require_finite(record: WeightsRecord, checkpoint: Checkpoint | None, folder: Path) -> None:
    """Raises DataError naming the first tensor that holds NaN or Inf."""
    if record.nonfinite:
        more = f" and {len(record.nonfinite) - 1} more" if len(record.nonfinite) > 1 else ""
        where = f"{_name(checkpoint, folder)}: NaN or Inf in tensor {record.nonfinite[0]!r}{more}"
        raise DataError(f"{where}; fetch the checkpoint again or leave it out")


def label(module: nn.Module, checkpoint: Checkpoint | None, record: WeightsRecord, folder: Path) -> nn.Module:
    """Write on the module whose weights it holds."""
    module.__dict__["checkpoint"] = checkpoint
    module.__dict__["weights_digest"] = record.digest
    config = getattr(module, "config", None)
    if config is not None:
        config.name_or_path = str(folder)
    return module


def compare(module: nn.Module, tensors: TensorFiles) -> tuple[list[Copy], list[str]]:
    """The copies to make, and what stands against them: missing, unexpected and misshapen tensors by name."""
    targets = dict(module.state_dict(keep_vars=True))
    prefix = getattr(module, "base_model_prefix", "")
    ignored = [re.compile(p) for p in getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()]
    plan, complaints, placed, filled = [], [], set(), set()
    for stored in tensors:
        value = tensors[stored]
        name = _target_name(stored, targets, prefix)
        if name is None:
            if not is_buffer(stored, tuple(value.shape)) and not any(p.search(stored) for p in ignored):
                complaints.append(f"unexpected tensor {stored!r}")
        elif value.shape != targets[name].shape:
            complaints.append(_misshapen(stored, value.shape, targets[name].shape))
        else:
            plan.append((stored, targets[name], value))
            placed.add(name)
            filled.add(id(targets[name]))
    for name, target in targets.items():
        tied = id(target) in filled
        if name not in placed and not tied and not any(name in c for c in complaints):
            complaints.append(f"missing tensor {name!r}")
    return plan, complaints


def _target_name(stored: str, targets: dict[str, torch.Tensor], prefix: str) -> str | None:
    for name in (stored, canonical_name(stored), f"{prefix}.{stored}", stored.removeprefix(f"{prefix}.")):
        if name in targets:
            return name
    return None


def _from_pretrained(folder: Path, dtype: torch.dtype) -> tuple[nn.Module, list[str]]:
    """transformers' own loading, with its complaints as a list instead of a log."""
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    with _quiet_transformers():
        try:
            module, info = loader.from_pretrained(
                folder, dtype=dtype, local_files_only=True, trust_remote_code=False, output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except WHAT_TRANSFORMERS_RAISES as error:
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(f"{folder}: transformers cannot load it ({why}); fetch or write it again") from error
    complaints = [_misshapen(*mismatch) for mismatch in sorted(info["mismatched_keys"])]
    complaints += [f"missing tensor {name!r}" for name in sorted(info["missing_keys"])]
    unexpected = [name for name in sorted(info["unexpected_keys"]) if not is_buffer(name, (1, 1, 1, 1))]
    complaints += [f"unexpected tensor {name!r}" for name in unexpected]
    return module, complaints


def _misshapen(name: str, came: Sequence[int], wanted: Sequence[int]) -> str:
    return f"tensor {name!r} has shape {tuple(came)}, the architecture wants {tuple(wanted)}"


def _same_values(plan: list[Copy]) -> bool:
    """Whether transformers put each file's tensor where our names say, looking at a sample of each tensor's values."""
    for _, target, value in plan:
        step = max(1, value.numel() // _SAMPLES)
        ours = value.reshape(-1)[::step].to(target.dtype)
        if not torch.equal(torch.nan_to_num(ours), torch.nan_to_num(target.detach().reshape(-1)[::step])):
            return False
    return True


def _conflicts(plan: list[Copy]) -> list[str]:
    """Tensors that fill one parameter, as tied ones do, with different values."""
    first: dict[int, tuple[str, torch.Tensor]] = {}  # by the parameter, which tied names share
    found = []
    for name, target, value in plan:
        other, values = first.setdefault(id(target), (name, value))
        if values is not value and not torch.equal(values, value):
            found.append(f"tensors {other!r} and {name!r} differ and fill one parameter")
    return found


def _require_no_overflow(
    named: str, stored: Iterable[torch.Tensor], dtype: torch.dtype, values: dict[str, torch.Tensor],
) -> None:
    """Raises DataError naming the first of the values, known to be finite as `stored`, that is not so in `dtype`."""
    if not any(_narrows(tensor.dtype, dtype) for tensor in stored):
        return
    for name, value in values.items():
        if value.is_floating_point() and value.numel():
            extremes = torch.stack(torch.aminmax(value)).to(dtype)  # rounding keeps order, so no other value is larger
            if not bool(extremes.isfinite().all()):
                raise DataError(f"{named}: tensor {name!r} overflows in {dtype_name(dtype)}; use --dtype float32")


def _refuse(named: str, complaints: list[str]) -> None:
    if complaints:
        more = f" ({len(complaints) - 1} more such tensors)" if len(complaints) > 1 else ""
        raise DataError(
            f"{named}: {complaints[0]}{more}; the files and their config.json disagree, "
            "fetch or write the checkpoint again"
        )


def _name(checkpoint: Checkpoint | None, folder: Path) -> str:
    return f"{checkpoint} ({folder})" if checkpoint is not None else str(folder)


def _narrows(source: torch.dtype, target: torch.dtype) -> bool:
    return source.is_floating_point and target.is_floating_point and torch.finfo(source).max > torch.finfo(target).max


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No bars and no reports from transformers while it loads; our own checks say what is wrong."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
