"""Methods whose models come from elsewhere: planned, told of, attacked and tracked as any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from study.cells import left_out
from study.cost import workload
from study.describe import describe
from study.results import read_outcome
from trainables import names
from trainables.errors import InvalidStudy
from trainables.execution import Execution
from trainables.store import Store
from trainables.trial import Trial, record_of

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "checkpoint"
THEIRS = {"checkpoint": "net.safetensors", "backbone": "small_net:SmallNet"}
NORMALIZED = {**THEIRS, "normalize": {"mean": 0.1307, "std": 0.3081}}
OURS = {"checkpoint": "ours.safetensors", "loss": "sce"}


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    """The example's weights, twice as large ones, and LeNet-5's beside the study file."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    data = (EXAMPLE / "small_net.safetensors").read_bytes()
    (tmp_path / "net.safetensors").write_bytes(data)
    double = {name: 2 * value for name, value in safetensors.torch.load(data).items()}
    safetensors.torch.save_file(double, tmp_path / "double.safetensors")
    kept = ROOT / "tests" / "models" / "sce.safetensors"
    (tmp_path / "ours.safetensors").write_bytes(kept.read_bytes())


def test_a_checkpoint_is_one_trial_without_copies_by_seed(plan_of):
    plan = plan_of(seeds=3, methods={"sce": {"loss": "sce"}, "theirs": NORMALIZED, "ours": OURS})
    given = [trial for trial in plan.trials if trial.checkpoint is not None]
    assert len(plan.trials) == 5
    assert {trial.name for trial in given} == {
        "theirs · small_net:SmallNet/mnist5k · net.safetensors",
        "ours · lenet5/mnist5k · ours.safetensors",
    }
    assert [trial.evidence for trial in given] == [names.EXPLORATORY] * 2
    assert plan_of(methods={"theirs": NORMALIZED}, seeds=9).trials[0].id in plan.by_id


def test_a_list_of_checkpoints_is_an_arm_of_seeds(plan_of):
    both = {**NORMALIZED, "checkpoint": ["net.safetensors", "double.safetensors"]}
    plan = plan_of(methods={"theirs": both, "again": both})
    arm = plan.trials
    assert [trial.model.seed for trial in arm] == [0, 1]
    assert [trial.evidence for trial in arm] == ["2 seeds"] * 2
    assert arm[0].arm == arm[1].arm
    assert describe(plan, "study run")["seeds"]["theirs"] == [0, 1]
    assert [trial.methods for trial in arm] == [("theirs", "again")] * 2
    with pytest.raises(
        InvalidStudy, match=r"one\.checkpoint: .* name the same checkpoints in both"
    ):
        plan_of(methods={"theirs": both, "one": NORMALIZED})


def test_two_checkpoints_of_one_network_are_two_arms(plan_of):
    other = {**NORMALIZED, "checkpoint": "double.safetensors"}
    plan = plan_of(methods={"a": NORMALIZED, "b": other})
    assert [trial.evidence for trial in plan.trials] == [names.EXPLORATORY] * 2
    assert len({trial.model.arm_id for trial in plan.trials}) == 2


def test_what_is_shown_of_it_is_what_applies(plan_of):
    (trial,) = plan_of(methods={"theirs": NORMALIZED}, training={"epochs": 3}).trials
    params = trial.params()
    assert params["checkpoint.file"] == "net.safetensors"
    assert params["checkpoint.mean"] == "[0.1307]"
    assert len(params["checkpoint.sha256"]) == 64
    shown = {key.partition(".")[0] for key in params}
    assert shown == {"method", "dataset", "backbone", "seed", "transform", "checkpoint"}
    (trial,) = plan_of(methods={"ours": OURS}).trials
    assert trial.params()["loss"] == "sce"
    assert trial.params()["checkpoint.mean"] == "[0.1307]"  # the data set's


def test_an_absolute_path_does_as_well(plan_of, tmp_path):
    (beside,) = plan_of(methods={"theirs": THEIRS}).trials
    (absolute,) = plan_of(
        methods={"theirs": {**THEIRS, "checkpoint": str(tmp_path / "net.safetensors")}}
    ).trials
    assert absolute.id == beside.id


def test_a_diagnostic_of_features_is_left_out_and_told(plan_of):
    methods = {"theirs": THEIRS, "ours": OURS}
    plan = plan_of(methods=methods, diagnostics={"embedding": {}, "exhibits": {}})
    found = {trial.methods[0]: set(trial.diagnostics) for trial in plan.trials}
    assert found == {"theirs": {"exhibits"}, "ours": {"embedding", "exhibits"}}
    assert left_out(plan) == [
        "theirs: no embedding: small_net:SmallNet shows no features, logits alone"
    ]


def test_nothing_of_it_is_estimated_as_training(plan_of):
    work = workload(plan_of(methods={"theirs": THEIRS, "ours": OURS}), [], {})
    assert (work.models, work.trained) == (2, 2)
    assert work.units
    assert not any("train" in json.loads(kind) for kind in work.units)


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ({**THEIRS, "checkpoint": "nett.safetensors"}, ".checkpoint: cannot read '/"),
        ({**THEIRS, "checkpoint": ["net.safetensors", "x"]}, ".checkpoint: cannot read '/"),
        ({**THEIRS, "checkpoint": "small.yaml"}, "to be a safetensors file"),
        ({**THEIRS, "checkpoint": "net.pth"}, ".checkpoint: 'net.pth' is a pickle"),
        ({**THEIRS, "checkpoint": []}, ".checkpoint: expected at least one"),
        ({**THEIRS, "checkpoint": 3}, ".checkpoint: expected a valid list, found 3"),
        ({**THEIRS, "checkpoint": "ours.safetensors"}, "does not fit small_net:SmallNet"),
        ({**OURS, "loss": "mmc"}, "'head.linear.weight' is 10 x 84, expected 84 x 84"),
        ({"checkpoint": "ours.safetensors"}, "loss is missing"),
        ({**THEIRS, "loss": "sce"}, "give its `checkpoint`, and no loss"),
        ({"loss": "sce", "backbone": "small_net:SmallNet"}, "it is attacked, not trained"),
        ({"backbone": "small_net:SmallNet"}, ".loss: missing"),
        ({**THEIRS, "backbone": "small_net:Small"}, "did you mean 'SmallNet'"),
        ({**THEIRS, "backbone": "nowhere:Net"}, "the folder of the study file is not searched"),
        (
            {**THEIRS, "backbone": {"name": "small_net:SmallNet", "arguments": {"chanels": 3}}},
            "unexpected keyword argument 'chanels'",
        ),
        (
            {**THEIRS, "backbone": {"name": "small_net:SmallNet", "arguments": {"channels": 3}}},
            "'conv2.weight' is 16 x 8 x 3 x 3, expected 3 x 8 x 3 x 3",
        ),
        ({**THEIRS, "data": "cifar10"}, "cannot take images of 3 x 32 x 32"),
        ({**THEIRS, "training": {"epochs": 3}}, ".training: a checkpoint is not trained"),
        ({**THEIRS, "regime": "standard"}, ".regime: a checkpoint is not trained"),
        ({**THEIRS, "seeds": 2}, "several checkpoints of one arm are a list"),
        ({**THEIRS, "normalize": {"mean": [0, 0]}}, "one for each of 1 channels, found [0.0, 0.0]"),
        ({**THEIRS, "normalize": {"std": 0}}, ".normalize.std.0: expected a number greater than 0"),
        ({"loss": "sce", "normalize": {"mean": 0}}, ".normalize: stands with a `checkpoint` alone"),
    ],
    ids=str,
)
def test_a_mistake_is_told_with_its_key(plan_of, tmp_path, method, told):
    torch.save({}, tmp_path / "net.pth")
    with pytest.raises(InvalidStudy) as error:
        plan_of(methods={"theirs": method}, evaluate={"validation": 5, "test": 5})
    (mistake,) = error.value.mistakes
    assert str(mistake).startswith("methods.theirs")
    assert told in str(mistake)


def test_the_training_loss_of_a_network_without_one_is_no_surface(plan_of):
    attacks = {"pgd": {"eps": 0.04, "steps": 3, "surface": ["ce_raw", "train_loss"]}}
    with pytest.raises(InvalidStudy, match=r"theirs: surface train_loss: .* such as ce_raw"):
        plan_of(methods={"theirs": THEIRS}, attacks=attacks)
    assert plan_of(methods={"ours": OURS}, attacks=attacks).trials


# The whole way, in this process.

SMALL = {
    "evaluate": {"validation": 10, "test": 20},
    "training": {"epochs": 1, "batch_size": 500},
    "attacks": {"pgd": {"budget": "l2_abs", "eps": 1.0, "steps": 3, "random_start": True}},
}


@pytest.fixture
def run(run_plan, tmp_path):
    def start(plan):
        result, said = run_plan(plan, tmp_path)
        assert not result.failed
        return said

    return start


def outcomes(trial, store):
    """What was measured, by metric, less the id that differs."""
    found = {name: read_outcome(store, trial.id, cell) for name, cell in trial.cell_ids.items()}
    return {name: {**outcome.arrays, "by_pass": outcome.by_pass} for name, outcome in found.items()}


def same(one, other):
    return one.keys() == other.keys() and all(
        (one[name][key] == other[name][key]).all() for name in one for key in one[name]
    )


def test_what_we_trained_and_exported_is_attacked_bit_by_bit_as_the_model_itself(
    plan_of, tmp_path, run
):
    store = Store(str(tmp_path / "store"))
    (trained,) = plan_of(**SMALL, methods={"sce": {"loss": "sce"}}).trials
    life = Trial(trained.job(), store, Execution())
    while not life.advance().done:
        pass
    weights = store.read(f"models/{trained.id}")["weights.safetensors"]
    (tmp_path / "ours.safetensors").write_bytes(weights)

    plan = plan_of(**SMALL, methods={"ours": OURS})
    (given,) = plan.trials
    said = run(plan)
    assert "1 of 1 trials to run" in said
    assert same(outcomes(trained, store), outcomes(given, store))
    assert record_of(store, given.id)["history"] == []

    # Lost and damaged, it is brought again; none is trained in its place.
    before = outcomes(given, store)
    (file,) = (tmp_path / "store" / "models" / given.id).glob("weights.*")
    file.write_bytes(b"damaged")
    for cell in given.result_ids:
        store.remove(f"outcomes/{given.id}/{cell}")
    said = run(plan)
    assert "is damaged" in said
    assert same(before, outcomes(given, store))
    assert record_of(store, given.id)["history"] == []
    assert "to run" not in run(plan)
