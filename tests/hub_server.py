"""A local server that speaks the hub's protocol, with faults on request. Real clients talk to it through HF_ENDPOINT.

    with Hub() as hub:
        hub.add_model("me/model", {"main": folder, "step0": folder0})      # folders, or {"config.json": b"..."}
        hub.add_dataset("me/data", {"main": {"a.bin": b"..."}})
        hub.fail("*.safetensors", status=503, times=2)
        hub.fail("*step3*model.safetensors", cut_after=1000)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)                         # before huggingface_hub is imported
        hub.requests                                                       # what was asked, and how many bytes went out

Routes: refs, repository and revision info, tree (paged), paths-info, resolve with ETag, commit and LFS headers, Range.
Faults match a glob on "repo@revision/path" for files and on the URL's path for everything else.
`rate` limits all bodies together to so many bytes per second; `latency` is waited before every answer;
`cdn=True` answers LFS files with a redirect to another host, `relative=True` small ones with one to a path, as the public hub does;
`prefix` puts everything below a path, as mirrors do; `etag` is how ETags are written.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".npy", ".idx", ".parquet", ".msgpack")
CHUNK = 1 << 16
CATCH_UP_SECONDS = 0.2
SHORTEST_SLEEP = 0.002


@dataclass
class Request:
    """One answered request; `sent` counts body bytes."""

    method: str
    path: str
    range: str | None
    status: int
    sent: int
    authorized: bool
    file: str | None = None


@dataclass
class Fault:
    """What goes wrong for matching requests, `times` times (None: always). `extra`: bytes too many; `shift`: a range
    from elsewhere.
    """

    match: str
    times: int | None = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    truncate: int | None = None
    flip: int | None = None
    delay: float = 0.0
    ignore_range: bool = False
    extra: int = 0
    shift: int = 0
    methods: tuple[str, ...] = ("GET", "POST")


class Entry:
    """One file of one revision; digests are computed once."""

    def __init__(self, source: Path | bytes) -> None:
        self.source = source
        self.size = len(source) if isinstance(source, bytes) else source.stat().st_size
        self._digests: tuple[str, str] | None = None

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        if isinstance(self.source, bytes):
            return self.source[start:stop]
        with open(self.source, "rb") as handle:
            handle.seek(start)
            return handle.read() if stop is None else handle.read(stop - start)

    @property
    def digests(self) -> tuple[str, str]:
        """(sha256, git blob sha1)."""
        if self._digests is None:
            data = self.read()
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            self._digests = hashlib.sha256(data).hexdigest(), blob
        return self._digests


@dataclass
class Repo:
    """Branches and their files; `tags` name branches; `token` guards it (`gated` says how refusals read)."""

    kind: str
    name: str
    branches: dict[str, dict[str, Entry]]
    token: str | None = None
    gated: bool = False
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str) -> str:
        listing = sorted((path, entry.digests[1]) for path, entry in self.branches[branch].items())
        return hashlib.sha1(json.dumps([self.name, listing]).encode()).hexdigest()

    def find(self, revision: str) -> tuple[str, dict[str, Entry]] | None:
        """(commit, files) of a branch, tag or commit; None when there is none."""
        revision = self.tags.get(revision, revision)
        if revision in self.branches:
            return self.commit(revision), self.branches[revision]
        for branch, files in self.branches.items():
            if self.commit(branch) == revision:
                return revision, files
        return None


class Hub:
    """The server; use it as a context manager, or call start() and stop()."""

    def __init__(
        self, *, rate: float | None = None, latency: float = 0.0, cdn: bool = False, page: int = 1000,
        prefix: str = "", relative: bool = False, etag: str = '"{}"',
    ) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.rate, self.latency, self.cdn, self.page = rate, latency, cdn, page
        self.prefix, self.relative, self.etag = prefix, relative, etag
        self.lock = threading.Lock()
        self.connections: set[Any] = set()
        self._free_at = 0.0
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        host = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.url = host + prefix
        self.cdn_url = host.replace("127.0.0.1", "localhost")

    def start(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def stop(self) -> None:
        """No more answers, on open connections neither."""
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(2)

    __enter__ = start

    def __exit__(self, *_: object) -> None:
        self.stop()

    def add_model(self, name: str, branches: Mapping[str, Any], **guard: Any) -> Repo:
        return self._add("models", name, branches, **guard)

    def add_dataset(self, name: str, branches: Mapping[str, Any], **guard: Any) -> Repo:
        return self._add("datasets", name, branches, **guard)

    def _add(self, kind: str, name: str, branches: Mapping[str, Any], **guard: Any) -> Repo:
        repo = Repo(kind, name, {branch: _entries(files) for branch, files in branches.items()}, **guard)
        self.repos[kind, name] = repo
        return repo

    def fail(self, match: str, **what: Any) -> Fault:
        """Adds a fault (see Fault); the newest that matches wins."""
        fault = Fault(match, **what)
        with self.lock:
            self.faults.insert(0, fault)
        return fault

    def heal(self) -> None:
        """No more faults."""
        with self.lock:
            self.faults.clear()

    def forget(self) -> None:
        """Empty the request log."""
        with self.lock:
            self.requests.clear()

    @property
    def sent(self) -> int:
        """Body bytes of files that went out."""
        return sum(r.sent for r in self.requests if r.file is not None)

    def files_asked(self, pattern: str = "*", method: str = "GET") -> list[Request]:
        return [
            r for r in self.requests if r.file is not None and r.method == method and fnmatch.fnmatch(r.file, pattern)
        ]

    def take_fault(self, name: str, method: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if method in fault.methods and fnmatch.fnmatch(name, fault.match) and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None

    def wait_for_rate(self, count: int, *, first: bool = False) -> None:
        """Sleeps so that bodies keep to the rate: what one sleep took too long the next ones give back, idle time earns
        nothing.
        """
        if not self.rate:
            return
        with self.lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - (0.0 if first else CATCH_UP_SECONDS)) + count / self.rate
            wait = self._free_at - now
        if wait > SHORTEST_SLEEP:
            time.sleep(wait)


def _entries(files: Any) -> dict[str, Entry]:
    if isinstance(files, str | Path):
        root = Path(files)
        return {p.relative_to(root).as_posix(): Entry(p) for p in sorted(root.rglob("*")) if p.is_file()}
    return {path: Entry(source) for path, source in files.items()}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        self.hub.connections.add(self.connection)

    def finish(self) -> None:
        self.hub.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.file: str | None = None
        url = urlsplit(self.path)
        self.url_path, self.query = unquote(url.path), {k: v[-1] for k, v in parse_qs(url.query).items()}
        if self.hub.prefix and not self.url_path.startswith("/cdn/"):
            if not self.url_path.startswith(self.hub.prefix + "/"):
                return self._json(404, {"error": "not this mirror"})
            self.url_path = self.url_path.removeprefix(self.hub.prefix)
        if self.hub.latency:
            time.sleep(self.hub.latency)
        try:
            if self.url_path.startswith("/api/"):
                self._api()
            else:
                self._resolve()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    # ---- api

    def _api(self) -> None:
        fault = self.hub.take_fault(self.url_path, self.command)
        if fault is not None and self._fault_status(fault):
            return
        parts = self.url_path.strip("/").split("/")[1:]
        if len(parts) < 3 or parts[0] not in ("models", "datasets"):
            return self._json(404, {"error": "Not Found"})
        repo = self.hub.repos.get((parts[0], "/".join(parts[1:3])))
        if not self._may(repo):
            return
        assert repo is not None
        verb, rest = (parts[3], parts[4:]) if len(parts) > 3 else ("revision", ["main"])
        if verb == "refs":
            branches = [{"name": b, "ref": f"refs/heads/{b}", "targetCommit": repo.commit(b)} for b in repo.branches]
            tags = [{"name": t, "ref": f"refs/tags/{t}", "targetCommit": repo.commit(b)} for t, b in repo.tags.items()]
            return self._json(200, {"branches": branches, "tags": tags, "converts": [], "pullRequests": []})
        found, rest = self._revision(repo, rest)
        if found is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {'/'.join(rest)}")
        commit, files = found
        if verb == "revision":
            return self._json(200, _info(repo, commit, files))
        if verb == "tree":
            return self._tree(repo, commit, files, "/".join(rest))
        if verb == "paths-info":
            return self._json(200, [_node(path, files[path]) for path in self._asked_paths() if path in files])
        return self._json(404, {"error": "Not Found"})

    def _revision(self, repo: Repo, parts: list[str]) -> tuple[tuple[str, dict[str, Entry]] | None, list[str]]:
        """Branch names may hold slashes, escaped or not: the longest prefix that is one wins."""
        for n in range(len(parts), 0, -1):
            found = repo.find("/".join(parts[:n]))
            if found is not None:
                return found, parts[n:]
        return None, parts

    def _tree(self, repo: Repo, commit: str, files: dict[str, Entry], folder: str) -> None:
        recursive = self.query.get("recursive", "").lower() in ("1", "true")
        prefix = folder + "/" if folder else ""
        nodes, seen = [], set()
        for path, entry in files.items():
            if not path.startswith(prefix):
                continue
            head, slash, _ = path[len(prefix) :].partition("/")
            if slash and prefix + head not in seen:
                seen.add(prefix + head)
                nodes.append({
                    "type": "directory", "path": prefix + head, "size": 0,
                    "oid": hashlib.sha1(head.encode()).hexdigest()
                })
            if recursive or not slash:
                nodes.append(_node(path, entry))
        if folder and not nodes:
            return self._error(404, "EntryNotFound", f"no {folder}")
        start = int(self.query.get("cursor", 0))
        stop = start + self.hub.page
        headers = {}
        if stop < len(nodes):
            again = "&".join(f"{k}={quote(v)}" for k, v in {**self.query, "cursor": str(stop)}.items())
            headers["Link"] = f'<{self.hub.url}{quote(self.url_path)}?{again}>; rel="next"'
        self._json(200, nodes[start:stop], headers)

    def _asked_paths(self) -> list[str]:
        if "json" in (self.headers.get("Content-Type") or ""):
            return list(json.loads(self.body or b"{}").get("paths", []))
        return parse_qs(self.body.decode()).get("paths", [])

    # ---- files

    def _resolve(self) -> None:
        parts = self.url_path.strip("/").split("/")
        if parts[0] == "cdn":
            return self._cdn(parts[1:])
        kind = "models"
        if parts[0] == "datasets":
            kind, parts = "datasets", parts[1:]
        if len(parts) < 5 or parts[2] != "resolve":
            return self._json(404, {"error": "Not Found"})
        repo = self.hub.repos.get((kind, "/".join(parts[:2])))
        if not self._may(repo):
            return
        assert repo is not None
        found, rest = self._revision(repo, parts[3:-1])
        if found is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {parts[3]}")
        commit, files = found
        path = "/".join([*rest, parts[-1]])
        if path not in files:
            return self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        branches = [b for b in repo.branches if repo.commit(b) == commit]
        self._file(repo, commit, f"{repo.name}@{','.join(branches)}/{path}", path, files[path])

    def _file(self, repo: Repo, commit: str, name: str, path: str, entry: Entry) -> None:
        self.file = name
        sha256, blob = entry.digests
        lfs = path.endswith(LFS_SUFFIXES)
        headers = {
            "X-Repo-Commit": commit, "Accept-Ranges": "bytes", "ETag": self.hub.etag.format(sha256 if lfs else blob)
        }
        if self.hub.relative and not lfs and not self.query:
            return self._send(307, b"", {**headers, "Location": f"{quote(self.hub.prefix + self.url_path)}?cached=1"})
        if lfs:
            headers |= {"X-Linked-Size": str(entry.size), "X-Linked-Etag": f'"{sha256}"'}
            if self.hub.cdn:
                where = f"{self.hub.cdn_url}/cdn/{repo.kind}/{repo.name}/{commit}/{quote(path)}"
                return self._send(302, b"", {**headers, "Location": where})
        self._body(name, entry, headers)

    def _cdn(self, parts: list[str]) -> None:
        repo = self.hub.repos[parts[0], "/".join(parts[1:3])]
        found = repo.find(parts[3])
        assert found is not None
        path = "/".join(parts[4:])
        branches = [b for b in repo.branches if repo.commit(b) == parts[3]]
        self.file = f"{repo.name}@{','.join(branches)}/{path}"
        if self.headers.get("Authorization"):
            return self._json(400, {"error": "the token must not travel to another host"})
        self._body(self.file, found[1][path], {"Accept-Ranges": "bytes", "ETag": f'"{found[1][path].digests[0]}"'})

    def _body(self, name: str, entry: Entry, headers: dict[str, str]) -> None:
        fault = self.hub.take_fault(name, self.command)
        if fault is not None and self._fault_status(fault):
            return
        size = entry.size if fault is None or fault.truncate is None else fault.truncate
        asked = None if fault is not None and fault.ignore_range else self.headers.get("Range")
        start, stop, status = 0, size, 200
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(size - int(last), 0)
            stop = min(int(last) + 1, size) if first and last else size
            if start >= size:
                return self._send(416, b"", {**headers, "Content-Range": f"bytes */{size}"})
            status = 206
            if fault is not None and fault.shift:
                start, stop = start + fault.shift, min(stop + fault.shift, size)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self._stream(status, headers, entry, start, stop, fault)

    def _stream(
        self, status: int, headers: dict[str, str], entry: Entry, start: int, stop: int, fault: Fault | None
    ) -> None:
        self.send_response(status)
        extra = b"?" * (fault.extra if fault is not None else 0)
        for key, value in {**headers, "Content-Length": str(stop - start + len(extra))}.items():
            self.send_header(key, value)
        self.end_headers()
        sent = 0
        try:
            if self.command != "HEAD":
                for at in range(start, stop, CHUNK):
                    data = entry.read(at, min(at + CHUNK, stop))
                    if fault is not None and fault.flip is not None and at <= fault.flip < at + len(data):
                        i = fault.flip - at
                        data = data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]
                    if fault is not None and fault.cut_after is not None and sent + len(data) > fault.cut_after:
                        data = data[: max(fault.cut_after - sent, 0)]
                        self.wfile.write(data)
                        sent += len(data)
                        self.wfile.flush()
                        self.close_connection = True
                        self.connection.shutdown(2)
                        break
                    self.hub.wait_for_rate(len(data), first=at == start)
                    self.wfile.write(data)
                    self.wfile.flush()
                    sent += len(data)
                if extra:
                    self.wfile.write(extra)
                    self.wfile.flush()
        finally:
            self._record(status, sent)

    # ---- answers

    def _may(self, repo: Repo | None) -> bool:
        """False when an error was sent: no such repository, or its guard refuses."""
        came = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if repo is None:
            self._error(401 if not came else 404, "RepoNotFound", "Repository not found")
            return False
        if repo.token is None or came == repo.token:
            return True
        if repo.gated:
            self._error(403 if came else 401, "GatedRepo", f"Access to model {repo.name} is restricted.")
        else:
            self._error(404 if came else 401, "RepoNotFound", "Repository not found")
        return False

    def _fault_status(self, fault: Fault) -> bool:
        if fault.delay:
            time.sleep(fault.delay)
        if fault.status is None:
            return False
        self._send(fault.status, b"fault", fault.headers)
        return True

    def _error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self._send(
            status, json.dumps({"error": message}).encode(),
            {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}
        )

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self._record(status, 0 if self.command == "HEAD" else len(body))

    def _record(self, status: int, sent: int) -> None:
        request = Request(
            self.command, self.url_path, self.headers.get("Range"), status, sent, "Authorization" in self.headers,
            self.file
        )
        with self.hub.lock:
            self.hub.requests.append(request)


def _node(path: str, entry: Entry) -> dict[str, Any]:
    sha256, blob = entry.digests
    node: dict[str, Any] = {"type": "file", "path": path, "size": entry.size, "oid": blob}
    if path.endswith(LFS_SUFFIXES):
        node["lfs"] = {"oid": sha256, "size": entry.size, "pointerSize": 134}
    return node


def _info(repo: Repo, commit: str, files: dict[str, Entry]) -> dict[str, Any]:
    siblings = []
    for path, entry in files.items():
        sibling: dict[str, Any] = {"rfilename": path, "size": entry.size, "blobId": entry.digests[1]}
        if path.endswith(LFS_SUFFIXES):
            sibling["lfs"] = {"sha256": entry.digests[0], "size": entry.size, "pointerSize": 134}
        siblings.append(sibling)
    return {
        "_id": "0" * 24,
        "id": repo.name,
        "modelId": repo.name,
        "sha": commit,
        "private": bool(repo.token and not repo.gated),
        "gated": "manual" if repo.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "lastModified": "2026-01-01T00:00:00.000Z",
        "createdAt": "2026-01-01T00:00:00.000Z",
        "siblings": siblings,
    }
