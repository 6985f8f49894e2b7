"""Every connection of this package: requests that survive a bad day, with errors in one line.

Names and listings come through `huggingface_hub`; file bytes come by our own ranged requests through its session,
token and endpoint, because the client neither retries a 5xx of a file nor resumes in a new process. An answer that
is not the range asked for is refused. Cost: one request per call. The token goes to the hub alone and is never printed.
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
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from pythia_tools.core import files, progress
from pythia_tools.core.errors import DataError, EnvironmentFailure, PythiaToolsError

if TYPE_CHECKING:
    from httpx2 import Response  # or httpx: the library under the installed huggingface_hub
    from huggingface_hub import HfApi

T = TypeVar("T")
RETRY_STATUS = (408, 429, 500, 502, 503, 504)
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class RetryPolicy:
    """How long to try: `tries` in a row without progress, waits of base·2ⁱ s up to `cap`, Retry-After honoured."""

    tries: int = 6
    base: float = 1.0
    cap: float = 30.0
    longest_retry_after: float = 300.0
    sleep: Callable[[float], None] = time.sleep

    def wait(self, attempt: int, retry_after: float | None = None) -> None:
        if retry_after is not None:
            return self.sleep(min(retry_after, self.longest_retry_after))
        return self.sleep(min(self.base * 2**attempt, self.cap) * random.uniform(0.75, 1.25))


RETRIES = RetryPolicy()
BRIEF = RetryPolicy(tries=2, base=0.5)
"""For what can be done without: who has a cached checkpoint does not wait long for a hub that does not answer."""


@dataclass(frozen=True)
class Address:
    """Where a file's bytes are: `what` is its name in messages; `size` and `sha256` are what the hub listed."""

    what: str
    url: str
    size: int | None = None
    sha256: str | None = None


class Refused(Exception):
    """A response that was not a success; `transient` ones are worth another try."""

    def __init__(self, status: int, code: str | None, message: str | None, retry_after: float | None) -> None:
        super().__init__(f"HTTP {status}{' ' + code if code else ''}{': ' + message if message else ''}")
        self.status, self.code, self.retry_after = status, code, retry_after
        self.transient = status in RETRY_STATUS


class Attempts:
    """The tries of one request: a failure waits, or raises the one-line error when trying again is no use."""

    def __init__(self, what: str, retries: RetryPolicy, where: str | None = None) -> None:
        self.what, self.retries, self.where = what, retries, shown(where or endpoint())
        self._failures = 0

    def failed(self, error: Exception, *, progress_made: bool = False) -> None:
        """Waits before the next try. Raises: DataError, EnvironmentFailure."""
        response = getattr(error, "response", None)
        refused = error if isinstance(error, Refused) else None if response is None else refusal(response)
        if refused is not None and not refused.transient:
            raise explain(self.what, refused, self.where) from error
        if type(error).__name__ in ("TooManyRedirects", "UnsupportedProtocol"):
            raise EnvironmentFailure(f"{self.what}: {_short(error)} at {self.where}; check HF_ENDPOINT and the "
                                     "proxies") from error
        said = _short(refused or error)
        self._failures = 1 if progress_made else self._failures + 1
        if self._failures >= self.retries.tries:
            raise EnvironmentFailure(f"{self.what}: {said} after {self.retries.tries} tries at {self.where}; what came "
                                     "is kept, run the same command again to resume") from error
        after = refused.retry_after if refused is not None else None
        if after and after >= 5:
            progress.note(f"{self.what}: the hub asks to wait {after:.0f} s ({said})")
        elif self._failures > 1:
            progress.note(f"{self.what}: {said}; trying again ({self._failures + 1} of {self.retries.tries})")
        self.retries.wait(self._failures - 1, after)


def endpoint() -> str:
    """The hub's address: $HF_ENDPOINT, or the public hub."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def shown(text: str) -> str:
    """Without the names and passwords in the addresses of it."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def cache_root() -> Path:
    """The hub cache that `from_pretrained` reads: $HF_HUB_CACHE, or $HF_HOME/hub, or the user's."""
    from huggingface_hub import constants

    home = os.environ.get("HF_HOME")
    chosen = os.environ.get("HF_HUB_CACHE") or (f"{home}/hub" if home else constants.HF_HUB_CACHE)
    return Path(os.path.expanduser(chosen))


def offline() -> bool:
    """Whether $HF_HUB_OFFLINE asks for no requests at all."""
    from huggingface_hub import constants

    asked = os.environ.get("HF_HUB_OFFLINE", os.environ.get("TRANSFORMERS_OFFLINE"))
    return constants.HF_HUB_OFFLINE if asked is None else asked.upper() in ("1", "TRUE", "YES", "ON")


def require_online(what: str) -> None:
    """Raises EnvironmentFailure when the user asked for no network."""
    if offline():
        raise EnvironmentFailure(
            f"{what} is not in the cache and HF_HUB_OFFLINE is set; fetch it once with a network, or unset it")


def api() -> HfApi:
    """The real client, on the current endpoint."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint())


def ask(what: str, call: Callable[[], T], retries: RetryPolicy = RETRIES, where: str | None = None) -> T:
    """The value of a call that asks the hub (or `where`), retried; its errors in one line naming `what`."""
    from huggingface_hub.errors import HFValidationError

    require_online(what)
    _check_access()
    attempts = Attempts(what, retries, where)
    while True:
        try:
            return call()
        except passing_errors() as error:
            attempts.failed(error)
        except PythiaToolsError:
            raise
        except HFValidationError as error:
            raise DataError(f"{what}: no name of a repository or revision ({_short(error)})") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise EnvironmentFailure(f"{what}: the answer of {attempts.where} is not a hub's ({_short(error)}); check "
                                     "HF_ENDPOINT, and whether a proxy or a login page is in between") from error


def _check_access() -> None:
    """Raises: EnvironmentFailure for an endpoint that is no address, a token that no request can carry, and proxies or
    certificates with which no client can be made.
    """
    from huggingface_hub import get_token
    from huggingface_hub.utils import get_session

    try:
        address = urlsplit(endpoint())
        sound = address.scheme in ("http", "https") and address.hostname and address.port != 0
    except ValueError:
        sound = False
    if not sound or re.search(r"[\s?#]", endpoint()):
        raise EnvironmentFailure(f"HF_ENDPOINT={shown(''.join(endpoint().split()))!r} is no address such as https://huggingface.co")
    if not re.fullmatch(r"[!-~]*", get_token() or ""):
        raise EnvironmentFailure("the hub token (HF_TOKEN, or of `hf auth login`) holds characters that no token has; "
                                 "set it again, or unset it")
    try:
        get_session()
    except (ValueError, OSError) as error:
        raise EnvironmentFailure(
            f"no connection can be made ({_short(error)}); check HTTP_PROXY, HTTPS_PROXY and SSL_CERT_FILE") from error


@contextlib.contextmanager
def stream(url: str, start: int = 0, stop: int | None = None) -> Iterator[Response]:
    """One GET of bytes [start, stop) as a streaming response, status 200 or 206. Raises: Refused, transport errors."""
    from huggingface_hub.utils import build_hf_headers, get_session

    _check_access()
    token = None if url.startswith(f"{endpoint()}/") else False  # None: the user's, False: none
    headers = {**build_hf_headers(token=token), "Accept-Encoding": "identity"}
    if start or stop is not None:
        headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code not in (200, 206):
            response.read()
            raise refusal(response)
        came = response.headers.get("Content-Range")  # a missing header is the server's word that it is what was asked
        if response.status_code == 206 and came and not came.strip().lower().startswith(f"bytes {start}-"):
            raise Refused(502, None, f"asked for bytes from {start}, came {came!r}", None)
        yield response


def read_range(file: Address, start: int, stop: int, retries: RetryPolicy = RETRIES) -> bytes:
    """Exactly bytes [start, stop) of a file, in one request when nothing goes wrong, continued where one broke.

    Raises: DataError when the file is gone or has changed, EnvironmentFailure when the hub cannot be reached.
    """
    require_online(f"{file.what} (bytes {start} to {stop - 1})")
    data, attempts = bytearray(), Attempts(file.what, retries)
    while len(data) < stop - start:
        before = len(data)
        try:
            with stream(file.url, start + before, stop) as response:
                _check_part(file, response)
                for chunk in response.iter_raw():
                    data += chunk
                    if len(data) > stop - start:
                        raise DataError(f"{file.what}: the server sent more than was asked; it cannot be trusted")
        except passing_errors() as error:
            attempts.failed(error, progress_made=len(data) > before)
            continue
        if len(data) == before:
            raise DataError(f"{file.what}: no bytes at {start + before}; the file is shorter than its header says")
    return bytes(data)


def _check_part(file: Address, response: Response) -> None:
    """Raises unless an answer is a part, of a file with the listed size and digest; nothing of its body is read."""
    if response.status_code != 206:
        raise EnvironmentFailure(
            f"{file.what}: the server ignores ranges, so parts of a file cannot be read; download it whole")
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    if file.size is not None and total.isdigit() and int(total) != file.size:
        raise DataError(f"{file.what}: {file.size} bytes are listed, the server has {total}; the file has changed")
    for answer in (*response.history, response):
        tag = re.search(r"[0-9a-f]{64}", answer.headers.get("X-Linked-Etag", ""))
        if tag and file.sha256 and tag[0] != file.sha256:
            raise DataError(f"{file.what}: its digest is not the listed {file.sha256[:12]}…; the file has changed")


def fetch_url(url: str, target: Path, retries: RetryPolicy = BRIEF) -> Path:
    """A small file from any https address (no token is sent), from its start at every try. Raises: DataError,
    EnvironmentFailure."""
    if not url.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise DataError(f"{url}: only https addresses are downloaded")

    def once() -> Path:
        with files.atomic_write(target) as out, stream(url) as response:
            for chunk in response.iter_raw():
                out.write(chunk)
        return target

    return ask(url, once, retries, urlsplit(url).netloc)


def explain(what: str, error: Refused, where: str) -> Exception:
    """The error a user meets for a response that no retry will mend."""
    if error.code == "GatedRepo" or error.status in (401, 403):
        if error.code == "RepoNotFound":
            return DataError(
                f"{what}: no such repository at {where}, or a private one; check the name, or set HF_TOKEN")
        had = "the token in use may not read it" if error.status == 403 else "no valid token was sent"
        return EnvironmentFailure(
            f"{what}: gated or private, {had}; accept its terms at {where} and set HF_TOKEN, or `hf auth login`")
    if error.code == "RevisionNotFound":
        return DataError(f"{what}: no such revision at {where}; "
                         "`pythia-tools suites NAME --online` shows which steps of a suite exist")
    if error.code == "EntryNotFound":
        return DataError(f"{what}: no such file in the repository")
    if error.code == "RepoNotFound" or error.status == 404:
        return DataError(f"{what}: not found at {where}; check the name, or HF_TOKEN if it is private")
    if error.status == 416:
        return DataError(f"{what}: the hub serves fewer bytes than it lists; the file is cut short there, try later")
    return EnvironmentFailure(f"{what}: {error}")


def refusal(response: Response) -> Refused:
    """A response's status, hub error code, and the wait it asks for (Retry-After, or the hub's RateLimit header)."""
    headers = response.headers
    seconds = _retry_after(headers.get("Retry-After"))
    window = re.search(r"\bt=(\d+)", headers.get("RateLimit") or "")
    if seconds is None and response.status_code == 429 and window:
        seconds = float(window[1])
    return Refused(response.status_code, headers.get("X-Error-Code"), headers.get("X-Error-Message"), seconds)


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header: a number of seconds or a date; None when it is neither."""
    if value and re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value or "").timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def passing_errors() -> tuple[type[Exception], ...]:
    """What a request may fail with and another may not: refusals, broken connections, timeouts.

    The root of the HTTP library's errors is the base of the client's own: httpx's or its successor's.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (Refused, HfHubHTTPError.__bases__[0], ConnectionError, TimeoutError)


def _short(error: Exception) -> str:
    return shown(" ".join((str(error) or type(error).__name__).split())[:200])
