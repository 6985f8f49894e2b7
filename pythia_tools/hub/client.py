"""Requests to the hub that survive a bad day: retries on 429, 5xx and broken connections, errors in one line.

Names and listings come through `huggingface_hub`; file bytes come by our own ranged requests through its
session, token and endpoint, because the client neither retries a 5xx of a file nor resumes in a new process.
Cost: one request per call. The token is sent to the hub alone and never printed.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import quote

from pythia_tools.core import progress
from pythia_tools.core.errors import DataError, EnvironmentFailure

T = TypeVar("T")
RETRY_STATUS = (408, 429, 500, 502, 503, 504)
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Patience:
    """How long to try: `tries` in a row without progress, waits of base·2ⁱ seconds up to `cap`, Retry-After honoured."""

    tries: int = 6
    base: float = 1.0
    cap: float = 30.0
    longest_retry_after: float = 300.0
    sleep: Callable[[float], None] = time.sleep

    def wait(self, attempt: int, retry_after: float | None = None) -> None:
        if retry_after is not None:
            return self.sleep(min(retry_after, self.longest_retry_after))
        return self.sleep(min(self.base * 2**attempt, self.cap) * random.uniform(0.75, 1.25))


PATIENCE = Patience()


class Refused(Exception):
    """A response that was not a success; `transient` ones are worth another try."""

    def __init__(self, status: int, code: str | None, message: str | None, retry_after: float | None) -> None:
        super().__init__(f"HTTP {status}{' ' + code if code else ''}{': ' + message if message else ''}")
        self.status, self.code, self.retry_after = status, code, retry_after
        self.transient = status in RETRY_STATUS


def endpoint() -> str:
    """The hub's address: $HF_ENDPOINT, or the public hub."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def cache_root() -> Path:
    """The hub cache that `from_pretrained` reads: $HF_HUB_CACHE, or $HF_HOME/hub, or the user's."""
    from huggingface_hub import constants

    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"]).expanduser() / "hub"
    return Path(constants.HF_HUB_CACHE)


def offline() -> bool:
    """Whether $HF_HUB_OFFLINE asks for no requests at all."""
    from huggingface_hub import constants

    asked = os.environ.get("HF_HUB_OFFLINE", os.environ.get("TRANSFORMERS_OFFLINE"))
    return constants.HF_HUB_OFFLINE if asked is None else asked.upper() in ("1", "TRUE", "YES", "ON")


def require_online(what: str) -> None:
    """Raises EnvironmentFailure when the user asked for no network."""
    if offline():
        raise EnvironmentFailure(f"{what} is not in the cache and HF_HUB_OFFLINE is set; fetch it once with a network, or unset it")


def api() -> Any:
    """The real client, on the current endpoint."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint())


def file_url(repo: str, revision: str, path: str, kind: str = "model") -> str:
    prefix = "datasets/" if kind == "dataset" else ""
    return f"{endpoint()}/{prefix}{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"


def ask(what: str, call: Callable[[], T], patience: Patience = PATIENCE) -> T:
    """The value of an API call of the real client, retried; its errors in one line naming `what`."""
    from huggingface_hub.errors import HfHubHTTPError

    require_online(what)
    attempt = 0
    while True:
        try:
            return call()
        except HfHubHTTPError as error:
            refused = refusal(error.response)
            retry(what, refused, attempt, patience)
        except transport_errors() as error:
            retry(what, error, attempt, patience)
        attempt += 1


@contextlib.contextmanager
def stream(url: str, start: int = 0, stop: int | None = None) -> Iterator[Any]:
    """One GET of bytes [start, stop) as a streaming response, status 200 or 206. Raises: Refused, transport errors."""
    from huggingface_hub.utils import build_hf_headers, get_session

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start or stop is not None:
        headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code not in (200, 206):
            response.read()
            raise refusal(response)
        if response.status_code == 206 and not _begins_at(response.headers.get("Content-Range"), start):
            raise Refused(502, None, f"asked for bytes from {start}, came {response.headers.get('Content-Range')!r}", None)
        yield response


def read_range(url: str, start: int, stop: int, what: str, patience: Patience = PATIENCE) -> bytes:
    """Exactly bytes [start, stop) of a file, retried, continued where a connection broke. Raises: DataError, EnvironmentFailure."""
    require_online(what)
    data, attempt = bytearray(), 0
    while len(data) < stop - start:
        at = start + len(data)
        try:
            with stream(url, at, stop) as response:
                if response.status_code != 206:
                    raise EnvironmentFailure(f"{what}: the server ignores ranges, so parts of a file cannot be read; download it whole")
                for chunk in response.iter_raw():
                    data += chunk
                    attempt = 0
            if start + len(data) == at:
                raise DataError(f"{what}: no bytes at {at}; the file is shorter than its header says")
        except passing_errors() as error:
            retry(what, error, attempt, patience)
        attempt += 1
    return bytes(data[: stop - start])


def retry(what: str, error: Exception, attempt: int, patience: Patience) -> None:
    """Waits before try `attempt` + 1, or raises the one-line error when trying again is no use."""
    if isinstance(error, Refused) and not error.transient:
        raise explain(what, error) from error
    if attempt + 1 >= patience.tries:
        raise EnvironmentFailure(
            f"{what}: {_short(error)} after {patience.tries} tries at {endpoint()}; what came is kept, run the same command again to resume"
        ) from error
    after = error.retry_after if isinstance(error, Refused) else None
    if after and after >= 5:
        progress.note(f"{what}: the hub asks to wait {after:.0f} s ({_short(error)})")
    elif attempt >= 1:
        progress.note(f"{what}: {_short(error)}; trying again ({attempt + 2} of {patience.tries})")
    patience.wait(attempt, after)


def explain(what: str, error: Refused) -> Exception:
    """The error a user meets for a response that no retry will mend."""
    if error.code == "GatedRepo" or error.status in (401, 403):
        if error.code == "RepoNotFound":
            return DataError(f"{what}: no such repository at {endpoint()}, or a private one; check the name, or set HF_TOKEN")
        had = "the token in use may not read it" if error.status == 403 else "no valid token was sent"
        return EnvironmentFailure(f"{what}: gated or private, {had}; accept its terms at {endpoint()} and set HF_TOKEN, or `hf auth login`")
    if error.code == "RevisionNotFound":
        return DataError(f"{what}: no such revision at {endpoint()}; `pythia-tools suites NAME --online` shows which steps exist")
    if error.code == "EntryNotFound":
        return DataError(f"{what}: no such file in the repository")
    if error.code == "RepoNotFound" or error.status == 404:
        return DataError(f"{what}: not found at {endpoint()}; check the name, or HF_TOKEN if it is private")
    if error.status == 416:
        return DataError(f"{what}: the hub serves fewer bytes than it lists; the file is cut short there, try again later")
    return EnvironmentFailure(f"{what}: {error}")


def refusal(response: Any) -> Refused:
    """A response's status, hub error code, and how long it asks to wait (Retry-After, or the hub's RateLimit header)."""
    headers = response.headers
    seconds = _retry_after(headers.get("Retry-After"))
    if seconds is None and response.status_code == 429 and (window := re.search(r"\bt=(\d+)", headers.get("RateLimit") or "")):
        seconds = float(window[1])
    return Refused(response.status_code, headers.get("X-Error-Code"), headers.get("X-Error-Message"), seconds)


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, which is a number of seconds or a date; None when it is neither."""
    if value is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _begins_at(content_range: str | None, start: int) -> bool:
    """Whether a partial answer begins where it was asked to (a missing header is the server's word for it)."""
    return content_range is None or content_range.strip().lower().startswith(f"bytes {start}-")


def transport_errors() -> tuple[type[Exception], ...]:
    """Broken connections and timeouts of whichever HTTP library the client stands on."""
    return (_http_library().TransportError, ConnectionError, TimeoutError)


def passing_errors() -> tuple[type[Exception], ...]:
    """What a single request may fail with and another may not."""
    return (Refused, *transport_errors())


def _http_library() -> ModuleType:
    """httpx or its successor: the module of the session's base class."""
    import importlib

    from huggingface_hub.utils import get_session

    for base in type(get_session()).__mro__:
        module = importlib.import_module(base.__module__.split(".")[0])
        if hasattr(module, "TransportError"):
            return module
    raise EnvironmentFailure("huggingface_hub stands on an unknown HTTP library; install huggingface-hub 2.x")


def _short(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]
