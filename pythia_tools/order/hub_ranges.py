"""Parts of data-set files on the hub: what a repository holds, and bytes of a file by HTTP Range.

Everything goes through `huggingface_hub`'s own client (endpoint, token, proxies, offline switch), but not through its file
object: that one asks for 5 MiB blocks, gives up on the first 503, and would take a whole 30 GB shard from a server
that ignores Range. Here a request names exactly its bytes, a broken answer continues where it stopped, and an answer
that is not the range asked is refused before its body is read.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pythia_tools.core import files
from pythia_tools.core.errors import DataError, EnvironmentFailure, PythiaToolsError

ATTEMPTS = 5
FIRST_WAIT = 0.5
LONGEST_WAIT = 8.0
TIMEOUT = 30.0


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set at a commit. `sha256` is the hub's own record, for files it keeps as LFS."""

    repo: str
    commit: str
    name: str
    size: int
    sha256: str | None

    @property
    def key(self) -> str:
        """What its bytes are called in the cache: the content's digest, so that a moved branch costs nothing."""
        return self.sha256 or files.digest([self.repo, self.commit, self.name])


class Repository:
    """A data set at a revision. The listing is asked once, kept in the cache folder, and reused without a network."""

    def __init__(self, repo: str, revision: str = "main"):
        self.repo = repo
        self.revision = revision
        self._fresh = False
        self._files: dict[str, RemoteFile] | None = None
        self._lock = threading.Lock()

    @property
    def _saved(self) -> Path:
        return files.cache_dir() / "listings" / f"{files.digest([endpoint(), self.repo, self.revision])[:32]}.json"

    def files(self, *, fresh: bool = False) -> dict[str, RemoteFile]:
        """Every file by name. `fresh` asks the hub unless this object has done so already.

        Raises: DataError when the repository or revision does not exist, EnvironmentFailure when the hub is unreachable.
        """
        with self._lock:
            if self._files is None and self._saved.is_file():
                self._files = {f["name"]: RemoteFile(**f) for f in files.read_json(self._saved)}
            if self._files is None or (fresh and not self._fresh):
                self._files = _listing(self.repo, self.revision)
                self._fresh = True
                files.write_json(self._saved, [asdict(f) for f in self._files.values()])
            return self._files

    def file(self, name: str, *, size: int | None = None, sha256: str | None = None) -> RemoteFile:
        """One file, held against what is known of it. Raises DataError when it is missing or differs."""
        found = self.files().get(name) or self.files(fresh=True).get(name)
        if found is None:
            raise DataError(f"{self.repo}@{self.revision}: holds no {name}; a shard is missing there or the manifest is wrong")
        if size is not None and found.size != size:
            raise DataError(f"{self.repo}/{name}: {found.size} bytes on the hub, the manifest says {size}; do not use it")
        if sha256 is not None and found.sha256 is not None and found.sha256 != sha256:
            raise DataError(
                f"{self.repo}/{name}: the hub's sha256 {found.sha256[:12]}… is not the manifest's {sha256[:12]}…; do not use it"
            )
        return found


def endpoint() -> str:
    """The hub's address: $HF_ENDPOINT, or the client's default."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def read_range(file: RemoteFile, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a file, in one request when nothing goes wrong.

    Broken connections and 408, 429, 5xx are tried again (five times, waiting 0.5 s to 8 s, or what Retry-After says).
    Raises: EnvironmentFailure when that does not help, DataError when the file is gone or not what the listing said.
    """
    got = bytearray()
    wait = FIRST_WAIT
    failure = ""
    for attempt in range(ATTEMPTS):
        before = len(got)
        try:
            _stream(file, start + before, stop, got)
            if len(got) == stop - start:
                return bytes(got)
            failure = f"the connection ended after {len(got)} of {stop - start} bytes"
        except _TryAgain as again:
            failure, wait = str(again), max(wait, again.wait)
        except PythiaToolsError:
            raise
        except Exception as error:  # the client's transport errors have no common public base
            if type(error).__name__ == "OfflineModeIsEnabled":
                raise EnvironmentFailure(
                    f"{file.repo}/{file.name}: bytes {start}-{stop - 1} are not cached and HF_HUB_OFFLINE is set"
                ) from error
            failure = f"{type(error).__name__}: {error}"
        if attempt + 1 < ATTEMPTS:
            time.sleep(min(wait, 60.0))
        wait = FIRST_WAIT if len(got) > before else min(2 * wait, LONGEST_WAIT)
    raise EnvironmentFailure(
        f"{file.repo}/{file.name}: bytes {start}-{stop - 1} did not arrive after {ATTEMPTS} tries ({failure}); "
        "what came before is cached, run again"
    )


class _TryAgain(Exception):
    def __init__(self, message: str, wait: float = 0.0):
        super().__init__(message)
        self.wait = wait


def _stream(file: RemoteFile, start: int, stop: int, got: bytearray) -> None:
    """One request; appends to `got` what arrives, so that a broken one can be continued."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(file.repo, file.name, repo_type="dataset", revision=file.commit, endpoint=endpoint())
    headers = {**build_hf_headers(), "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT) as response:
        _check_answer(file, response, start)
        room = stop - start
        for piece in response.iter_bytes():
            got += piece[:room]
            room -= len(piece)
            if room < 0:
                raise DataError(f"{file.repo}/{file.name}: the server sent more than the range asked; it cannot be trusted")


def _check_answer(file: RemoteFile, response: Any, start: int) -> None:
    status = response.status_code
    where = f"{file.repo}/{file.name}"
    if status in (408, 429) or status >= 500:
        after = response.headers.get("retry-after", "")
        raise _TryAgain(f"the hub answered {status}", float(after) if after.isdigit() else 0.0)
    if status in (401, 403):
        raise EnvironmentFailure(f"{where}: the hub refused access ({status}); log in with a token that may read it")
    if status == 200 and start == 0 and int(response.headers.get("content-length") or -1) == file.size:
        raise EnvironmentFailure(f"{where}: the server ignores Range; reading parts of files needs one that does not")
    if status != 206:
        raise DataError(f"{where}: the hub answered {status} to a range of {file.size} bytes; the file is gone or has changed")
    came = response.headers.get("content-range", "")
    if not came.startswith(f"bytes {start}-") or not came.endswith((f"/{file.size}", "/*")):
        raise DataError(f"{where}: asked from byte {start} of {file.size}, the server sent {came!r}; the file has changed")
    for answer in (*response.history, response):
        tag = answer.headers.get("x-linked-etag", "").strip('"')
        if tag and file.sha256 and tag != file.sha256:
            raise DataError(f"{where}: its digest on the hub is no longer {file.sha256[:12]}…; open the order again")


def _listing(repo: str, revision: str) -> dict[str, RemoteFile]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    wait, failure = FIRST_WAIT, ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
        try:
            info = HfApi(endpoint=endpoint()).dataset_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT)
            return {s.rfilename: _remote(repo, str(info.sha), s) for s in info.siblings or ()}
        except (GatedRepoError, RepositoryNotFoundError) as error:
            raise DataError(f"data set {repo} does not exist on {endpoint()}, or needs a token that may read it") from error
        except RevisionNotFoundError as error:
            raise DataError(f"data set {repo} has no revision {revision!r}") from error
        except Exception as error:
            failure = f"{type(error).__name__}: {error}".splitlines()[0]
            if type(error).__name__ == "OfflineModeIsEnabled":
                break
    raise EnvironmentFailure(f"data set {repo}: {endpoint()} cannot be reached ({failure}); check the network or HF_ENDPOINT")


def _remote(repo: str, commit: str, sibling: Any) -> RemoteFile:
    lfs = sibling.lfs
    sha256 = None if lfs is None else lfs["sha256"] if isinstance(lfs, dict) else lfs.sha256
    return RemoteFile(repo, commit, sibling.rfilename, int(sibling.size or 0), sha256)
