"""Recipes: the default holds together, wrong ones are refused by name, digests follow content."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_tools.core.errors import RequestError
from pythia_tools.micro import Canaries, Facts, ModelSpec, Pronouns, Recipe, Sums, recipe_from, tiny_recipe
from pythia_tools.micro.loop import schedule_of
from pythia_tools.micro.recipe import checkpoint_steps
from pythia_tools.suites.shapes import learning_rate


def test_checkpoints_are_log_spaced_then_even() -> None:
    assert checkpoint_steps(1500, 150) == (
        0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 750, 900, 1050, 1200, 1350, 1500
    )
    assert checkpoint_steps(143_000, 1000)[:14] == (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 3000)
    assert len(checkpoint_steps(143_000, 1000)) == 154
    assert checkpoint_steps(50, 20, also=(33,)) == (0, 1, 2, 4, 8, 16, 32, 33, 40, 50)


def test_the_default_says_what_the_documentation_says() -> None:
    recipe = Recipe()
    assert [m.name for m in recipe.models] == ["xs", "s", "m"]
    assert recipe.rows == 24_000 and recipe.num_samples == 24_120
    assert {c for c, _ in recipe.canaries.copies} == {2**k for k in range(9)}
    assert recipe.swap_from == 0.8 * recipe.steps
    assert recipe.branch_points() == {1200}


def test_the_schedule_is_pythias_scaled_down() -> None:
    recipe = Recipe()
    schedule = schedule_of(recipe, recipe.steps)
    rates = [learning_rate(schedule, 1.0, n) for n in range(recipe.steps)]
    assert rates[0] == 0.0, "the first update changes nothing, so step0 equals step1"
    assert max(rates) == rates[30] == 1.0
    assert rates[-1] == pytest.approx(0.1) and rates.index(min(rates[30:])) < recipe.steps * 0.82


XS = {"name": "xs", "d_model": 32, "layers": 2, "heads": 4, "peak_lr": 0.012}
FIELDS = [f.name for part in (Recipe, ModelSpec, Canaries, Facts, Sums, Pronouns) for f in dataclasses.fields(part)]
LEAVES = st.none() | st.booleans() | st.integers(-5, 3000) | st.floats() | st.text(max_size=5) | st.dates()
VALUES = st.recursive(
    LEAVES, lambda inside: st.lists(inside, max_size=4)
    | st.dictionaries(st.sampled_from(FIELDS) | st.integers(0, 9) | st.text(max_size=3), inside, max_size=4),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from([*FIELDS, "base"]) | st.text(max_size=3), VALUES, max_size=4))
def test_whatever_a_recipe_holds_it_is_read_or_refused_in_one_line(value: dict) -> None:
    try:
        recipe = recipe_from(value)
    except RequestError as error:
        assert "\n" not in str(error)
    else:
        assert recipe_from(dataclasses.asdict(recipe)) == recipe


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 0}, "steps"), ({"steps": "many"}, "steps"), ({"vocab": 100}, "vocab"), ({"sed": 1}, "sed"),
        ({"models": []}, "models"), ({"models": [{"name": "x"}]}, "models"), ({"swap_from": 1500}, "swap_from"),
        ({"models": [{"name": "x", "d_model": 30, "layers": 1, "heads": 4, "peak_lr": 0.01}]}, "d_model"),
        ({"models": [{"name": "../x", "d_model": 32, "layers": 1, "heads": 4, "peak_lr": 0.01}]}, "name"),
        ({"canaries": {"burst_steps": [7]}}, "burst_steps"), ({"canaries": 3}, "canaries"), ({"base": "huge"}, "base"),
        ({"pronouns": {"skew": 0.2}}, "skew"), ({"models": [{**XS, "peak_lr": "high"}]}, "peak_lr is 'high'"),
        ({"models": [{**XS, "layers": "six"}]}, "layers is 'six'"), ({"steps": {"step": "zz"}}, "steps"),
        ({"betas": [0.9, "x"]}, "betas"), ({"betas": 3}, "betas"), ({"name": "../x"}, "name"), ({"name": 3}, "name"),
        ({"keep_states": 3}, "keep_states"), ({"swap_from": 1.5}, "swap_from"), ({"swap_from": "x"}, "swap_from"),
        ({"facts": {"top": 10**9}}, "top"), ({"canaries": {"copies": {"a": 1}}}, "copies"),
        ({"models": "abc"}, "models"),
        ({"canaries": {"copies": {}, "controls": 0, "burst_steps": []}}, "canaries: none"),
        ({"warmup": True}, "warmup"), ({"clip": 0}, "clip"), ({"keep_states": [9999]}, "keep_states"),
    ],
)
def test_a_wrong_recipe_is_refused_by_the_field(change: dict, named: str) -> None:
    with pytest.raises(RequestError, match=named) as error:
        recipe_from(change)
    assert "\n" not in str(error.value)


def test_a_mapping_overrides_and_round_trips() -> None:
    recipe = recipe_from({"base": "tiny", "steps": 80, "canaries": {"controls": 7, "copies": {1: 2, 4: 1}}})
    assert recipe.steps == 80 and recipe.canaries.controls == 7 and recipe.canaries.copies == ((1, 2), (4, 1))
    assert recipe.facts == tiny_recipe().facts
    assert recipe_from(dataclasses.asdict(recipe)) == recipe
    assert recipe_from({}) == Recipe()


def test_every_field_changes_the_digest() -> None:
    digests = {Recipe().digest(), tiny_recipe().digest()}
    for changed in (
        {"seed": 5}, {"weight_decay": 0.1}, {"models": (ModelSpec("xs", 32, 2, 4, 1e-3),)}, {"keep_states": (600,)},
        {"canaries": dataclasses.replace(Canaries(), controls=61)},
    ):
        digests.add(dataclasses.replace(Recipe(), **changed).digest())
    assert len(digests) == 7


def test_the_digest_follows_the_python(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Recipe().digest()
    monkeypatch.setattr("platform.python_version", lambda: "3.99.1")
    assert Recipe().digest() != before
