"""Hubs, mirrors and repositories out of the ordinary: whatever the server's manners, right bytes or one plain line."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import Hub
from test_download import REPO, Waits, assert_only_whole_blobs, at, files, home  # noqa: F401 - home is a fixture

from pythia_tools import hub as pt_hub
from pythia_tools.core.errors import DataError, EnvironmentFailure
from pythia_tools.hub import cache, client, ledger
from pythia_tools.suites import Checkpoint, HubRevision, ModelInfo


def named(revision: str, repo: str = REPO) -> Checkpoint:
    return Checkpoint("tests", ModelInfo("tiny", None, None), 0, None, revision, HubRevision(repo, revision))


@pytest.fixture
def start(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: F811 - the fixture
    """Starts a hub with some manners and one repository."""
    running: list[Hub] = []

    def run(**manners: Any) -> Hub:
        server = Hub(**manners).start()
        running.append(server)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.add_model(REPO, {f"step{i}": files(home, i) for i in range(3)})
        return server

    yield run
    for server in running:
        server.stop()


@pytest.mark.parametrize(
    "manners",
    [{"prefix": "/mirror/hf"}, {"prefix": "/mirror", "cdn": True}, {"relative": True},
     {"relative": True, "prefix": "/m", "cdn": True},
     {"etag": 'W/"{}"'}, {"etag": "{}"}],
    ids=["below a path", "below a path, files elsewhere", "relative redirects", "all three", "weak ETags",
         "bare ETags"],
)
def test_mirrors_and_redirects(start: Any, home: Path, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
                               manners: dict[str, Any]) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    server = start(**manners)
    server.repos["models", REPO].token = "hf_good"
    folder = pt_hub.fetch(at(0))
    assert (folder / "model.safetensors").read_bytes() == files(home, 0)["model.safetensors"]
    assert_only_whole_blobs(home)
    elsewhere = [r for r in server.requests if r.path.startswith("/cdn/")]
    assert bool(elsewhere) == bool(manners.get("cdn")) and not any(r.authorized for r in elsewhere)
    weights = pt_hub.open_weights(at(1))
    assert weights.rows("embed", np.arange(3)).shape == (3, 64)


def test_an_endpoint_may_end_in_a_slash(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(prefix="/mirror")
    monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
    assert (pt_hub.fetch(at(0)) / "config.json").is_file()


def test_tags_and_names_with_slashes_are_revisions(start: Any, home: Path) -> None:  # noqa: F811
    server = start()
    repo = server.repos["models", REPO]
    repo.tags["v1.0"] = "step1"
    repo.branches["stage1/step 100-tokens4B"] = repo.branches["step2"]
    repo.branches["a%2Fb"] = repo.branches["step0"]
    by_tag, by_branch = pt_hub.fetch(named("v1.0")), pt_hub.fetch(at(1))
    assert by_tag == by_branch
    slashed = pt_hub.fetch(named("stage1/step 100-tokens4B"))
    assert (slashed / "model.safetensors").read_bytes() == files(home, 2)["model.safetensors"]
    assert cache.ref(REPO, "stage1/step 100-tokens4B") == repo.commit("step2")
    assert pt_hub.fetch(named("a%2Fb")).name == repo.commit("step0")
    from huggingface_hub import hf_hub_download

    found = hf_hub_download(REPO, "config.json", revision="stage1/step 100-tokens4B", cache_dir=home / "cache",
                            local_files_only=True)
    assert Path(found).parent == slashed


def test_a_commit_is_a_revision(start: Any) -> None:
    commit = start().repos["models", REPO].commit("step1")
    assert pt_hub.fetch(named(commit)).name == commit


def test_home_decides_where_the_cache_is(start: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    start()
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(home / "hf home"))
    assert pt_hub.fetch(at(0)).is_relative_to(home / "hf home" / "hub")


def test_retry_after_may_be_a_date(start: Any) -> None:
    server = start()
    server.fail("*model.safetensors", status=429, headers={"Retry-After": formatdate(time.time() + 40, usegmt=True)})
    server.fail("*config.json", status=503, headers={"Retry-After": "when the cows come home"})
    waits = Waits()
    pt_hub.fetch(at(0), retries=waits.retries())
    assert sorted(w > 30 for w in waits) == [False, True] and max(waits) <= 40
    server.fail("*step1/model.safetensors", status=429,
                headers={"Retry-After": formatdate(time.time() - 40, usegmt=True)})
    waits.clear()
    pt_hub.fetch(at(1), retries=waits.retries())
    assert waits == [0.0]


def test_a_body_that_is_too_long_is_not_swallowed(start: Any, home: Path) -> None:  # noqa: F811
    start().fail("*model.safetensors", extra=5000)
    pt_hub.fetch(at(0), retries=Waits().retries())
    assert_only_whole_blobs(home)


def test_a_range_from_elsewhere_is_refused(start: Any, home: Path) -> None:  # noqa: F811
    """Rows read in part have no digest to give a wrong range away, so the answer's own word is checked."""
    server = start()
    first = pt_hub.open_weights(at(0)).rows("embed", np.arange(5))
    weights = pt_hub.listing(REPO, "step1").weights[0]
    server.fail("*step1/model.safetensors", shift=256, times=None)
    with pytest.raises(EnvironmentFailure, match="asked for bytes from 0, came 'bytes 256-"):
        client.read_range(pt_hub.listing(REPO, "step1").address(weights), 0, 100, Waits().retries())
    server.heal()
    server.fail("*step0/model.safetensors", shift=256)
    server.fail("*step0/model.safetensors", cut_after=100_000)
    pt_hub.fetch(at(0), retries=Waits().retries())
    assert_only_whole_blobs(home)
    assert np.array_equal(pt_hub.open_weights(at(0)).rows("embed", np.arange(5)), first)


def test_parts_of_a_file_that_is_not_the_listed_one_are_refused(start: Any) -> None:
    server = start()
    entry = pt_hub.listing(REPO, "step1")
    listed = entry.address(entry.weights[0])
    assert listed.size is not None and listed.sha256 is not None
    faults = {"truncate": listed.size - 1000}, {"extra": 7}
    for fault, why in zip(faults, ("bytes are listed, the server has", "more than was asked"), strict=True):
        server.fail("*step1/model.safetensors", **fault)
        with pytest.raises(DataError, match=why):
            client.read_range(listed, 0, 100)
    with pytest.raises(DataError, match="its digest is not the listed ffffffffffff"):
        client.read_range(replace(listed, sha256="f" * 64), 0, 100)
    assert len(client.read_range(listed, 0, 100)) == 100


def test_files_from_other_hosts_come_without_the_token(start: Any, home: Path,  # noqa: F811
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    start()
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    with Hub() as elsewhere:
        elsewhere.add_dataset("me/sets", {"main": {"a.csv": b"a,b"}})
        elsewhere.fail("*a.csv", cut_after=1)
        url = f"{elsewhere.url}/datasets/me/sets/resolve/main/a.csv"
        assert pt_hub.fetch_url(url, home / "a.csv", Waits().retries()).read_bytes() == b"a,b"
        assert len(elsewhere.requests) == 2 and not any(r.authorized for r in elsewhere.requests)
        with pytest.raises(DataError, match=r"not found at 127\.0\.0\.1"):
            pt_hub.fetch_url(f"{elsewhere.url}/nothing", home / "b.csv", Waits().retries())
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(EnvironmentFailure, match="HF_HUB_OFFLINE"):
            pt_hub.fetch_url(url, home / "b.csv")
    with pytest.raises(DataError, match="only https addresses"):
        pt_hub.fetch_url("http://example.org/a.csv", home / "b.csv")


@pytest.mark.parametrize("how", [{"cut_after": 200_000}, {"truncate": 200_000}])
def test_a_server_that_neither_resumes_nor_finishes_is_given_up(start: Any, home: Path,  # noqa: F811
                                                                how: dict[str, int]) -> None:
    start().fail("*model.safetensors", ignore_range=True, times=None, **how)
    with pytest.raises(EnvironmentFailure, match=r"after 3 tries at|cannot resume and broke off 3 times"):
        pt_hub.fetch(at(0), retries=Waits().retries(3))
    assert_only_whole_blobs(home)


def test_no_ranges_at_all_is_said_by_partial_reads_and_does_not_hinder_downloads(
    start: Any, home: Path,  # noqa: F811
) -> None:
    server = start()
    server.fail("*model.safetensors", ignore_range=True, times=None)
    with pytest.raises(EnvironmentFailure,
                       match="the server ignores ranges, so parts of a file cannot be read; download it whole"):
        pt_hub.open_weights(at(0))
    pt_hub.fetch(at(0))
    assert_only_whole_blobs(home)
    assert pt_hub.open_weights(at(0)).names == ["embed"], "and from the cache they can"


def test_two_branches_of_one_commit_are_evicted_together(start: Any, home: Path) -> None:  # noqa: F811
    server = start()
    repo = server.repos["models", REPO]
    repo.branches["step1"] = repo.branches["step0"]
    one = len(files(home, 0)["model.safetensors"])
    folder = pt_hub.fetch(at(0))
    assert pt_hub.fetch(at(1)) == folder
    (entry,) = ledger.entries()
    assert entry.revisions == ["step0", "step1"]
    pt_hub.fetch(at(2), budget=int(1.5 * one))
    assert not folder.exists() and cache.ref(REPO, "step0") is None and cache.ref(REPO, "step1") is None
    held = sum(p.stat().st_size for p in (home / "cache").rglob("blobs/*"))
    assert held <= 1.5 * one and ledger.used_bytes() == held
    assert_only_whole_blobs(home)


def test_a_snapshot_that_another_tool_named_too_stays(start: Any, home: Path) -> None:  # noqa: F811
    from huggingface_hub import HfApi

    server = start()
    repo = server.repos["models", REPO]
    repo.branches["main"] = repo.branches["step0"]
    folder = pt_hub.fetch(at(0))
    HfApi(endpoint=server.url).hf_hub_download(REPO, "config.json", revision="main", cache_dir=home / "cache")
    pt_hub.fetch(at(2), budget=int(1.5 * len(files(home, 0)["model.safetensors"])))
    assert (folder / "model.safetensors").is_file()
    assert cache.ref(REPO, "step0") == cache.ref(REPO, "main") == repo.commit("step0")


def test_two_processes_fetch_a_checkpoint_once(start: Any, home: Path) -> None:  # noqa: F811
    server = start(rate=1_000_000)
    script = textwrap.dedent("""
        from pythia_tools import hub
        from pythia_tools.suites import Checkpoint, HubRevision, ModelInfo
        tiny = ModelInfo("tiny", None, None)
        print(hub.fetch(Checkpoint("tests", tiny, 0, None, "step0", HubRevision("me/tiny", "step0"))))
    """)
    how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    children = [subprocess.Popen([sys.executable, "-c", script], **how) for _ in range(2)]
    said = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    assert said[0][0] == said[1][0] != ""
    needed = ("config.json", "tokenizer.json", "model.safetensors")
    assert server.sent == sum(len(files(home, 0)[name]) for name in needed), "no byte came twice"
    assert_only_whole_blobs(home)


def test_unfinished_uploads_and_unverifiable_files_are_refused(start: Any, home: Path) -> None:  # noqa: F811
    server = start()
    content = files(home, 0)
    server.add_model("me/bare", {"step0": {"model.safetensors": content["model.safetensors"]}})
    with pytest.raises(DataError, match=r"me/bare@step0: no config.json; the checkpoint is incomplete on the hub"):
        pt_hub.fetch(at(0, "me/bare"))
    server.add_model("me/empty", {"step0": {"config.json": b"{}", "README.md": b"soon"}})
    with pytest.raises(DataError, match=r"no model.safetensors or pytorch_model.bin"):
        pt_hub.fetch(at(0, "me/empty"))
