"""What the cache may delete, and answers that no hub gives: nothing foreign is touched, each is told in one line."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import Hub
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_download import REPO, Waits, assert_only_whole_blobs, at, files, home, server  # noqa: F401 - fixtures

from pythia_tools import hub as pt_hub
from pythia_tools import suites
from pythia_tools.cli.main import main
from pythia_tools.core.errors import EnvironmentFailure, PythiaToolsError, RequestError
from pythia_tools.hub import cache, formats, ledger, repositories

FETCH_AND_WAIT = textwrap.dedent("""
    import sys
    from pythia_tools import hub
    from pythia_tools.suites import Checkpoint, HubRevision, ModelInfo
    checkpoint = Checkpoint("tests", ModelInfo("tiny", None, None), 0, None, "step0", HubRevision("me/tiny", "step0"))
    print(hub.fetch(checkpoint), flush=True)
    if sys.stdin.readline().strip() == "use":
        with hub.pinned(checkpoint):
            pass
        print("used", flush=True)
        sys.stdin.readline()
""")


@pytest.mark.parametrize("end", ["used", "ended"])
def test_what_another_process_fetched_and_has_not_used_stays(
    server: Hub, home: Path, end: str,  # noqa: F811
) -> None:
    budget = int(1.5 * len(files(home, 0)["model.safetensors"]))
    child = subprocess.Popen(
        [sys.executable, "-c", FETCH_AND_WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None and child.stdout is not None
    try:
        folder = Path(child.stdout.readline().strip())
        assert (folder / "model.safetensors").is_file()
        with pytest.raises(RequestError, match="pinned, in use or asked for"):
            pt_hub.fetch(at(1), budget=budget)
        assert (folder / "model.safetensors").is_file()
        if end == "used":
            child.stdin.write("use\n")
            child.stdin.flush()
            assert child.stdout.readline() == "used\n"
    finally:
        if end == "ended":
            child.stdin.close()
            child.wait()
    pt_hub.fetch(at(1), budget=budget)
    assert not folder.exists()
    child.stdin.close() if not child.stdin.closed else None
    child.wait()


def test_one_process_makes_room_for_itself(server: Hub, home: Path) -> None:  # noqa: F811
    budget = int(1.5 * len(files(home, 0)["model.safetensors"]))
    folders = [pt_hub.fetch(at(step), budget=budget) for step in range(3)]
    assert [folder.exists() for folder in folders] == [False, False, True]


def test_eviction_leaves_what_is_not_the_caches(server: Hub, home: Path) -> None:  # noqa: F811
    budget = int(1.5 * len(files(home, 0)["model.safetensors"]))
    folder = pt_hub.fetch(at(0))
    (home / "data").mkdir()
    adapter = home / "data" / "my_adapter.bin"
    adapter.write_bytes(b"mine")
    (folder / "adapter.bin").symlink_to(adapter)
    (folder / "more").symlink_to(home / "data")
    (folder / "notes.txt").write_text("mine, too")
    pt_hub.fetch(at(1), budget=budget)
    assert adapter.read_bytes() == b"mine" and (folder / "notes.txt").read_text() == "mine, too"
    assert not (folder / "model.safetensors").exists() and cache.ref(REPO, "step0") is None
    assert ledger.used_bytes() <= budget
    assert_only_whole_blobs(home)


@pytest.mark.parametrize("name", [".DS_Store", ".step0.x1.part", "notes", "step9/deep"])
def test_a_stray_file_among_the_refs_changes_nothing(server: Hub, home: Path, name: str) -> None:  # noqa: F811
    budget = int(1.5 * len(files(home, 0)["model.safetensors"]))
    folder = pt_hub.fetch(at(0))
    stray = cache.repo_folder(REPO) / "refs" / name
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(folder.name.encode() if name.startswith(".step0") else b"\x00\xff\xfe")
    (cache.repo_folder(REPO) / "snapshots" / ".DS_Store").write_bytes(b"\xff")
    pt_hub.fetch(at(1), budget=budget)
    assert not folder.exists() and stray.exists()


def test_what_a_killed_process_left_beside_small_files_is_deleted_by_age(
    server: Hub, home: Path,  # noqa: F811
) -> None:
    pt_hub.fetch(at(0))
    (listing,) = (home / "home").rglob("listings/*/*.json")
    places = [cache.repo_folder(REPO) / "refs", listing.parent, home / "home" / "hub" / "ledger"]
    (cache.repo_folder(REPO) / "refs" / "nested").mkdir()
    left = [place / f".step0.{n}.part" for n, place in enumerate([*places, places[0] / "nested"])]
    for path in left:
        path.write_bytes(b"12345")
    young = places[0] / ".step1.y.part"
    young.write_bytes(b"")
    for path in left:
        os.utime(path, (0, 0))
    assert sorted(pt_hub.delete_unfinished()) == sorted((path, 5) for path in left)
    assert young.exists() and cache.ref(REPO, "step0") is not None


class _Page(BaseHTTPRequestHandler):
    """A login page, whatever is asked."""

    answer: tuple[int, dict[str, str], bytes] = (200, {"Content-Type": "text/html"}, b"<html>Please log in</html>")

    def do_GET(self) -> None:
        status, headers, body = self.answer
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value.replace("HERE", self.path))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def page(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: F811
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{httpd.server_port}")
    yield _Page
    httpd.shutdown()
    httpd.server_close()


MINE = 'name: mine\ndescription: x\nlocation: {hub: "me/{model}"}\nsteps: [0]\nmodels: {tiny: {}}\n'


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {"Content-Type": "text/html"}, b"<html>Please log in</html>"), "is not a hub's"),
        ((200, {"Content-Type": "application/json"}, b'{"ok": true}'), "is not a hub's"),
        ((200, {"Content-Type": "application/json"}, b"[1, 2]"), "is not a hub's"),
        ((200, {"Content-Type": "application/json"}, b"\xff\xfe"), "is not a hub's"),
        ((302, {"Location": "HERE"}, b""), "maximum allowed redirects. at http://127.0.0.1"),
    ],
)
def test_answers_that_no_hub_gives(
    page: Any, home: Path, answer: Any, said: str, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(page, "answer", answer)
    (home / "mine.yaml").write_text(MINE)
    assert main(["download", str(home / "mine.yaml"), "--quiet"]) == 3
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


@pytest.mark.parametrize("body", [b"<html>Please log in</html>", b""])
def test_a_page_in_place_of_a_file(
    server: Hub, body: bytes, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
) -> None:
    entry = pt_hub.listing(REPO, "step0")
    monkeypatch.setattr(_Page, "answer", (200, {"Content-Type": "text/html"}, body))
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{httpd.server_port}")
    try:
        with pytest.raises(PythiaToolsError) as error:
            pt_hub.download([at(0)], retries=Waits().retries(2), made=_plan(entry))
    finally:
        httpd.shutdown()
        httpd.server_close()
    assert "\n" not in str(error.value)


def _plan(entry: pt_hub.Listing) -> pt_hub.Plan:
    return pt_hub.Plan((entry,), tuple((entry, f) for f in entry.needed), (), 0, 0, 0)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HF_TOKEN", "hf_g\u00e4h\u2026", "the hub token .* holds characters that no token has"),
        ("HF_TOKEN", "hf_a b", "the hub token .* holds characters that no token has"),
        ("HF_ENDPOINT", "http://", "HF_ENDPOINT='http:' is no address"),
        ("HF_ENDPOINT", "huggingface.co", "HF_ENDPOINT='huggingface.co' is no address"),
        ("HF_ENDPOINT", "http://user:pass word@x", "is no address"),
        ("HF_ENDPOINT", "http://host:port", "is no address"),
        ("HF_ENDPOINT", "http://host:99999", "is no address"),
        ("HF_ENDPOINT", "http://[::1", "is no address"),
        ("HTTP_PROXY", "ftp://me:pass@nowhere", "no connection can be made .* check HTTP_PROXY"),
        ("HF_HUB_CACHE", "A FILE", "cannot be written"),
        ("PYTHIA_TOOLS_HOME", "A FILE", "a file where a folder is needed|cannot be written"),
    ],
)
def test_a_wrong_environment_is_told_in_one_line(
    server: Hub, home: Path, name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    import re

    from huggingface_hub import close_session

    (home / "file").write_text("")
    close_session()
    monkeypatch.setenv(name, value.replace("A FILE", str(home / "file")))
    (home / "mine.yaml").write_text(MINE)
    assert main(["download", str(home / "mine.yaml"), "--quiet"]) == 3
    close_session()
    err = capsys.readouterr().err
    assert re.search(said, err) and err.count("\n") == 1
    assert "hf_" not in err and "pass" not in err


def test_a_password_in_the_endpoint_is_never_printed(
    server: Hub, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],  # noqa: F811
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url.replace("http://", "http://me:s3cret@"))
    assert (pt_hub.fetch(at(0)) / "config.json").is_file()
    (home / "mine.yaml").write_text(MINE)
    assert main(["download", str(home / "mine.yaml").replace("tiny", "none"), "--steps", "7"]) != 0
    assert main(["selfcheck"]) in (0, 1, 3)
    server.fail("*", status=503, times=None)
    with pytest.raises(EnvironmentFailure) as error:
        pt_hub.branches("me/other", retries=Waits().retries(2))
    said = capsys.readouterr()
    assert "s3cret" not in said.out + said.err + str(error.value) and server.url in str(error.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.tuples(st.integers(0, 200), st.binary(max_size=150)).map(
    lambda p: p[0].to_bytes(8, "little") + p[1])))
def test_any_bytes_in_place_of_weights_are_refused(data: bytes) -> None:
    for find in (formats.safetensors_spots, formats.torch_spots):
        try:
            find(lambda a, b: data[a:b], len(data), "w", 64)
        except PythiaToolsError as error:
            assert "\n" not in str(error)


@settings(max_examples=300, deadline=None)
@given(places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
       cut=st.integers(0, 10**6), zipped=st.booleans())
def test_damaged_weights_are_read_or_refused(places: list[tuple[int, int]], cut: int, zipped: bool) -> None:
    data = bytearray(WEIGHTS[zipped])
    for place, byte in places:
        data[place % len(data)] = byte
    raw = bytes(data[: len(data) if cut % 5 else cut % len(data)])
    find = formats.torch_spots if zipped else formats.safetensors_spots
    try:
        for spot in find(lambda a, b: raw[a:b], len(raw), "w", 64).values():
            assert spot.bytes >= 0
    except PythiaToolsError as error:
        assert str(error)


def _weights() -> tuple[bytes, bytes]:
    import io
    from collections import OrderedDict

    import torch
    from safetensors.numpy import save

    out = io.BytesIO()
    torch.save(OrderedDict(a=torch.ones(3, 4), b=torch.zeros(2).half()), out)
    return save({"a": np.ones((3, 4), np.float32), "b": np.zeros(2, np.float16)}), out.getvalue()


WEIGHTS = _weights()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=8,
)
FILE = st.fixed_dictionaries({"path": JSON, "size": JSON, "sha256": JSON, "blob": JSON})
ENTRY = st.fixed_dictionaries({
    "root": JSON, "repo": JSON, "revisions": JSON, "commit": JSON, "blobs": JSON, "used": JSON, "pinned": JSON})


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.one_of(JSON, st.fixed_dictionaries({"commit": st.just("a" * 40), "files": st.lists(FILE, max_size=2)})))
def test_any_kept_listing_is_read_or_forgotten(home: Path, value: Any) -> None:  # noqa: F811
    from pythia_tools.core.files import write_json

    write_json(repositories._kept_path("me/x", "a" * 40, "model"), value)
    found = repositories.kept_listing("me/x", "main", "a" * 40)
    assert found is None or all(isinstance(f.size, int) for f in found.files)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.one_of(JSON, ENTRY), good=st.booleans())
def test_any_entry_of_the_ledger_is_read_or_forgotten(home: Path, value: Any, good: bool) -> None:  # noqa: F811
    from pythia_tools.core.files import write_json

    if good and isinstance(value, dict):
        value |= {"root": str((home / "cache").resolve()), "repo": "me/x", "commit": "a" * 40}
    (cache.repo_folder("me/x") / "snapshots" / ("a" * 40)).mkdir(parents=True, exist_ok=True)
    write_json(ledger._folder() / f"{ledger._name('me/x', 'a' * 40)}.json", value)
    assert ledger.used_bytes() >= 0 and ledger.make_room(0, 10**12) == 0


def test_steps_in_repositories_of_their_own_are_looked_for_there(server: Hub, home: Path) -> None:  # noqa: F811
    server.add_model("me/first", {"main": files(home, 0)})
    (home / "mine.yaml").write_text(
        'name: mine\ndescription: x\nlocation: {hub: "me/{model}", revision: null}\n'
        "models: {tiny: {revisions: {1: step1, 5: {repo: me/first}, 7: {repo: me/none}, 9: step9}}}\n")
    states, others = pt_hub.grid_states(suites.load_suite(home / "mine.yaml"), "tiny")
    assert states == {1: "present", 5: "present", 7: "missing", 9: "missing"} and others == ["step0", "step2", "step3"]
    checkpoint = suites.load_suite(home / "mine.yaml").checkpoint("tiny", 5)
    assert (pt_hub.fetch(checkpoint) / "config.json").is_file()


def test_a_data_set_that_another_tool_fetched_is_read_offline(
    server: Hub, home: Path, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
) -> None:
    from huggingface_hub import HfApi

    server.add_dataset("me/sets", {"main": {"a.csv": b"a,b", "b.csv": b"c"}})
    HfApi(endpoint=server.url).hf_hub_download(
        "me/sets", "a.csv", repo_type="dataset", cache_dir=home / "cache")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    server.forget()
    assert pt_hub.Dataset("me/sets").download("a.csv").read_bytes() == b"a,b"
    with pytest.raises(EnvironmentFailure, match="HF_HUB_OFFLINE"):
        pt_hub.Dataset("me/sets").download("b.csv")
    assert server.requests == []


def test_the_range_cache_deletes_only_ranges(home: Path) -> None:  # noqa: F811
    ranges = pt_hub.RangeCache(home / "ranges", limit=100)
    ranges.add("aa", 0, b"x" * 60)
    folder = home / "ranges" / "aa" / "aa"
    for name in (".0-60-ff.k.part", "notes-of-mine", "README"):
        (folder / name).write_bytes(b"y" * 80)
    ranges.add("aa", 60, b"x" * 60)
    kept = sorted(p.name for p in folder.iterdir())
    assert len(kept) == 4 and {".0-60-ff.k.part", "notes-of-mine", "README"} < set(kept)


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "GB", "1e9", "inf", "nan", "-1", "\u0663GB", ""])
def test_odd_amounts_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="not an amount of bytes"):
        pt_hub.parse_bytes(text)
    monkeypatch.setenv("PYTHIA_TOOLS_RANGE_CACHE_BYTES", "inf" if "9" in text else text or "none")
    if text not in ("1e9", "-1", "\u0663GB"):
        with pytest.raises(RequestError, match="is not a number of bytes"):
            pt_hub.shared_cache()
