"""Downloads against a server that misbehaves: what the user sees, and that nothing wrong is ever left as good."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import Hub
from safetensors.numpy import save_file

from pythia_tools import hub as pt_hub
from pythia_tools.core.errors import DataError, EnvironmentFailure, RequestError
from pythia_tools.hub import RetryPolicy, cache, client, ledger, parts
from pythia_tools.suites import Checkpoint, HubRevision, ModelInfo

MODEL = ModelInfo("tiny", None, None)
REPO = "me/tiny"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "PYTHIA_TOOLS_DISK_BUDGET"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with Hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        running.add_model(REPO, {f"step{i}": files(home, i) for i in range(4)})
        yield running


def files(home: Path, seed: int, rows: int = 2000) -> dict[str, bytes]:
    """A little repository: config, tokenizer, weights in both formats, and a script that nobody should fetch."""
    path = home / f"weights{seed}-{rows}.safetensors"
    save_file({"embed": np.random.default_rng(seed).normal(size=(rows, 64)).astype(np.float32)}, path)
    return {
        "config.json": b'{"model_type": "gpt_neox", "hidden_size": 64, "num_hidden_layers": 1, "vocab_size": 2000}',
        "tokenizer.json": b"{}",
        "model.safetensors": path.read_bytes(),
        "pytorch_model.bin": b"never both",
        "modeling.py": b"raise SystemExit",
        "README.md": b"read me",
    }


def at(step: int, repo: str = REPO) -> Checkpoint:
    return Checkpoint("tests", MODEL, step, None, f"step{step}", HubRevision(repo, f"step{step}"))


class Waits(list[float]):
    """A retry policy that notes its waits and takes none."""

    def retries(self, tries: int = 4) -> RetryPolicy:
        return RetryPolicy(tries=tries, base=1.0, cap=30.0, sleep=self.append)


def blobs(home: Path, repo: str = REPO) -> dict[str, bytes]:
    """Everything under a blob's own name: it must be what its name says."""
    folder = home / "cache" / f"models--{repo.replace('/', '--')}" / "blobs"
    paths = folder.iterdir() if folder.is_dir() else ()
    return {p.name: p.read_bytes() for p in paths if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", p.name)}


def assert_only_whole_blobs(home: Path) -> None:
    for name, data in blobs(home).items():
        digest = hashlib.sha256(data) if len(name) == 64 else hashlib.sha1(b"blob %d\0" % len(data) + data)
        assert digest.hexdigest() == name
    snapshots = home / "cache" / "models--me--tiny" / "snapshots"
    for link in snapshots.rglob("*") if snapshots.is_dir() else ():
        assert link.is_dir() or link.exists(), f"{link} points nowhere"


def test_only_what_is_needed_is_fetched_where_the_real_client_finds_it(server: Hub, home: Path) -> None:
    folder = pt_hub.fetch(at(0))
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    from huggingface_hub import hf_hub_download, snapshot_download

    found = hf_hub_download(REPO, "model.safetensors", revision="step0", cache_dir=home / "cache",
                            local_files_only=True)
    assert Path(found) == folder / "model.safetensors"
    wanted = ["config.json", "*.safetensors"]
    whole = snapshot_download(REPO, revision="step0", cache_dir=home / "cache", local_files_only=True,
                              allow_patterns=wanted)
    assert Path(whole) == folder
    assert_only_whole_blobs(home)


def test_a_second_fetch_asks_for_no_file_and_offline_for_nothing(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pt_hub.fetch(at(1))
    server.forget()
    assert pt_hub.fetch(at(1)) == first
    assert not server.files_asked() and len(server.requests) <= 1
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    server.forget()
    assert pt_hub.fetch(at(1)) == first
    assert server.requests == []
    with pytest.raises(EnvironmentFailure, match=r"me/tiny.* is not in the cache and HF_HUB_OFFLINE is set"):
        pt_hub.fetch(at(2))


def test_torch_files_are_taken_when_there_is_no_safetensors(server: Hub, home: Path) -> None:
    content = files(home, 0)
    del content["model.safetensors"]
    server.add_model("me/old", {"step0": content})
    found = sorted(p.name for p in pt_hub.fetch(at(0, "me/old")).iterdir())
    assert found == ["config.json", "pytorch_model.bin", "tokenizer.json"]


def test_a_missing_shard_is_named(server: Hub, home: Path) -> None:
    content = files(home, 0)
    data = content.pop("model.safetensors")
    content |= {"model-00001-of-00002.safetensors": data, "model.safetensors.index.json": b"{}"}
    server.add_model("me/sharded", {"step0": content})
    with pytest.raises(DataError,
                       match=r"me/sharded@step0: shards \[2\] of 2 missing; the checkpoint is incomplete on the hub"):
        pt_hub.fetch(at(0, "me/sharded"))
    content["model-00002-of-00002.safetensors"] = data
    server.add_model("me/whole", {"step0": content})
    assert len(list(pt_hub.fetch(at(0, "me/whole")).glob("*.safetensors"))) == 2


def test_a_cut_connection_is_resumed_from_the_last_byte(server: Hub, home: Path) -> None:
    server.fail("*model.safetensors", cut_after=200_000)
    waits = Waits()
    pt_hub.fetch(at(0), retries=waits.retries())
    asked = server.files_asked("*model.safetensors")
    assert [r.range for r in asked] == [None, "bytes=200000-"]
    assert sum(r.sent for r in asked) == len(files(home, 0)["model.safetensors"])
    assert_only_whole_blobs(home)


def test_a_server_that_ignores_ranges_starts_over_and_ends_whole(server: Hub, home: Path) -> None:
    server.fail("*model.safetensors", ignore_range=True)
    server.fail("*model.safetensors", cut_after=200_000)
    server.fail("*model.safetensors", ignore_range=True, times=0)
    pt_hub.fetch(at(0), retries=Waits().retries())
    assert_only_whole_blobs(home)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_server_errors_of_a_file_are_retried(server: Hub, home: Path, status: int) -> None:
    server.fail("*model.safetensors", status=status, times=2)
    waits = Waits()
    pt_hub.fetch(at(0), retries=waits.retries())
    assert len(waits) == 2 and 0.7 < waits[0] < 1.3 and 1.4 < waits[1] < 2.6
    assert_only_whole_blobs(home)


def test_too_many_requests_waits_as_long_as_the_hub_asks(server: Hub) -> None:
    server.fail("*model.safetensors", status=429, headers={"Retry-After": "17"})
    waits = Waits()
    pt_hub.fetch(at(0), retries=waits.retries())
    assert waits == [17.0]


def test_the_hubs_own_rate_limit_header_is_understood(server: Hub) -> None:
    server.fail("*model.safetensors", status=429, headers={"RateLimit": '"resolvers";r=0;t=23'})
    waits = Waits()
    pt_hub.fetch(at(0), retries=waits.retries())
    assert waits == [23.0]


def test_an_error_that_stays_is_one_line_and_the_next_run_resumes(server: Hub, home: Path) -> None:
    server.fail("*model.safetensors", status=503, times=None)
    server.fail("*model.safetensors", cut_after=150_000)
    with pytest.raises(EnvironmentFailure) as error:
        pt_hub.fetch(at(0), retries=Waits().retries(3))
    assert str(error.value) == (
        f"me/tiny@step0/model.safetensors: HTTP 503 after 3 tries at {server.url}; what came is kept, "
        "run the same command again to resume"
    )
    assert not (cache.repo_folder(REPO) / "snapshots").exists()
    server.heal()
    server.forget()
    pt_hub.fetch(at(0))
    assert [r.range for r in server.files_asked("*model.safetensors")] == ["bytes=150000-"]
    assert_only_whole_blobs(home)


def test_api_errors_are_retried_too(server: Hub) -> None:
    server.fail("/api/models/me/tiny/refs", status=503)
    server.fail("/api/models/me/tiny/revision/*", status=500)
    waits: list[float] = []
    assert client.RETRIES.tries >= 5
    branches = client.ask("me/tiny", lambda: client.api().list_repo_refs("me/tiny"), RetryPolicy(sleep=waits.append))
    assert len(branches.branches) == 4 and len(waits) == 1


def test_a_server_that_is_down_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub() as gone:
        url = gone.url
    monkeypatch.setenv("HF_ENDPOINT", url)
    with pytest.raises(EnvironmentFailure, match=rf"me/tiny: .* after 2 tries at {url}; what came is kept"):
        client.ask("me/tiny", lambda: client.api().list_repo_refs("me/tiny"), Waits().retries(2))


def test_a_cached_checkpoint_outlives_the_server(home: Path, monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    with Hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        running.add_model(REPO, {"step0": files(home, 0)})
        folder = pt_hub.fetch(at(0))
    monkeypatch.setattr("pythia_tools.hub.repositories._branches", {})
    monkeypatch.setattr("pythia_tools.hub.downloading.BRIEF", Waits().retries(1))
    assert pt_hub.fetch(at(0)) == folder
    assert "going on with the cached copy" in capsys.readouterr().err


def test_a_flipped_bit_is_fetched_again_and_never_kept(server: Hub, home: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    server.fail("*model.safetensors", flip=300_000)
    pt_hub.fetch(at(0))
    assert "came with wrong bytes; fetching it once more" in capsys.readouterr().err
    assert_only_whole_blobs(home)
    server.fail("*step1/model.safetensors", flip=300_000, times=None)
    why = r"me/tiny@step1/model.safetensors: twice in a row its bytes were not those that the hub lists \("
    with pytest.raises(DataError, match=why):
        pt_hub.fetch(at(1))
    assert_only_whole_blobs(home)
    assert not list((home / "cache").rglob("*.part"))


def test_a_file_cut_short_on_the_hub_is_refused(server: Hub, home: Path) -> None:
    server.fail("*model.safetensors", truncate=100_000, times=None)
    with pytest.raises(DataError, match=r"me/tiny@step0/model.safetensors: the hub serves fewer bytes than it lists"):
        pt_hub.fetch(at(0), retries=Waits().retries())
    assert_only_whole_blobs(home)
    assert not [name for name in blobs(home) if len(name) == 64], "no weights"


def test_gated_repositories_ask_for_a_token_and_take_it(server: Hub, home: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    server.add_model("me/gated", {"step0": files(home, 0)}, token="hf_good", gated=True)
    with pytest.raises(EnvironmentFailure,
                       match="me/gated: gated or private, no valid token was sent; accept its terms"):
        pt_hub.fetch(at(0, "me/gated"))
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    with pytest.raises(EnvironmentFailure, match="the token in use may not read it") as error:
        pt_hub.fetch(at(0, "me/gated"))
    assert "hf_bad" not in str(error.value)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert (pt_hub.fetch(at(0, "me/gated")) / "model.safetensors").is_file()


def test_the_token_stays_with_the_hub_when_files_lie_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub(cdn=True) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", "hf_good")
        running.add_model(REPO, {"step0": files(home, 0)}, token="hf_good")
        running.fail("*model.safetensors", cut_after=100_000)
        pt_hub.fetch(at(0), retries=Waits().retries())
        assert [r.authorized for r in running.requests if r.path.startswith("/cdn/")] == [False, False]
    assert_only_whole_blobs(home)


def test_a_revision_that_does_not_exist(server: Hub) -> None:
    with pytest.raises(DataError, match=r"tests/tiny/step9: me/tiny@step9: no such revision at .*suites NAME --online"):
        pt_hub.fetch(at(9))
    with pytest.raises(DataError, match="nobody/none: no such repository"):
        pt_hub.fetch(at(0, "nobody/none"))


def test_a_slow_server_only_takes_time(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub(rate=2_000_000) as slow:
        monkeypatch.setenv("HF_ENDPOINT", slow.url)
        slow.add_model(REPO, {"step0": files(home, 0)})
        began = time.monotonic()
        pt_hub.fetch(at(0))
        assert time.monotonic() - began > 0.2
    assert_only_whole_blobs(home)


def test_a_stalled_server_times_out_and_is_retried(server: Hub, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 0.2)
    server.fail("*model.safetensors", delay=0.6)
    waits = Waits()
    pt_hub.fetch(at(0), retries=waits.retries())
    assert len(waits) == 1
    assert_only_whole_blobs(home)


class _FullDisk:
    """A file that takes `room` bytes and then says that the disk is full."""

    def __init__(self, path: Path, mode: str, room: int = 120_000) -> None:
        self._handle: Any = path.open(mode)
        self._room = room

    def write(self, data: bytes) -> int:
        if self._handle.tell() + len(data) > self._room:
            self._handle.write(data[: self._room - self._handle.tell()])
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self._handle.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()


def test_no_space_left_is_one_line_and_resumes_when_there_is_room(server: Hub, home: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "open", _FullDisk, raising=False)
    with pytest.raises(EnvironmentFailure,
                       match=r"me/tiny@step0/model.safetensors: .* \(No space left on device\): the disk is full"):
        pt_hub.fetch(at(0))
    assert_only_whole_blobs(home)
    monkeypatch.delattr(parts, "open")
    server.forget()
    pt_hub.fetch(at(0))
    assert [r.range for r in server.files_asked("*model.safetensors")] == ["bytes=120000-"]
    assert_only_whole_blobs(home)


def test_a_real_limit_of_the_system_reads_the_same(server: Hub, home: Path) -> None:
    """The operating system's own limit on a file's size, as a quota would set it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(EnvironmentFailure,
                           match=r"\(File too large\): the disk is full; .*; what came is kept"):
            pt_hub.fetch(at(0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_only_whole_blobs(home)
    pt_hub.fetch(at(0))
    assert_only_whole_blobs(home)


def test_too_little_disk_is_said_before_anything_is_fetched(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage",
                        lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 5, 5))  # type: ignore[attr-defined]
    with pytest.raises(EnvironmentFailure, match=r"needs 512.* of disk, 5 B are free"):
        pt_hub.fetch(at(0))
    assert not server.files_asked()


def test_a_damaged_copy_in_the_cache_is_noticed(server: Hub, home: Path) -> None:
    folder = pt_hub.fetch(at(0))
    blob = (folder / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-1000])
    pt_hub.fetch(at(0))
    assert_only_whole_blobs(home)
    data = bytearray(blob.read_bytes())
    data[5000] ^= 1
    blob.write_bytes(bytes(data))
    assert pt_hub.drop_damaged(pt_hub.listing(REPO, "step0")) == ["model.safetensors"]
    pt_hub.fetch(at(0))
    assert_only_whole_blobs(home)


def test_what_the_real_client_left_damaged_is_not_trusted(server: Hub, home: Path) -> None:
    """The client stores a file of the right size with wrong bytes without a word; we do not take it over."""
    from huggingface_hub import HfApi

    server.fail("*step2/model.safetensors", flip=1000)
    for name in ("config.json", "model.safetensors"):
        HfApi(endpoint=server.url).hf_hub_download(REPO, name, revision="step2", cache_dir=home / "cache")
    with pytest.raises(AssertionError):
        assert_only_whole_blobs(home)
    pt_hub.fetch(at(2))
    assert_only_whole_blobs(home)


def test_a_branch_that_moved_is_fetched_anew(server: Hub, home: Path) -> None:
    first = pt_hub.fetch(at(0))
    server.add_model(REPO, {"step0": files(home, 77)})
    pt_hub.branches(REPO, fresh=True)
    second = pt_hub.fetch(at(0))
    assert first != second and (second / "model.safetensors").read_bytes() == files(home, 77)["model.safetensors"]


def test_identical_content_is_stored_and_fetched_once(server: Hub, home: Path) -> None:
    same = files(home, 5)
    server.add_model("me/a", {"step0": same, "step1": same | {"README.md": b"another commit"}})
    server.add_model("me/b", {"step0": same})
    checkpoints = [at(0, "me/a"), at(1, "me/a"), at(0, "me/b")]
    folders = pt_hub.download(checkpoints)
    assert len(server.files_asked("*model.safetensors")) == 1
    assert len({os.stat(f / "model.safetensors").st_ino for f in folders}) == 1
    assert ledger.used_bytes() == sum(len(same[n]) for n in ("config.json", "tokenizer.json", "model.safetensors"))


def test_the_plan_states_bytes_files_and_peak_and_fetches_nothing(server: Hub, home: Path) -> None:
    pt_hub.fetch(at(0))
    server.forget()
    todo = pt_hub.plan([at(0), at(1), at(9)])
    assert not server.files_asked()
    weights = len(files(home, 1)["model.safetensors"])
    assert todo.bytes == weights and len(todo.missing) == 1, "config and tokenizer are shared with step0"
    assert todo.problems[0].startswith("tests/tiny/step9: me/tiny@step9: no such revision")
    assert todo.disk_peak == ledger.used_bytes() + weights


def test_the_budget_evicts_the_oldest_keeps_pins_and_refuses_the_impossible(server: Hub, home: Path) -> None:
    one = len(files(home, 0)["model.safetensors"])
    budget = int(2.5 * one)
    pt_hub.download([at(0)], pin=True)
    step1 = pt_hub.fetch(at(1), budget=budget)
    pt_hub.fetch(at(2), budget=budget)
    assert not step1.exists() and ledger.used_bytes() <= budget
    assert pt_hub.fetch(at(0), budget=budget).exists()
    with pytest.raises(RequestError,
                       match=r"the disk budget of .* is too small: .* to come, .* pinned, in use or asked for; raise"):
        pt_hub.download([at(0), at(1), at(3)], budget=budget)
    assert_only_whole_blobs(home)


def test_eviction_spares_what_is_asked_for_and_takes_the_least_recently_used(server: Hub, home: Path) -> None:
    budget = int(2.5 * len(files(home, 0)["model.safetensors"]))
    folders = {step: pt_hub.fetch(at(step), budget=budget) for step in (0, 1)}
    pt_hub.fetch(at(0))
    pt_hub.fetch(at(2), budget=budget)
    assert folders[0].exists() and not folders[1].exists(), "step0 was used after step1"
    server.forget()
    pt_hub.download([at(0), at(3)], budget=budget)
    assert {r.file for r in server.files_asked("*.safetensors")} == {f"{REPO}@step3/model.safetensors"}
    assert folders[0].exists(), "it is the least recently used, but asked for"
    assert cache.ref(REPO, "step2") is None
    assert_only_whole_blobs(home)


def test_a_removed_snapshot_leaves_what_it_shares(server: Hub, home: Path) -> None:
    kept, _ = pt_hub.fetch(at(0)), pt_hub.fetch(at(1))
    freed = cache.remove_snapshot(REPO, str(cache.ref(REPO, "step1")), ["step1"], {})
    cache.finish_evictions()
    assert freed == len(files(home, 1)["model.safetensors"]), "config and tokenizer are those of step0"
    assert all(path.exists() for path in kept.iterdir())
    assert_only_whole_blobs(home)


def test_eviction_leaves_what_others_fetched_and_what_is_pinned(server: Hub, home: Path) -> None:
    from huggingface_hub import HfApi

    theirs = HfApi(endpoint=server.url).hf_hub_download(REPO, "model.safetensors", revision="step3",
                                                        cache_dir=home / "cache")
    one = len(files(home, 0)["model.safetensors"])
    pt_hub.fetch(at(0))
    with pt_hub.pinned(at(0)), pytest.raises(RequestError, match="too small"):
        pt_hub.fetch(at(1), budget=int(1.5 * one))
    pt_hub.fetch(at(1), budget=int(1.5 * one))
    assert Path(theirs).exists()


def test_a_killed_process_is_resumed_by_the_next(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub(rate=4_000_000) as slow:
        slow.add_model(REPO, {"step0": files(home, 0, rows=40_000)})
        monkeypatch.setenv("HF_ENDPOINT", slow.url)
        script = textwrap.dedent("""
            from pythia_tools import hub
            from pythia_tools.suites import Checkpoint, HubRevision, ModelInfo
            tiny = ModelInfo("tiny", None, None)
            hub.fetch(Checkpoint("tests", tiny, 0, None, "step0", HubRevision("me/tiny", "step0")))
        """)
        child = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = list((home / "cache").rglob("*.part"))
            if found and found[0].stat().st_size > 1_000_000:
                break
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        kept = next((home / "cache").rglob("*.part")).stat().st_size
        assert 1_000_000 < kept < len(files(home, 0, rows=40_000)["model.safetensors"])
        assert not (cache.repo_folder(REPO) / "snapshots").exists()
        slow.rate = None
        slow.forget()
        pt_hub.fetch(at(0))
        assert [r.range for r in slow.files_asked("*model.safetensors")] == [f"bytes={kept}-"]
    assert_only_whole_blobs(home)


def interruptible() -> None:
    """A child of a background job would inherit that interrupts are ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_download_exits_130_and_resumes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "mine.yaml").write_text(
        'name: mine\ndescription: x\nlocation: {hub: "me/{model}"}\nsteps: [0]\nmodels: {tiny: {}}\n')
    with Hub(rate=4_000_000) as slow:
        slow.add_model(REPO, {"step0": files(home, 0, rows=40_000)})
        monkeypatch.setenv("HF_ENDPOINT", slow.url)
        command = [sys.executable, "-m", "pythia_tools", "download", str(home / "mine.yaml")]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 preexec_fn=interruptible)  # noqa: PLW1509 - no threads fork here
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = [p for p in (home / "cache").rglob("*.part") if p.stat().st_size > 500_000]
            if found:
                break
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 130
        assert "interrupted; what was finished is kept, run the same command again to resume" in err
        assert "Traceback" not in err
        kept = next((home / "cache").rglob("*.part")).stat().st_size
        slow.rate = None
        slow.forget()
        pt_hub.fetch(at(0))
        assert [r.range for r in slow.files_asked("*model.safetensors")] == [f"bytes={kept}-"]
    assert_only_whole_blobs(home)


def test_unfinished_downloads_are_deleted_by_age(server: Hub, home: Path) -> None:
    pt_hub.fetch(at(0))
    folder = cache.repo_folder(REPO) / "blobs"
    old, young = folder / ("a" * 64 + ".1234.incomplete"), folder / ("b" * 64 + ".part")
    for path in (old, young):
        path.write_bytes(b"x" * 10)
    os.utime(old, (0, 0))
    assert pt_hub.delete_unfinished() == [(old, 10)]
    assert young.exists() and not old.exists()
    assert_only_whole_blobs(home)


def test_file_names_stay_inside(server: Hub, home: Path) -> None:
    listing = pt_hub.listing(REPO, "step0")
    bad = pt_hub.RemoteFile("../../../evil.json", 1, None, "a" * 40)
    with pytest.raises(DataError, match="leads outside its folder; refused"):
        cache.pointer_path(listing, bad)


def test_bytes_are_read_as_people_write_them() -> None:
    read = [pt_hub.parse_bytes(t) for t in ("50GB", "1.5 TB", "300mb", "7")]
    assert read == [50 * 10**9, 1_500_000_000_000, 300_000_000, 7]
    with pytest.raises(RequestError, match="'much' is not an amount of bytes"):
        pt_hub.parse_bytes("much")


def test_the_tokenizer_files_come_alone_once_and_serve_offline(server: Hub, home: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    server.add_model("me/words", {"main": {**files(home, 0), "tokenizer_config.json": b"{ }"}, "v1": files(home, 1)})
    folder = pt_hub.fetch_tokenizer("me/words")
    assert sorted(p.name for p in folder.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    asked = [r.file for r in server.requests if r.file]
    assert asked == ["me/words@main/tokenizer.json", "me/words@main/tokenizer_config.json"]
    assert pt_hub.fetch_tokenizer("me/words") == folder, "a second call asks for no file"
    assert len([r for r in server.requests if r.file]) == 2
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(server.requests)
    assert pt_hub.fetch_tokenizer("me/words", "main") == folder
    with pytest.raises(EnvironmentFailure, match=r"tokenizer of me/words@v1.*HF_HUB_OFFLINE"):
        pt_hub.fetch_tokenizer("me/words", "v1")
    assert len(server.requests) == asked, "offline asks nothing"


def test_the_tokenizer_of_a_revision_and_of_a_fetched_checkpoint(server: Hub, home: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pt_hub.fetch(at(1))
    asked = len([r for r in server.requests if r.file])
    assert pt_hub.fetch_tokenizer(REPO, "step1") == folder, "it came with the checkpoint"
    assert len([r for r in server.requests if r.file]) == asked
    with pytest.raises(DataError, match="no such revision"):
        pt_hub.fetch_tokenizer(REPO, "step99")
    bare = {name: data for name, data in files(home, 5).items() if name != "tokenizer.json"}
    server.add_model("me/bare", {"main": bare})
    with pytest.raises(DataError, match=r"me/bare@main: no tokenizer.json"):
        pt_hub.fetch_tokenizer("me/bare")


def test_a_fetched_tokenizer_is_no_fetched_checkpoint(server: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pt_hub.fetch_tokenizer(REPO, "step2")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EnvironmentFailure, match="not in the cache"):
        pt_hub.fetch(at(2))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert (pt_hub.fetch(at(2)) / "model.safetensors").is_file()
