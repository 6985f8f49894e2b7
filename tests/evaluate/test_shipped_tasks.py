"""The shipped definitions ask what the published results were asked, prompt by prompt, and run by name."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import local_tasks
import pytest
import yaml

from pythia_tools.analyses import evaluate
from pythia_tools.analyses.evaluate import shipped
from pythia_tools.cli.main import main
from pythia_tools.core.results import load_run

QUESTIONS = [
    {"question": "Which is a river?", "choices": ["the Rhine", "a piano", "café", " B "], "answer": 0},
    {"question": " Two\nlines? ", "choices": ["1", "2", "3", "4"], "answer": 3},
]
SCIENCE = [
    {"support": support, "question": "What is it?", "distractor1": "an acid", "distractor2": "a base",
     "distractor3": "salt", "correct_answer": "water"}
    for support in ("", " ", "\n", "Water is wet.", "  Water is wet. ")
]
SCHEMAS = [  # words of the second span counted from 0; doubled spaces and quotes as the set has them
    {"text": "Mark told Pete many lies about himself , which Pete included in his book .", "span1_index": 0,
     "span1_text": "Mark", "span2_index": 12, "span2_text": "his", "label": 0},
    {"text": 'The man lifted the boy onto his bunk bed . " Good , " he said .', "span1_index": 0,
     "span1_text": "The man", "span2_index": 14, "span2_text": "he", "label": 1},
    {"text": "It was a summer afternoon , and the dog did n't move .", "span1_index": 8, "span1_text": "the dog",
     "span2_index": 0, "span2_text": "It", "label": 0},
    *({"text": f"Ann asked Mary {k} things because she was talkative .", "span1_index": 2, "span1_text": "Mary",
       "span2_index": 6, "span2_text": "she", "label": k % 2} for k in range(9)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped definitions over local documents in the sets' own columns."""
    here = tmp_path_factory.mktemp("shipped")
    for name, split, some in (
        ("pythia_sciq", "test", SCIENCE), ("pythia_wsc", "validation", SCHEMAS),
        ("pythia_hendrycksTest_anatomy", "test", QUESTIONS),
    ):
        places = {s: local_tasks.write_lines(here / f"{name}_{s}.jsonl", some) for s in ("train", "validation", "test")}
        base = {"include": str(shipped.FOLDER / f"{name}.yaml")}
        if not Path(base["include"]).is_file():
            base = shipped.definition(name)
        local_tasks.define(here, {**base, "task": name, "dataset_path": "json", "dataset_name": None,
                                  "dataset_kwargs": {"data_files": places}})
        assert split in places
    return here


def requests(folder: Path, name: str, shots: int = 0) -> list[list[tuple[str, str]]]:
    """(context, continuation) of every document of a task."""
    task = evaluate.ask(evaluate.Wanted((name,), shots, str(folder))).tasks[name]
    found: dict[int, list[tuple[str, str]]] = {}
    for instance in task.instances:
        found.setdefault(instance.doc_id, []).append(instance.args)
    return list(found.values())


def test_hendryckstest_lists_the_choices_and_scores_their_texts(folder: Path) -> None:
    for document, asked in zip(QUESTIONS, requests(folder, "pythia_hendrycksTest_anatomy"), strict=True):
        lines = "".join(f"{letter}. {text}\n" for letter, text in zip("ABCD", document["choices"], strict=True))
        prompt = "Question: " + document["question"] + "\nChoices:\n" + lines + "Answer:"
        assert asked == [(prompt, f" {choice}") for choice in document["choices"]]


def test_sciq_strips_the_whole_prompt(folder: Path) -> None:
    for document, asked in zip(SCIENCE, requests(folder, "pythia_sciq"), strict=True):
        prompt = f"{document['support']}\nQuestion: {document['question']}\nAnswer:".strip()
        assert {context for context, _ in asked} == {prompt}
        assert [text for _, text in asked] == [" an acid", " a base", " salt", " water"]
    assert requests(folder, "pythia_sciq")[0][0][0].startswith("Question:")


def test_wsc_marks_the_pronoun_and_asks_yes_or_no(folder: Path) -> None:
    first, second, third, *_ = requests(folder, "pythia_wsc")
    question = 'Question: In the passage above, does the pronoun "*{}*" refer to "*{}*"?\nAnswer:'
    passage = "Passage: Mark told Pete many lies about himself, which Pete included in *his* book.\n"
    assert first == [(passage + question.format("his", "Mark"), f" {a}") for a in ("no", "yes")]
    assert second[0][0].startswith('Passage: The man lifted the boy onto his bunk bed."Good,"*he* said.\n')
    assert third[0][0].startswith("Passage:  *It*was a summer afternoon, and the dog didn't move.\n"), "as it was asked"


def test_few_shot_examples_of_wsc_are_those_answered_by_yes(folder: Path) -> None:
    for asked in requests(folder, "pythia_wsc", shots=3):
        *examples, _ = asked[0][0].split("\n\n")
        assert len(examples) == 3 and all(example.endswith("Answer: yes") for example in examples)


def test_present_tasks_of_these_names_ask_something_else(folder: Path, tmp_path: Path) -> None:
    """What the definitions are for: the reason in each file holds."""
    places = {s: str(folder / f"pythia_sciq_{s}.jsonl") for s in ("train", "validation", "test")}
    local_tasks.define(tmp_path, {**local_tasks.definition("sciq"), "dataset_kwargs": {"data_files": places}})
    ours, theirs = requests(folder, "pythia_sciq"), requests(tmp_path, "sciq")
    assert [one == other for one, other in zip(ours, theirs, strict=True)] == [False, False, False, True, True]
    assert theirs[0][0][0].startswith("\nQuestion:")


def test_every_name_has_a_definition_with_its_published_name() -> None:
    subjects = {name.removeprefix("pythia_hendrycksTest_") for name in shipped.names() if "Test_" in name}
    assert len(subjects) == 57 and {"abstract_algebra", "world_religions"} < subjects
    for name in shipped.names():
        if name != "pythia_hendrycksTest":
            made = shipped.definition(name)
            assert made["task"] == name and "SUBJECT" not in json.dumps(made, default=str) and "subjects" not in made
            assert made["metadata"]["published"] == name.removeprefix("pythia_").replace("Test_", "Test-")
    for file in shipped.FOLDER.glob("*.yaml"):
        assert file.read_text().startswith("# ") and "published results" in file.read_text()
    assert shipped.definition("pythia_hendrycksTest_anatomy")["dataset_name"] == "anatomy"


def test_they_run_by_name_over_a_suite(folder: Path, tiny_suite: Path, tmp_path: Path) -> None:
    command = ["evaluate", str(tiny_suite), "--models", "xs", "--steps", "last", "--device", "cpu", "--quiet",
               "--include-path", str(folder), "--out", str(tmp_path / "run")]
    names = ["pythia_sciq", "pythia_wsc", "pythia_hendrycksTest_anatomy"]
    assert main([*command, "--tasks", *names]) == 0
    items = load_run(tmp_path / "run").items
    sizes = items.groupby("task").size().to_dict()
    assert sizes == {"pythia_hendrycksTest_anatomy": 8, "pythia_sciq": 20, "pythia_wsc": 24}
    anatomy = items[items["task"] == "pythia_hendrycksTest_anatomy"]
    assert anatomy["characters"].tolist() == [9, 7, 4, 3, 1, 1, 1, 1]


def test_the_definitions_are_plain_lm_eval_ones() -> None:
    """Anyone may give the single ones to lm-eval itself."""
    for name in ("pythia_sciq", "pythia_wsc"):
        text = (shipped.FOLDER / f"{name}.yaml").read_text().replace("!function ", "")
        assert yaml.safe_load(text)["task"] == name


def test_examples_of_the_docstrings() -> None:
    found = doctest.testmod(shipped)
    assert found.attempted and not found.failed
