"""The shipped suites against the published tables: sizes, steps, learning rates, step 0, labels and defects."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pythia_tools import suites
from pythia_tools.core import manifests
from pythia_tools.core.errors import RequestError
from pythia_tools.suites import ModelInfo, learning_rate, load_suite

# name, layers, d_model, heads, padded vocabulary, parameters, non-embedding, peak learning rate: Pythia's model cards
TABLE = """
14m   6  128  4 50304    14067712     1189888 1e-3
31m   6  256  8 50304    30494720     4739072 1e-3
70m   6  512  8 50304    70426624    18915328 1e-3
160m 12  768 12 50304   162322944    85056000 6e-4
410m 24 1024 16 50304   405334016   302311424 3e-4
1b   16 2048  8 50304  1011781632   805736448 -
1.4b 24 2048 16 50304  1414647808  1208602624 2e-4
2.8b 32 2560 32 50304  2775208960  2517652480 1.6e-4
6.9b 32 4096 32 50432  6857302016  6444163072 1.2e-4
12b  36 5120 40 50688 11846072320 11327027200 1.2e-4
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]
STEPS_154 = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 143001, 1000)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
@pytest.mark.parametrize("suite", ["pythia", "pythia-deduped"])
def test_shapes_parameters_and_peak_learning_rates(suite: str, row: list[str]) -> None:
    name, layers, d_model, heads, vocab, params, non_embedding, peak = row
    info = load_suite(suite).model(name)
    assert (info.shape["layers"], info.shape["d_model"], info.shape["heads"], info.shape["vocab"]) == (
        int(layers),
        int(d_model),
        int(heads),
        int(vocab),
    )
    assert (info.params, info.non_embedding) == (int(params), int(non_embedding))
    assert suites.neox_params(int(layers), int(d_model), int(vocab)) == int(params)
    assert suites.neox_non_embedding(int(layers), int(d_model)) == int(non_embedding)
    assert info.peak_lr == (None if peak == "-" else float(peak)), "published values for 1b disagree: none is stated"
    assert info.seed == 1234 and info.tokens_per_step == 1024 * 2048


@pytest.mark.parametrize(
    ("name", "megabytes"),
    [("70m", 166.0), ("160m", 375.0), ("410m", 911.3), ("1.4b", 2930), ("2.8b", 5680), ("6.9b", 13850), ("12b", 23840)],
)
def test_file_sizes_by_formula(name: str, megabytes: float) -> None:
    info = load_suite("pythia").model(name)
    assert info.params is not None
    size = suites.weight_bytes(info.params, "float16", layers=info.shape["layers"], masks=True)
    assert size == 2 * info.params + info.shape["layers"] * 2048**2
    assert size / 1e6 == pytest.approx(megabytes, rel=1e-3)


@pytest.mark.parametrize(("name", "badge"), [("14m", 39.2), ("31m", 55.7), ("70m", 95.6)])
def test_the_hubs_inflated_badge_is_parameters_plus_masks(name: str, badge: float) -> None:
    info = load_suite("pythia").model(name)
    assert info.params is not None
    assert (info.params + info.shape["layers"] * 2048**2) / 1e6 == pytest.approx(badge, abs=0.06)


@pytest.mark.parametrize("suite", ["pythia", "pythia-deduped", "pythia-seeds"])
def test_every_run_has_the_154_checkpoints(suite: str) -> None:
    loaded = load_suite(suite)
    for model in loaded.models:
        assert loaded.steps(model) == STEPS_154
        assert loaded.checkpoint(model, 1000).tokens == 2_097_152_000
        assert loaded.checkpoint(model, 143000).tokens == 299_892_736_000
        assert loaded.checkpoint(model, 512).revision == "step512"


def rate(info: ModelInfo, update: int) -> float:
    assert info.peak_lr is not None
    return learning_rate(info.schedule, info.peak_lr, update)


@pytest.mark.parametrize(
    ("update", "share"),
    [(0, 0.0), (1, 0.0007), (512, 0.358), (1000, 0.699), (1430, 1.0), (71500, 0.516), (93000, 0.287), (100000, 0.220)]
)
def test_learning_rates_at_given_steps(update: int, share: float) -> None:
    assert rate(load_suite("pythia").model("160m"), update) / 6e-4 == pytest.approx(share, abs=6e-4)


def test_the_floor_is_reached_at_step_115139_and_kept() -> None:
    info = load_suite("pythia").model("70m")
    floor = pytest.approx(1e-4, abs=0)
    assert rate(info, 115_138) > 1e-4 * (1 + 1e-9)
    assert [rate(info, n) for n in (115_139, 120_000, 143_000)] == [floor] * 3
    assert load_suite("pythia").model("1b").peak_lr is None


@pytest.mark.parametrize(
    ("name", "most", "residual"),
    [
        ("14m", 0.055902, 0.029463),
        ("31m", 0.039528, 0.020833),
        ("70m", 0.027951, 0.014731),
        ("160m", 0.022822, 0.006014),
        ("410m", 0.019764, 0.002604),
        ("1b", 0.013975, 0.002762),
        ("1.4b", 0.013975, 0.001841),
        ("2.8b", 0.012500, 0.001235),
        ("6.9b", 0.02, 0.0025),
        ("12b", 0.02, 0.002357),
    ],
)
def test_initial_standard_deviations(name: str, most: float, residual: float) -> None:
    info = load_suite("pythia").model(name)
    assert info.initialisation is not None
    expected = (pytest.approx(most, abs=6e-7), pytest.approx(residual, abs=6e-7))
    assert suites.initial_std(info.initialisation, info.shape) == expected


@pytest.mark.parametrize("suite", ["pythia-v0", "pythia-deduped-v0"])
def test_the_first_release_relabels_its_doubled_batches(suite: str) -> None:
    loaded = load_suite(suite)
    corpus = "deduped" if "deduped" in suite else "standard"
    assert list(loaded.models) == ["70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b"]
    for model, info in loaded.models.items():
        doubled = model in ("160m", "410m", "1.4b")
        steps = loaded.steps(model)
        assert len(steps) == 143 and steps[-1] == (71_500 if doubled else 143_000)
        assert info.batch_rows == (2048 if doubled else 1024)
        assert info.order == f"pile-{corpus}-preshuffled" + ("-4m" if doubled else "")
        first = loaded.checkpoint(model, steps[0])
        assert (first.step, first.revision, first.tokens) == (500 if doubled else 1000, "step1000", 2_097_152_000)
        assert loaded.checkpoint(model, steps[-1]).tokens == 299_892_736_000


def test_seed_runs_and_their_orders() -> None:
    suite = load_suite("pythia-seeds")
    for size in ("14m", "31m", "70m", "160m", "410m"):
        for seed in range(1, 10):
            info = suite.model(f"{size}-seed{seed}")
            assert (info.seed, info.order) == (seed, f"pile-standard-seed{seed}")
            assert str(suite.checkpoint(info.name, 0).location) == f"EleutherAI/pythia-{size}-seed{seed}@step0"
        assert str(suite.checkpoint(f"{size}-seed0", 0).location) == f"EleutherAI/pythia-{size}@step0"
    alone = {name for name in suite.models if "data" in name or "weight" in name}
    assert alone == {f"160m-{kind}-seed{n}" for kind in ("data", "weight") for n in (1, 2, 3)}


def test_interventions_leave_their_base_at_a_step() -> None:
    suite = load_suite("pythia-interventions")
    for size in ("70m", "410m", "1.4b", "6.9b"):
        info = suite.model(f"{size}-intervention")
        assert (info.branch, info.base, info.branch_step) == ("intervention", size, 133_000)
        assert suite.steps(info.name) == list(range(134_000, 143_001, 1000))
        place = suite.checkpoint(info.name, 134_000).location
        assert str(place) == f"EleutherAI/pythia-intervention-{size}-deduped@step134000"
    assert suite.steps("1.4b-intervention-long") == list(range(114_000, 143_001, 1000))
    assert suite.model("1.4b-intervention-long").branch_step == 113_000


def test_the_28b_defect_covers_86_branches() -> None:
    suite = load_suite("pythia")
    checkpoints = [suite.checkpoint("2.8b", step) for step in suite.steps("2.8b")]
    wrong = {c.step for c in checkpoints for d in c.defects if d.severity == "wrong"}
    assert len(wrong) == 86
    first = next(d for d in suite.model("2.8b").defects if "that of main" in d.what and d.severity == "wrong")
    assert first.steps is not None and len(first.steps) == 76
    with pytest.raises(
        RequestError,
        match=r"pythia/2.8b: step 140000 is known to be wrong: model.safetensors is bit for bit that of main .* "
        r"\(https://github.com/EleutherAI/pythia/issues/205\); leave them out with --leave-out-defective, or go on",
    ):
        suite.checkpoints("2.8b", [140000], allow_defective=False)
    assert suite.checkpoints("2.8b", [141000, 142000], allow_defective=False)
    assert len(suite.checkpoints("2.8b")) == 154, "choosing is not loading"


def test_defects_warn_once_when_they_are_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    suite = load_suite("pythia")
    for _ in range(2):
        assert len(suite.checkpoints("12b", [50000, 58000], allow_defective=True)) == 2
    err = capsys.readouterr().err
    assert err.count("warning: pythia/12b: steps 50000, 58000 are known to be wrong: the first of three shards") == 1


@pytest.mark.parametrize("name", manifests.names("suites"))
def test_every_manifest_names_sources_and_every_defect_its_own(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name and suite.sources and all(s.startswith("https://") for s in suite.sources)
    for info in suite.models.values():
        assert all(d.source.startswith("https://") for d in info.defects)
        for order in {info.order} - {None}:
            assert order in manifests.names("orders")


@pytest.mark.parametrize(
    ("model", "step", "revision"),
    [
        ("0425-1B", 120_000, "stage1-step120000-tokens252B"),
        ("0425-1B", 140_000, "stage1-step140000-tokens294B"),
        ("0425-1B", 1_907_359, "stage1-step1907359-tokens4001B"),
        ("1124-7B", 928_646, "stage1-step928646-tokens3896B"),
        ("1124-7B", 2000, "step2000-tokens9B"),
        ("1124-13B", 596_057, "stage1-step596057-tokens5001B"),
    ],
)
def test_revisions_that_olmo_publishes(model: str, step: int, revision: str) -> None:
    suite = load_suite("olmo2")
    assert step in suite.steps(model)
    assert suite.checkpoint(model, step).revision == revision


@pytest.mark.parametrize(
    ("model", "revisions"),
    [
        ("1B", "step20000-tokens84B step117850-tokens494B step330000-tokens1384B step482050-tokens2022B "
               "step558000-tokens2340B step738020-tokens3095B"),
        ("7B", "step0-tokens0B step2000-tokens9B step398000-tokens1761B step452000-tokens2000B "
               "step556000-tokens2460B step557000-tokens2464B"),
        ("7B-Twin-2T", "step0-tokens0B step3000-tokens13B step43000-tokens180B step59000-tokens247B"),
    ],
)
def test_revisions_of_the_first_olmo(model: str, revisions: str) -> None:
    suite = load_suite("olmo")
    names = {suite.checkpoint(model, step).revision for step in suite.steps(model)}
    assert set(revisions.split()) <= names


def test_the_first_olmo_holds_the_steps_of_its_lists() -> None:
    """335 and 558 revisions on the hub; 316 checkpoints of the twin on the project's list, 4000 not on the hub's."""
    suite = load_suite("olmo")
    assert {m: len(suite.steps(m)) for m in suite.models} == {"1B": 335, "7B": 558, "7B-Twin-2T": 315}
    assert not {491_000, 670_000} & set(suite.steps("1B")) and 4000 not in suite.steps("7B-Twin-2T")
    assert suite.steps("7B") == list(range(0, 557_001, 1000))
    noted = {c.step for c in suite.checkpoints("7B-Twin-2T") if c.defects}
    assert noted == {s for s in suite.steps("7B-Twin-2T") if s > 59_000}


def test_olmo_3_and_apertus_as_far_as_they_are_known() -> None:
    olmo = load_suite("olmo3")
    steps = olmo.steps("1025-7B")
    assert len(steps) == 1415 and str(olmo.checkpoint("1025-7B", steps[-1]).location) == (
        "allenai/Olmo-3-1025-7B@stage1-step1413814")
    assert olmo.checkpoint("1025-7B", 1_413_814).tokens == 5_929_965_715_456  # as the list states
    assert str(olmo.checkpoints("1125-32B")[0].location) == "allenai/Olmo-3-1125-32B@stage1-step10000"
    apertus = load_suite("apertus")
    found = apertus.checkpoints("8B")
    assert (len(found), found[0].revision, found[-1].revision) == (44, "step50000-tokens210B", "step2627139-tokens15T")
    for one in found[:-1]:  # a batch of 1,024 rows of 4,096, then of 2,048, by the revisions' names
        billions = one.step * 4.2e-3 + max(0, one.step - 1_678_000) * 4.2e-3
        assert one.revision == f"step{one.step}-tokens{billions:.0f}B" or one.step in (1_194_000, 1_678_000)


@pytest.mark.parametrize(("model", "last"), [("135M", 2_000_000), ("360M", 2_600_000), ("1.7B", 5_240_000)])
def test_smollm2_is_listed_to_the_end_of_its_training(model: str, last: int) -> None:
    """The training configurations state the steps, the cards the interval: about 250 billion tokens."""
    suite = load_suite("smollm")
    steps, per_step = suite.steps(model), suite.model(model).tokens_per_step
    assert per_step is not None and steps[0] * per_step == pytest.approx(255e9, rel=0.03)
    assert steps == list(range(steps[0], last + 1, steps[0]))


@pytest.mark.parametrize("model", ["0425-1B", "1124-7B", "1124-13B"])
def test_schedules_that_are_stated_in_tokens(model: str) -> None:
    suite = load_suite("olmo2")
    info = suite.model(model)
    assert info.peak_lr is not None and info.tokens_per_step is not None
    warm, end = 8_388_608_000 // info.tokens_per_step, 5e12 / info.tokens_per_step
    assert rate(info, warm) == pytest.approx(info.peak_lr)
    assert rate(info, warm // 2) == pytest.approx(info.peak_lr / 2)
    assert rate(info, round((warm + end) / 2)) == pytest.approx(0.55 * info.peak_lr, rel=1e-4)
    assert rate(info, int(end) + 1) == pytest.approx(0.1 * info.peak_lr)


README = manifests.manifest_root() / "suites" / "README.md"


def test_the_example_that_explains_manifests_is_one(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 2
    (tmp_path / "my-suite.yaml").write_text(blocks[0], encoding="utf-8")
    suite = load_suite(tmp_path / "my-suite.yaml")
    assert [str(c) for c in suite.checkpoints(steps="last")] == ["my-suite/small/step30000",
                                                                 "my-suite/small-swap/step30000"]
    (tmp_path / "suite.yaml").write_text(blocks[1], encoding="utf-8")
    assert load_suite(tmp_path).checkpoint("m", 10).location == suites.Folder(tmp_path / "m" / "step10")


def test_the_other_suites() -> None:
    amber = load_suite("amber")
    assert [amber.checkpoint("7b", s).revision for s in (1, 357, 360)] == ["ckpt_000", "ckpt_356", "main"]
    datadecide = load_suite("datadecide")
    assert len(datadecide.models) == 25 * 14
    last = datadecide.checkpoint("dolma1_7-1B", 69_369)
    assert (str(last.location),
            last.tokens) == ("allenai/DataDecide-dolma1_7-1B@step69369-seed-default", 69_369 * 704 * 2048)
    assert datadecide.steps("falcon-and-cc-qc-orig-10p-4M") == [0, 1250, 2500, 3750, 5000, 5725]
    smollm = load_suite("smollm")
    assert smollm.checkpoints("135M", "240000")[0].tokens == pytest.approx(250e9, rel=0.01)
    assert len(smollm.steps("SmolLM3-3B")) == 86
    with pytest.raises(RequestError, match=r"apertus/70B: its manifest lists no steps, so name them one by one"):
        load_suite("apertus").checkpoints("70B", "log")
    with pytest.raises(RequestError, match="pico/tiny: no revision is known for step 1000"):
        load_suite("pico").checkpoints("tiny", 1000)


PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "pythia" / "published_evals_v1.json"


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published evaluations are not here")
def test_published_evaluations_lie_on_the_grid() -> None:
    table = json.loads(PUBLISHED.read_text())
    assert len(table) == 16
    grid = set(STEPS_154)
    for name, by_step in table.items():
        assert {int(step) for step in by_step} <= grid, name


def test_every_shipped_suite_names_its_tokenizer_with_its_source() -> None:
    for name in manifests.names("suites"):
        suite = load_suite(name)
        for model in suite.models.values():
            assert model.tokenizer and re.fullmatch(r"[\w-]+/[\w.-]+(@[\w-]+)?",
                                                    model.tokenizer), f"{name}/{model.name}"
            assert model.tokenizer_source and model.tokenizer_source.startswith("https://"), f"{name}/{model.name}"
        assert suite.tokenizer in {model.tokenizer for model in suite.models.values()}
    assert load_suite("pythia-deduped").tokenizer == "EleutherAI/pythia-70m-deduped"
    own = load_suite("smollm").model("SmolLM3-3B").tokenizer
    assert own == "HuggingFaceTB/SmolLM3-3B-checkpoints@stage1-step-40000"


def test_datadecide_holds_the_runs_of_its_official_list() -> None:
    """checkpoints/weka_paths.jsonl of the release, at 68abc49: 1,100 runs, and these counts of their revisions."""
    default, others = load_suite("datadecide"), load_suite("datadecide-seeds")
    assert (len(default.models), len(others.models)) == (350, 750)
    assert (sum(len(default.steps(m)) for m in default.models), sum(len(others.steps(m)) for m in others.models)) == (
        8624, 22780)
    assert default.steps("c4-1B") == [*range(0, 67_501, 2500), 69_369]
    assert 63_589 not in default.steps("dclm-baseline-qc-fw-10p-750M")
    assert {5735, 5745} <= set(default.steps("dclm-baseline-4M"))
    aux = others.checkpoint("c4-4M-small-aux-2", 5000)
    assert str(aux.location) == "allenai/DataDecide-c4-4M@step5000-seed-small-aux-2" and aux.model.seed == 14
    assert {m.seed for m in default.models.values()} == {6198}


def test_the_weight_seeds_that_are_none_are_refused_and_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    suite = load_suite("pythia-seeds")
    for model in ("160m-weight-seed1", "160m-weight-seed2"):
        for step in (0, 1, 512, 143_000):
            with pytest.raises(RequestError, match=r"does not? descend|do not descend.*issues/203"):
                suite.checkpoints(model, step, allow_defective=False)
    suites.check_defects(suite.checkpoints("160m-weight-seed1", "1000"), allow_defective=True)
    assert "does not descend from its own step0" in capsys.readouterr().err
    assert suite.checkpoints("160m-weight-seed3", "1000", allow_defective=False)


def test_one_size_is_loaded_in_one_dtype() -> None:
    """1b was trained in bfloat16, on either corpus and in either release."""
    names = ["pythia", "pythia-deduped", "pythia-v0", "pythia-deduped-v0"]
    assert {load_suite(name).model("1b").dtype for name in names} == {"bfloat16"}


def test_a_family_without_usable_checkpoints_says_so() -> None:
    for name in manifests.names("suites"):
        suite = load_suite(name)
        empty = not any(suite.steps(model) for model in suite.models)
        assert empty == ("no usable checkpoint" in suite.description), name
    assert "large" in load_suite("pico").models


def test_checkpoints_in_repositories_of_their_own() -> None:
    suite = load_suite("tinyllama")
    first, last = suite.checkpoints(steps="first,last")
    assert str(first.location) == "PY007/TinyLlama-1.1B-step-50K-105b@main" and first.revision == "main"
    assert str(last.location) == "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T@main"
    assert last.tokens == pytest.approx(3e12, rel=0.01)


def test_the_second_stage_leaves_the_first() -> None:
    suite = load_suite("olmo2")
    last = suite.checkpoint("0325-32B", 721_901)
    assert str(last.location) == "allenai/OLMo-2-0325-32B@stage1-step721901-tokens6056B"
    second = [info for info in suite.models.values() if info.branch != "main"]
    assert len(second) == 13
    for info in second:
        (step,) = suite.steps(info.name)
        assert info.base is not None and info.branch_step == suite.steps(info.base)[-1]
        assert f"-step{step - info.branch_step}-tokens" in suite.checkpoint(info.name, step).revision
