"""The one tokenizer loader: every kind of place, the same ids, and one line when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.tokens import Tokenizer, open_tokenizer


@pytest.fixture(scope="module")
def folder(tiny_suite: Path) -> Path:
    return tiny_suite / "tokenizer"


def test_every_place_gives_the_same_tokenizer(folder: Path) -> None:
    from transformers import AutoTokenizer

    whole = open_tokenizer(folder)
    fast = AutoTokenizer.from_pretrained(folder)
    for place in (str(folder), folder / "tokenizer.json", whole, whole.engine, fast):
        found = open_tokenizer(place)
        assert isinstance(found, Tokenizer)
        assert found.digest == whole.digest
        assert found.encode("def main():\n") == fast("def main():\n", add_special_tokens=False)["input_ids"]
        assert found.beginning == fast.bos_token_id
        assert len(found) == len(fast)
    assert whole.ids(["one two", ""]) == [whole.encode("one two"), []]
    assert whole.decode(whole.encode(" a  b\n c")) == " a  b\n c"
    again = whole.for_transformers()
    assert (again.bos_token_id, again.eos_token_id) == (fast.bos_token_id, fast.eos_token_id)


def test_what_is_no_tokenizer_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such tokenizer"):
        open_tokenizer(tmp_path / "nowhere")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match=r"not a tokenizer\.json"):
        open_tokenizer(tmp_path)
    with pytest.raises(RequestError, match="is not a fast tokenizer"):
        open_tokenizer(3)  # type: ignore[arg-type]


def test_a_text_of_several_tokens_is_no_one_id(folder: Path) -> None:
    tokenizer = open_tokenizer(folder)
    assert tokenizer.decode([tokenizer.one_id("\n")]) == "\n"
    with pytest.raises(RequestError, match="tokens for this tokenizer, one is needed"):
        tokenizer.one_id("zzzzqqqq zzz")
