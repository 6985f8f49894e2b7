"""Where and in which number format a model runs: one policy, applied everywhere.

The number format is, in this order: what was asked for; the checkpoint's own policy (`Checkpoint.dtype`); float32 on
the CPU; on an accelerator float32 for models below a billion parameters (the small Pythia models overflow in float16:
70m on LAMBADA has perplexity NaN there, 131 in float32) and the files' own format above that.

Torch's threads are left as the user set them. OpenMP's idle threads spin by default, so on a machine that is shared
with other jobs set OMP_NUM_THREADS (or OMP_WAIT_POLICY=PASSIVE): a foreign process on one core can cost a factor of
ten.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import cache, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import nn

from pythia_tools.core import progress
from pythia_tools.core.errors import EnvironmentFailure, RequestError
from pythia_tools.suites.checkpoint import Checkpoint

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
SMALL_PARAMS = 1_000_000_000
P = ParamSpec("P")
R = TypeVar("R")


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """`auto` is the first GPU, else Apple's, else the CPU. Raises EnvironmentFailure when the one asked for is
    missing.
    """
    if isinstance(device, torch.device):
        return device
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise RequestError(f"device {device!r} is not known; use auto, cpu, cuda, cuda:1 or mps") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        visible = f"{torch.cuda.device_count()} GPUs are visible"
        raise EnvironmentFailure(f"device {device!r} is not there ({visible}); use --device cpu or auto")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise EnvironmentFailure("device 'mps' is not there; use --device cpu or auto")
    return chosen


def named_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The torch dtype of a name (`float32`). Raises RequestError for anything else than the four floats."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise RequestError(f"dtype {dtype!r} is not known; use one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def choose_dtype(
    checkpoint: Checkpoint | None, dtype: str | torch.dtype | None, device: torch.device, stored: torch.dtype
) -> torch.dtype:
    """The number format to run in (see the module's first lines). `stored`: the format of the files' floats."""
    if dtype is not None:
        asked = named_dtype(dtype)
        if checkpoint is not None and checkpoint.dtype == "float32" and asked == torch.float16:
            _warn_of_overflow(f"{checkpoint.suite}/{checkpoint.model.name}")
        return asked
    if checkpoint is not None and checkpoint.dtype is not None:
        return named_dtype(checkpoint.dtype)
    params = checkpoint.model.params if checkpoint is not None else None
    if device.type == "cpu" or params is None or params < SMALL_PARAMS:
        return torch.float32
    return stored


@contextlib.contextmanager
def plain_products(device: torch.device) -> Iterator[None]:
    """Matrix products in the operands' own format, whatever the process has set: no TF32 or bfloat16 pass, no autocast.

    TF32 keeps 10 bits of each factor, and thereby decides near ties otherwise than float32 does.
    """
    backends: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    settings = [b for b in backends if hasattr(b, "fp32_precision")]
    before = [m.fp32_precision for m in settings]
    legacy = None if settings else torch.get_float32_matmul_precision()  # torch below 2.9
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        if legacy is not None:
            torch.set_float32_matmul_precision("highest")
        casting = device.type in ("cpu", "cuda") and torch.is_autocast_enabled(device.type)
        with torch.autocast(device.type, enabled=False) if casting else contextlib.nullcontext():
            yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value
        if legacy is not None:
            torch.set_float32_matmul_precision(legacy)


def inference_mode(
    function: Callable[Concatenate[nn.Module, P], R],
) -> Callable[Concatenate[nn.Module, P], R]:
    """For functions whose first argument is a live model: no gradients, and products in the model's own number format.
    """

    @wraps(function)
    def run(model: nn.Module, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(), plain_products(next(model.parameters()).device):
            return function(model, *args, **kwargs)

    return run


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")


@cache
def _warn_of_overflow(named: str) -> None:
    progress.warn(f"{named} may overflow in float16 (its policy is float32); rows where it does are flagged")
