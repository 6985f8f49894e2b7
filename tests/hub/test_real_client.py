"""A trained suite as a repository with branches: our download, then the real `from_pretrained` offline, and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub

from pythia_tools.suites import Folder, load_suite

SCRIPT = textwrap.dedent("""
    import json, os, sys
    import torch
    from pythia_tools import hub, suites
    from pythia_tools.cli.main import main
    from transformers import AutoModelForCausalLM

    manifest, repo, first, middle, last, folders = json.loads(sys.argv[1])
    ids = torch.arange(1, 25).reshape(2, 12)

    def logits(*args, **options):
        with torch.no_grad():
            return AutoModelForCausalLM.from_pretrained(*args, dtype=torch.float32, **options).eval()(ids).logits

    report = {"download": main(["download", manifest, "--steps", f"{first},{last}", "--quiet"])}
    for step in (first, last):
        ours = logits(repo, revision=f"step{step}", local_files_only=True)
        report[f"step{step}"] = bool(torch.equal(ours, logits(folders[str(step)])))
    report["client"] = bool(torch.equal(logits(repo, revision=f"step{middle}"), logits(folders[str(middle)])))
    fetched = hub.fetch(suites.load_suite(manifest).checkpoint("m", middle))
    report["taken over"] = sorted(p.name for p in fetched.iterdir() if p.suffix == ".safetensors")
    report["doctor"] = main(["doctor", manifest, "--steps", f"{first},{middle},{last}", "--quiet"])
    print(json.dumps(report))
""")


@pytest.mark.parametrize("fixture", ["tiny_suite", pytest.param("micro_suite", marks=pytest.mark.trained)])
def test_a_suite_as_a_repository_with_branches(fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    suite = load_suite(request.getfixturevalue(fixture))
    model = next(iter(suite.models))
    steps = suite.steps(model)
    first, middle, last = steps[0], steps[len(steps) // 2], steps[-1]
    places = {step: suite.checkpoint(model, step).location for step in steps}
    folders = {step: str(place.path) for step, place in places.items() if isinstance(place, Folder)}
    manifest = tmp_path / "served.yaml"
    manifest.write_text(
        f'name: served\ndescription: x\nlocation: {{hub: "me/micro"}}\nsteps: {steps}\nmodels: {{m: {{}}}}\n')
    with Hub(cdn=True) as server:
        server.add_model("me/micro",
                         {"main": folders[last], **{f"step{step}": folder for step, folder in folders.items()}})
        given = [str(manifest), "me/micro", first, middle, last, folders]
        online = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
        environment = online | {
            "HF_ENDPOINT": server.url,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "PYTHIA_TOOLS_HOME": str(tmp_path / "home"),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps(given)], env=environment, capture_output=True, text=True,
            check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        assert report == {
            "download": 0,
            f"step{first}": True,
            f"step{last}": True,
            "client": True,
            "taken over": ["model.safetensors"],
            "doctor": 0,
        }
        whole = [r for r in server.files_asked("*model.safetensors") if r.path.startswith("/cdn/") and r.range is None]
        assert len(whole) == 3, "each of the three checkpoints came once, whoever fetched it"
