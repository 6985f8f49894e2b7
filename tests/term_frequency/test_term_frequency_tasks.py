"""Prompts word for word, the answer rules, and scores that equal transformers' own."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from pythia_tools.analyses import term_frequency as tf
from pythia_tools.analyses.term_frequency.answers import distinct_aliases, is_right, is_settled, normalize, read_answer
from pythia_tools.analysis import Context, Execution
from pythia_tools.core.errors import DataError, RequestError
from pythia_tools.suites.checkpoint import Checkpoint, Folder, ModelInfo

NOWHERE = Context([])
"""Tasks that ask nothing of their context."""


def byte_tokenizer() -> Tokenizer:
    """One token per byte, in the printable alphabet of byte-level BPE."""
    from pythia_tools.tokens import char_bytes

    vocabulary = {c: b for c, b in char_bytes().items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


TOKENIZER = byte_tokenizer()


@pytest.fixture(scope="module")
def model() -> GPTNeoXForCausalLM:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=512, bos_token_id=0, eos_token_id=0, initializer_range=0.3
    )
    return GPTNeoXForCausalLM(config).eval()


def test_zero_shot_prompt_is_the_question_alone() -> None:
    items = tf.arithmetic_items("multiplication", 0)
    assert len(items) == 5000
    assert items[12 * 50 + 6] == tf.Item("Q:What is 12 times 7? A:", ("84",), "12", "12*7")
    assert tf.arithmetic_items("addition", 0)[-1] == tf.Item("Q:What is 99 plus 50? A:", ("149",), "99", "99+50")
    assert tf.arithmetic_items("hidden-multiplication", 0)[51] == tf.Item("Q:What is 1 # 2? A:", ("2",), "1", "1*2")


def test_examples_follow_the_published_harness_draw_for_draw() -> None:
    """Its evaluator, written out: shuffle the operand's questions, then draw for each in that order."""
    x1, shots = 7, 4
    test = [{"x1": x1, "x2": x2} for x2 in range(1, 51)]
    validation = [{"x1": x, "x2": x2} for x in [*range(x1), *range(x1 + 1, 100)] for x2 in range(1, 51)]
    rnd = random.Random()
    rnd.seed(42)
    rnd.shuffle(test)
    expected = {}
    for doc in test:
        drawn = [x for x in rnd.sample(validation, shots + 1) if x != doc][:shots]
        text = "\n\n".join(f"Q:What is {d['x1']} plus {d['x2']}? A:{d['x1'] + d['x2']}" for d in drawn) + "\n\n"
        expected[f"{x1}+{doc['x2']}"] = text + f"Q:What is {x1} plus {doc['x2']}? A:"
    got = {i.name: i.prompt for i in tf.arithmetic_items("addition", shots) if i.term == "7"}
    assert got == expected


HARNESS_PROMPTS = {
    ("multiplication", 2): "6914815b4581abcb", ("multiplication", 16): "70dbfa939d0abde0",
    ("addition", 2): "0716140809036584", ("addition", 16): "87069fab594ad40b",
    ("hidden-multiplication", 16): "121a8b6adfa89fb3", ("hidden-addition", 16): "812df9bed1497b1c",
    ("minutes-seconds", 4): "6d3333437bcac2dd", ("decades-years", 4): "bcd1617d58bb39d7"
}
"""Digests of all prompts of a task as lm-evaluation-harness 0.3.0 made them of the study's published task classes."""


@pytest.mark.parametrize(("task", "shots"), HARNESS_PROMPTS)
def test_prompts_equal_those_that_the_harness_itself_made(task: str, shots: int) -> None:
    made = (tf.arithmetic_items if "-" not in task or task.startswith("hidden") else tf.time_unit_items)(task, shots)
    prompts = "\0".join(i.prompt for i in made)
    assert hashlib.sha256(prompts.encode()).hexdigest()[:16] == HARNESS_PROMPTS[task, shots]


def test_time_units() -> None:
    items = tf.time_unit_items("decades-years", 2, operands=range(5))
    assert [i.name for i in items[:2]] == ["0 decades #0", "0 decades #1"] and len(items) == 50
    blocks = items[30].prompt.split("\n\n")
    assert blocks[-1] == "Q:What is 3 decades in years? A:" and items[30].answers == ("30",)
    assert len(blocks) == 3 and all(
        b.startswith("Q:What is ") and not b.startswith("Q:What is 3 ") for b in blocks[:-1]
    )
    assert [
        i.prompt for i in tf.time_unit_items("minutes-seconds", 0, operands=[9])
    ] == ["Q:What is 9 minutes in seconds? A:"]


@pytest.mark.parametrize(("output", "rule", "read"), [
    (" 84.", "digits", "84"), ("the answer 1234567", "digits", "12345"), ("none", "digits", ""),
    ("\n84", "digits", ""), ("07", "digits", "07"),
    (" The Beatles!\nQ:", "normalized", " The Beatles!"), (" Paris \nfoo", "exact", "Paris"),
])
def test_reading_an_answer(output: str, rule: str, read: str) -> None:
    assert read_answer(output, rule) == read


def test_right_answers() -> None:
    assert is_right("84", ["84"], "digits") and not is_right(
        "084", ["84"], "digits"
    ) and not is_right("", ["84"], "digits")
    assert normalize("The  Beatles' \"a\" hat.") == "beatles hat"
    assert is_right(
        " the beatles", ["Beatles", "Fab Four"], "normalized"
    ) and not is_right("the beatle", ["Beatles"], "normalized")
    assert distinct_aliases(["New York City", "NYC", "New York", "New"]) == ["NYC", "New"]
    assert not is_right(
        "New York City", ["New York", "New York City"], "normalized"
    ), "the shorter alias stands for both, as published"


def test_settled_answers_never_change() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        text = "".join(rng.choice("12 a\n.") for _ in range(12))
        first = next((k for k in range(len(text) + 1) if is_settled(text[:k], "digits")), None)
        if first is not None:
            assert read_answer(text[:first], "digits") == read_answer(text, "digits")


def test_candidates_score_as_the_sum_of_their_tokens(model: GPTNeoXForCausalLM) -> None:
    candidates = ("1", "12", "123", "13", "2", "214", " x")
    items = [tf.Item(f"Q:{'a' * k} A:", (candidates[k % 7],), str(k), str(k), candidates) for k in range(9)]
    frame = tf.ClosedTask(items, TOKENIZER).run(NOWHERE, model, 0)
    for item, row in zip(items, frame.itertuples(), strict=True):
        scores = []
        for c in candidates:
            ids = TOKENIZER.encode(item.prompt + c).ids
            with torch.no_grad():
                logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            at = len(ids) - len(TOKENIZER.encode(c).ids)
            scores.append(sum(float(logprobs[k - 1, ids[k]]) for k in range(at, len(ids))))
        right = candidates.index(item.answers[0])
        assert row.chosen == candidates[int(np.argmax(scores))]
        assert row.logprob == pytest.approx(scores[right], abs=1e-4)
        assert row.margin == pytest.approx(scores[right] - max(s for k, s in enumerate(scores) if k != right), abs=1e-4)
        assert row.correct == (row.chosen == item.answers[0])


@pytest.mark.parametrize("rule", ["digits", "exact"])
def test_greedy_texts_equal_generate(model: GPTNeoXForCausalLM, rule: str) -> None:
    rng = random.Random(3)
    items = [
        tf.Item("".join(rng.choice("0123456789 Q:A") for _ in range(rng.choice([5, 6, 9]))), ("7",), "t", str(k))
        for k in range(40)
    ]
    frame = tf.GreedyTask(items, TOKENIZER, rule=rule).run(NOWHERE, model, 0)
    newline = TOKENIZER.encode("\n").ids[0]
    for item, row in zip(items, frame.itertuples(), strict=True):
        ids = torch.tensor([TOKENIZER.encode(item.prompt).ids])
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False, eos_token_id=newline,
            pad_token_id=0
        )
        text = TOKENIZER.decode(made[0, ids.shape[1]:].tolist(), skip_special_tokens=True).split("\n")[0]
        assert row.chosen == read_answer(text, rule)
        assert text.startswith(row.output)


def test_batches_do_not_change_results(model: GPTNeoXForCausalLM) -> None:
    items = tf.arithmetic_items("addition", 2, operands=range(4), second=range(1, 6))
    closed = [tf.Item(i.prompt, i.answers, i.term, i.name, tuple(map(str, range(1, 9)))) for i in items]
    for task in (tf.GreedyTask(items, TOKENIZER), tf.ClosedTask(closed, TOKENIZER)):
        one, many = (task.run(Context([], Execution(batch_size=size)), model, 0) for size in (1, 64))
        assert one[["item", "correct", "chosen"]].equals(many[["item", "correct", "chosen"]])


def test_nan_is_no_answer(model: GPTNeoXForCausalLM) -> None:
    broken = GPTNeoXForCausalLM(model.config).eval()
    with torch.no_grad():
        broken.get_output_embeddings().weight.fill_(float("nan"))
    closed = tf.ClosedTask([tf.Item("a", ("1",), "t", "n", ("1", "2"))], TOKENIZER).run(NOWHERE, broken, 0)
    greedy = tf.GreedyTask([tf.Item("a", ("1",), "t", "n")], TOKENIZER).run(NOWHERE, broken, 0)
    assert closed["correct"].isna().all() and greedy["correct"].isna().all()


def test_prompts_beyond_the_context_are_refused(model: GPTNeoXForCausalLM) -> None:
    item = tf.Item("a" * 500, ("1",), "t", "n", ("1" * 20, "1"))
    with pytest.raises(
        RequestError, match="a prompt with its answer has 519 tokens, the model's context is 512; use fewer shots"
    ):
        tf.ClosedTask([tf.Item(item.prompt, ("1",), "t", "n", item.candidates)], TOKENIZER).run(NOWHERE, model, 0)
    with pytest.raises(RequestError, match="exceed the model's context of 512; use shorter prompts"):
        tf.GreedyTask([tf.Item("a" * 500, ("1",), "t", "n")], TOKENIZER).run(NOWHERE, model, 0)


def test_items_that_cannot_be_right_are_refused() -> None:
    with pytest.raises(RequestError, match=r"its answer .* is not one of its 2 candidates"):
        tf.Item("q", ("3",), "t", "n", ("1", "2"))
    with pytest.raises(RequestError, match="two items are called 'n'"):
        tf.ClosedTask([tf.Item("q", ("1",), "t", "n", ("1", "2"))] * 2, TOKENIZER)
    with pytest.raises(RequestError, match="unknown operation 'multiplicaton'; did you mean 'multiplication'"):
        tf.arithmetic_items("multiplicaton")


def test_questions_from_every_kind_of_file(tmp_path: Path) -> None:
    records = [
        {"question_id": "tc_1", "question": "Who?", "answer": {"value": "Ann", "aliases": ["Ann", "Anne B"]},
         "entities": ["Ann", ["UK", "Britain"]]},
        {"id": "x", "question": "Where?", "answers": ["Rome", "Roma"], "entities": ["Rome"]},
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "q.json").write_text(json.dumps(records))
    (tmp_path / "q.csv").write_text("id,question,answers,entities\nx,Where?,Rome|Roma,Rome\n")
    first, second = tf.read_questions(tmp_path / "q.jsonl")
    assert tf.read_questions(tmp_path / "q.json") == [first, second]
    assert tf.read_questions(tmp_path / "q.csv") == [second]
    assert first.answers == ("Ann", "Anne B") and first.answer == "Ann" and second.answer == "Rome"
    items = tf.question_items([first], 1, examples=[second, first])
    assert items[0].prompt == "Q:Where? A: Rome\n\nQ:Who? A:" and items[0].term == "tc_1"
    patterns = tf.question_patterns([first, second])
    assert [p.name for p in patterns] == ["tc_1", "x"] and len(patterns[0].members[1]) == 2
    (tmp_path / "bad.jsonl").write_text('{"question": "Who?"}')
    with pytest.raises(DataError, match="record 0 has no answer"):
        tf.read_questions(tmp_path / "bad.jsonl")


def test_templates_fill_from_a_table() -> None:
    import pandas as pd

    values = pd.DataFrame({"country": ["France", "Peru"], "capital": ["Paris", "Lima"]})
    items = tf.template_items(
        "The capital of {country} is", values, answer=" {capital}", term="{country}", candidates=[" Paris", " Lima"]
    )
    assert items[1] == tf.Item("The capital of Peru is", (" Lima",), "Peru", "1", (" Paris", " Lima"))
    with pytest.raises(RequestError, match="unknown field of a template 'land'"):
        tf.template_items("{land}", values, answer="x", term="y")


def test_measure_resumes_and_names_tasks(model: GPTNeoXForCausalLM, tmp_path: Path) -> None:
    from pythia_tools.core.results import CellStore

    model.save_pretrained(tmp_path / "step4")
    checkpoint = Checkpoint("toy", ModelInfo("m", 1, 1), 4, 400, "step4", Folder(tmp_path / "step4"))
    tasks = [
        tf.GreedyTask(
            tf.arithmetic_items("addition", s, operands=range(3), second=range(1, 4)), TOKENIZER,
            name=f"addition-{s}shot"
        )
        for s in (0, 1)
    ]
    cells = CellStore(tmp_path / "cells")
    frame = tf.measure([checkpoint], tasks, cells=cells, device="cpu")
    assert frame.columns[:8].tolist() == ["suite", "model", "params", "branch", "seed", "step", "tokens", "task"]
    assert frame.groupby("task").size().to_dict() == {"addition-0shot": 9, "addition-1shot": 9}
    assert frame.equals(tf.measure([checkpoint], tasks, cells=cells, device="cpu"))
