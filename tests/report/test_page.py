"""The page stands alone, escapes what it is given, and says how to repeat it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from pythia_tools.analyses.losses import Losses
from pythia_tools.cli.main import main
from pythia_tools.core import tables
from pythia_tools.core.errors import DataError
from pythia_tools.core.results import RunFolder
from pythia_tools.core.words import direction
from pythia_tools.report import Picture, Section, build_report, render

EVIL = '<script>alert("x")</script>&'


class _Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _losses(slope: float = -1.0) -> pd.DataFrame:
    rows = []
    for model, params, shift in (("xs", 90_000, 0.6), ("m", 1_000_000, 0.0)):
        for step in (0, 10, 100):
            value = 5 + slope * step / 50 + shift * step / 100
            rows.append(
                dict(
                    suite="s", model=model, params=params, step=step, tokens=0, branch="main", subset="heldout",
                    metric="nll", value=value, low=value - 0.05, high=value + 0.05, n=9, interval="b"
                )
            )
    return tables.summary(rows)


def _sentences(slope: float) -> list[str]:
    return [s.text for s in Losses().sentences(_losses(slope))]


def test_the_page_stands_alone_and_escapes(tmp_path: Path) -> None:
    picture = tmp_path / "a.svg"
    picture.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    sections = [Section(EVIL, [EVIL], [Picture(picture, EVIL)], pd.DataFrame({EVIL: [EVIL]}), method=EVIL)]
    text = render(
        EVIL, EVIL, sections, command=f"run {EVIL}", record={"git_revision": EVIL, "weights": {EVIL: EVIL}},
        timings={EVIL: 1.0}
    )
    seen = _Collector()
    seen.feed(text)
    assert not seen.open
    assert "script" not in [t for t, _ in seen.tags]
    links = [a for _, a in seen.tags for k in ("src", "href") if (a.get(k) or "#").startswith(("http", "/", "."))]
    assert links == []
    assert [a["src"][:26] for t, a in seen.tags if t == "img"] == ["data:image/svg+xml;base64,"]
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in seen.tags
    assert "@media print" in text


def test_only_figures_are_embedded(tmp_path: Path) -> None:
    odd = tmp_path / "a.html"
    odd.write_text("x")
    with pytest.raises(DataError, match="figures"):
        render("t", "l", [Section("s", pictures=[Picture(odd, "c")])], command="c", record={}, timings={})


@pytest.mark.parametrize(
    ("bounds", "word"), [
        ((1, 0.5, 2), "rises"), ((-1, -2, -0.5), "falls"), ((1, -0.5, 2), "does not change detectably"),
        ((1, float("nan"), 2), "has no defined trend"),
    ]
)
def test_direction_needs_an_interval_clear_of_zero(bounds: tuple, word: str) -> None:
    assert direction(*bounds) == word


def test_sentences_follow_the_table_and_reverse_with_it() -> None:
    down = _sentences(-1.0)
    up = _sentences(+1.0)
    flat = _sentences(0.0)
    assert "falls from 5.00 nats per token at step 0 to 3.00 at step 100" in down[0]
    assert "rises from 5.00 nats per token at step 0 to 7.00 at step 100" in up[0]
    assert "does not change detectably" in flat[0]
    assert "lower in the largest model" in down[1]
    assert "xs 3.60 and m 3.00" in down[1]


def test_report_command_reads_runs_and_refuses_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path / "r", {"command": "losses"})
    (run.figures / "loss.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    told = [{"text": s.text, "rows": list(s.rows)} for s in Losses().sentences(_losses())]
    extra = {"captions": {"loss": "Loss by step"}, "sentences": told}
    run.finish(pd.DataFrame({"a": [1]}), _losses(), extra=extra, weights={"s/m/step1": "abc123"})
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "r"), "--out", str(page)]) == 0
    text = page.read_text()
    assert "Loss by step" in text
    assert "abc123" in text
    assert re.search(r"falls from 5\.00", text)
    assert main(["report", str(tmp_path / "none"), "--out", str(page)]) == 2
    assert main(["report", str(tmp_path / "r"), "--out", "page.pdf"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    assert page.read_text() == text


def test_a_report_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        build_report([], title="t", lead="l", command="c")


def test_an_undefined_value_is_said_to_be() -> None:
    page = render("t", "l", [Section("s", table=pd.DataFrame({"value": [None, 1.5], "cohort": [None, 2.0]}))],
                  command="c", record={}, timings={})
    assert '<td class="num">undefined</td><td class="num">–</td>' in page
