"""Evaluation sets by manifest and by path; Winogender, StereoSet, CrowS-Pairs' extra scores; length limits."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_bias
import torch

from pythia_tools.analyses import bias
from pythia_tools.analyses.bias import choices
from pythia_tools.analyses.bias.sets import git_blob, load_set, read_manifest
from pythia_tools.analysis import Context
from pythia_tools.core import files, manifests
from pythia_tools.core.errors import DataError, EnvironmentFailure, RequestError
from pythia_tools.models.continuations import Request, Scorer

NOWHERE = Context([])
"""Tasks that ask nothing of their context."""

DATA = Path(__file__).parents[3] / "shared" / "data" / "bias"
TOKENIZER = tiny_bias.tokenizer()


@pytest.mark.parametrize("name", manifests.names("evaluation_sets"))
def test_every_shipped_manifest_is_whole(name):
    manifest = read_manifest(name)
    assert manifest["licence"] and all(entry["url"].startswith("https://") for entry in manifest["files"].values())


@pytest.mark.skipif(not DATA.exists(), reason="the data are not here")
@pytest.mark.parametrize(("name", "folder"), [("crows_pairs", DATA), ("winobias", DATA / "winobias")])
def test_published_digests(name, folder):
    manifest = read_manifest(name)
    found = load_set(name, folder)
    for key, path in found.items():
        assert files.sha256_file(path) == manifest["files"][key]["sha256"]


@pytest.fixture
def served(tmp_path):
    """A manifest whose one file is on a local server; the served bytes can be changed."""
    content = {"body": b"sent_more,sent_less,bias_type\na,b,gender\n"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content["body"])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = tmp_path / "set.yaml"
    (tmp_path / "original").write_bytes(content["body"])
    path.write_text(
        f"name: mine\nsource: here\nlicence: none\nfiles:\n  pairs.csv:\n    url: http://127.0.0.1:{server.server_port}/pairs.csv\n"
        f"    git_blob: {git_blob(tmp_path / 'original')}\n"
    )
    yield path, content
    server.shutdown()


def test_a_set_is_downloaded_once_checked_and_refused_when_changed(served, tmp_path, monkeypatch):
    path, content = served
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path / "home"))
    first = load_set(str(path))
    content["body"] = b"changed"
    assert load_set(str(path))["pairs.csv"].read_bytes().startswith(b"sent_more")
    first["pairs.csv"].write_bytes(b"damaged")
    with pytest.raises(DataError, match="the manifest says"):
        load_set(str(path))
    assert not first["pairs.csv"].exists()


def test_what_cannot_be_had_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHIA_TOOLS_HOME", str(tmp_path))
    bad = tmp_path / "set.yaml"
    bad.write_text("name: m\nsource: s\nlicence: l\nfiles:\n  a.csv:\n"
                   "    url: http://127.0.0.1:9/a\n    sha256: '00'\n")
    with pytest.raises(EnvironmentFailure, match="download it elsewhere and give its folder"):
        load_set(str(bad))
    bad.write_text("name: m\nsource: s\nlicence: l\nfiles:\n  a.csv:\n    url: https://x/a\n")
    with pytest.raises(DataError, match="a digest is needed"):
        load_set(str(bad))
    with pytest.raises(RequestError, match=r"no crows_pairs_anonymized\.csv there"):
        load_set("crows_pairs", tmp_path)
    with pytest.raises(RequestError, match="known: bbq, crows_pairs"):
        load_set("crows")


def test_winogender_sentences_of_the_authors(tmp_path):
    (tmp_path / "all_sentences.tsv").write_text(
        "sentid\tsentence\n"
        "technician.customer.1.male.txt\tThe technician told the customer that he could pay with cash.\n"
        "nurse.someone.0.neutral.txt\tThe nurse told someone that they were late.\n"
    )
    table = choices.read_winogender(tmp_path)
    assert table.to_numpy().tolist() == [
        ["The technician told the customer that he could pay with cash.", "he", "technician", "customer", "male", 1],
        ["The nurse told someone that they were late.", "they", "nurse", "someone", "neutral", 0],
    ]


def stereoset_file(path: Path) -> Path:
    def entry(context, texts):
        labels = ("stereotype", "anti-stereotype", "unrelated")
        sentences = [{"sentence": t, "gold_label": g} for t, g in zip(texts, labels, strict=True)]
        return {"bias_type": "gender", "context": context, "sentences": sentences}

    intra = entry("The nurse was BLANK.", ["The nurse was kind.", "The nurse was tough.", "The nurse was fish."])
    inter = entry("A driver came in.", ["He was loud.", "She was shy.", "The sea is blue."])
    path.write_text(json.dumps({"data": {"intrasentence": [intra], "intersentence": [inter]}}))
    return path


def test_stereoset(tmp_path):
    items = choices.read_stereoset(stereoset_file(tmp_path / "dev.json"))
    model = tiny_bias.model(11)
    table = choices.StereoSet(TOKENIZER, items).run(NOWHERE, model, 0)
    for row, item in zip(table.itertuples(), items.itertuples(), strict=True):
        means = []
        for text in (item.stereotype, item.anti, item.unrelated):
            context = TOKENIZER.encode(item.context).ids if item.context else [0]
            ids = context + TOKENIZER.encode(f" {text}" if item.context else text).ids
            with torch.no_grad():
                logs = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
            means.append(float(np.mean([float(logs[k - 1, ids[k]]) for k in range(len(context), len(ids))])))
        assert row.score == pytest.approx(means[0] - means[1], abs=1e-4)
        assert row.related == ((means[0] > means[2]) + (means[1] > means[2])) / 2
    summary = bias.summarize(table.assign(suite="s", model="m", params=1, step=0, tokens=0, branch="main",
                                          seed=None)).set_index("metric")["value"]
    ss, lms = table["outcome"].mean(), table["related"].mean()
    assert summary["stereoset_icat"] == pytest.approx(lms * min(ss, 1 - ss) / 0.5)


def test_crows_scores_over_shared_ids_and_per_id():
    pairs = pd.DataFrame([("The nurse was he.", "The nurse was old she.", "gender")],
                         columns=["sent_more", "sent_less", "bias_type"])
    model = tiny_bias.model(12)
    row = bias.CrowsPairs(TOKENIZER, pairs).run(NOWHERE, model, 0).iloc[0]

    def logs(text):
        ids = [0, *TOKENIZER.encode(text).ids]
        with torch.no_grad():
            table = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
        return ids[1:], np.array([float(table[k, ids[k + 1]]) for k in range(len(ids) - 1)])

    (more, log_more), (less, log_less) = logs(pairs["sent_more"][0]), logs(pairs["sent_less"][0])
    assert row["score_per_token"] == pytest.approx(log_more.mean() - log_less.mean(), abs=1e-4)
    head = len(TOKENIZER.encode("The nurse was").ids)
    assert more[:head] == less[:head] and more[-1] == less[-1] and more[head] != less[head]
    shared = lambda values: values[:head].sum() + values[-1]  # noqa: E731 - the ids both have: the beginning and the full stop
    assert row["score_shared"] == pytest.approx(shared(log_more) - shared(log_less), abs=1e-4)


def test_texts_longer_than_the_model_lose_ids_from_the_left_and_say_so():
    encoder = bias.Encoder(TOKENIZER)
    (request,) = encoder.requests([("the nurse said that " * 30, " he was in")])
    model = tiny_bias.model(13, positions=32)
    found = Scorer([request])(model)
    ids = [*request.context, *request.continuation][-33:]
    with torch.no_grad():
        logs = torch.log_softmax(model(torch.tensor([ids[:-1]])).logits[0].double(), -1)
    n = len(request.continuation)
    expected = sum(float(logs[len(ids) - 1 - n + k, ids[len(ids) - n + k]]) for k in range(n))
    assert found.total[0] == pytest.approx(expected, abs=1e-4)
    assert found.cut[0] == len(request.context) + n - 33


def test_texts_with_no_room_are_left_out_and_said(capsys):
    long, short = "The nurse said that she was in. " * 4, "A driver was in."
    pairs = pd.DataFrame([(long, short, "gender"), (short, "A nurse was in.", "gender")],
                         columns=["sent_more", "sent_less", "bias_type"])
    model = tiny_bias.model(16, positions=16)
    table = bias.CrowsPairs(TOKENIZER, pairs).run(NOWHERE, model, 0)
    assert "1 of 4 texts are longer than the model's 16 positions" in capsys.readouterr().err
    assert table["kept"].tolist() == [False, True] and table["outcome"].isna().tolist() == [True, False]
    summary = bias.summarize(table.assign(suite="s", model="m", params=1, step=0, tokens=0, branch="main", seed=None))
    assert set(summary["n"]) == {1}, "an item that could not be scored is no item"
    with pytest.raises(RequestError, match="every text"):
        bias.CrowsPairs(TOKENIZER, pairs.assign(sent_more=long, sent_less=long + "x")).run(NOWHERE, model, 0)


def test_a_broken_model_has_no_outcomes(tmp_path):
    """NaN logits compare as false; that must never read as "not stereotyped" or "wrong"."""
    model = tiny_bias.model(17)
    model.get_output_embeddings().weight.data.fill_(torch.nan)
    sentences = pd.DataFrame([("The nurse told someone that he left.", "he", "nurse", "someone", "male", 0)],
                             columns=list(choices.WINOGENDER))
    items = bias.pronoun_items(["The {occupation} said that"], [("nurse", "she")])
    pairs = pd.DataFrame([("He ran.", "She ran.", "gender")], columns=["sent_more", "sent_less", "bias_type"])
    tasks = [
        bias.CrowsPairs(TOKENIZER, pairs), choices.Winogender(TOKENIZER, sentences), bias.PronounTask(TOKENIZER, items),
        choices.StereoSet(TOKENIZER, choices.read_stereoset(stereoset_file(tmp_path / "dev.json"))),
    ]
    for task in tasks:
        table = task.run(NOWHERE, model, 0)
        assert not table["kept"].any() and table["outcome"].isna().all() and table["score"].isna().all()


def test_batches_and_order_do_not_change_scores():
    texts = ["The nurse said", "A driver was in because of the idea", "he",
             "The designer did not like the theme and the developer"]
    requests = bias.Encoder(TOKENIZER).requests([(a, b) for a in ["", *texts] for b in (" he", " she was old")])
    model = tiny_bias.model(14)
    one = Scorer(requests, batch_size=1)(model)
    many = Scorer(requests[::-1], batch_size=4)(model)
    np.testing.assert_allclose(one.total, many.total[::-1], atol=1e-4)


def test_a_foreign_tokenizer_is_refused():
    request = Request((1, 2), (600,))
    with pytest.raises(RequestError, match="token id 600, the vocabulary has ids 0 to 511"):
        Scorer([request])(tiny_bias.model(15))
