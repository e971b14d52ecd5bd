"""A finished study, looked at: by id and by name, side by side, and from Python."""

import json
import math
import subprocess
import sys

import pytest
import torch
import yaml

import study
from analysis.statistics import compare
from study.compare import compare_arms
from study.lookup import find_arm, find_in_store, find_trial
from study.results import read_outcome
from study.show import show_cell, show_trial
from trainables import names
from trainables.errors import BadOption, NothingTracked, UnknownName
from trainables.trial import note_failure

FILE = {
    "study": "looked-at",
    "data": {"name": "mnist5k", "subset": {"train": 300}},
    "backbone": "lenet5",
    "seeds": 3,
    "evaluate": {"validation": 20, "test": 30},
    "training": {"epochs": 2},
    "methods": {
        "sce": {"loss": "sce", "seeds": [0, 1]},
        "isce": {"loss": {"name": "isce", "s": 1, "m": [0, 0.1]}},
    },
    "attacks": {"pgd": {"budget": "l2_abs", "eps": 1.0, "steps": 3, "surface": "margin_raw"}},
    "diagnostics": {"embedding": {}},
    "headline": {"attack": "pgd"},
    "compare": {"baseline": "sce"},
}
PGD = "cell/test/pgd-l2_abs-un-margin_raw-eps1-n3"


@pytest.fixture(scope="module")
def opened(tmp_path_factory, run_plan):
    """The study, of which all but one trial have been run."""
    folder = tmp_path_factory.mktemp("looked-at")
    (folder / "study.yaml").write_text(yaml.safe_dump(FILE, sort_keys=False))
    uri = f"sqlite:///{folder}/mlflow.db"
    found = study.open(str(folder / "study.yaml"), storage=str(folder / "store"), tracking_uri=uri)
    with pytest.raises(NothingTracked):
        found.frame()
    all_but_one = [trial.id for trial in found.plan.trials[:-1]]
    result, _ = run_plan(found.plan, folder, only=all_but_one)
    assert not result.failed
    assert result.planned == 7
    return found


def accuracy(opened, trial, cell):
    return read_outcome(opened.store, trial.id, trial.cell_ids[cell]).accuracy


def test_only_those_that_were_asked_for_are_run(opened):
    counts = opened.status().counts
    assert (counts["done"], counts["missing"]) == (7, 1)
    states = opened.frame().set_index("trial_id")["state"]
    assert states[opened.plan.trials[-1].id] == "missing"


def test_the_frame_and_the_outcomes_say_the_same(opened):
    frame = opened.frame().set_index("trial_id")
    for cell in (names.CLEAN, PGD):
        images = opened.outcomes(cell)
        assert list(images.columns[:4]) == ["trial_id", "name", "seed", "index"]
        assert images.groupby("trial_id").size().to_dict() == dict.fromkeys(frame.index[:-1], 30)
        shares = (images["correct_after"] / images["passes"]).groupby(images["trial_id"]).mean()
        assert shares.to_dict() == pytest.approx(frame[cell][:-1].to_dict())


def test_an_unknown_cell_is_told_with_the_nearest(opened):
    with pytest.raises(UnknownName, match=f"did you mean '{PGD}'"):
        opened.outcomes(PGD.replace("eps1", "eps2"))


def test_a_model_is_ready_for_attack_code(opened, splits):
    trial = opened.plan.trials[0]
    model = opened.model(trial.name)
    images = splits.test.images[:30].requires_grad_()
    logits = model(images)
    assert logits.shape == (30, 10)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    logits.sum().backward()
    assert images.grad.abs().max() > 0
    right = (logits.argmax(dim=1) == splits.test.labels[:30]).float().mean()
    assert float(right) == pytest.approx(accuracy(opened, trial, names.clean_name(names.TEST)))


def test_a_model_that_is_not_there_is_told(opened):
    with pytest.raises(BadOption, match="is not trained yet"):
        opened.model(opened.plan.trials[-1].id)


def test_opening_imports_nothing_heavy_before_it_is_used():

    code = (
        "import study, sys; study.open; assert not {'torch', 'pandas', 'mlflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_trial_is_found_by_id_beginning_and_name(opened):
    trial = opened.plan.trials[0]
    for text in (trial.id, trial.id[:8], trial.name):
        assert find_trial(opened.plan, text) is trial
    for text in (trial.id, trial.id[:8]):
        assert find_in_store(opened.store, text) == (trial.id, None)
    cell = trial.cell_ids[PGD]
    assert find_in_store(opened.store, cell) == (trial.id, cell)


@pytest.mark.parametrize("text", ["abc", "isce s=1", "ABCD", "0123456789abcdef0"])
def test_what_is_no_id_says_what_one_is(opened, text):
    with pytest.raises(BadOption, match="4 to 16 hexadecimal digits"):
        find_in_store(opened.store, text)


def test_a_beginning_of_several_lists_them(opened):
    first, second = "aaaa000000000000", "aaaa111111111111"
    for id in (first, second):
        note_failure(opened.store, id, "RuntimeError: no luck", "")
    try:
        with pytest.raises(BadOption, match=f"any of 2: 'trial {first}', 'trial {second}'"):
            find_in_store(opened.store, "aaaa")
        assert find_in_store(opened.store, "aaaa0") == (first, None)
    finally:
        for id in (first, second):
            opened.store.remove(f"trials/{id}")
    with pytest.raises(BadOption, match=r"nothing in .* begins with 'aaaa'"):
        find_in_store(opened.store, "aaaa")


def test_an_arm_is_a_method_or_a_point_of_it(opened):
    assert [t.model.seed for t in find_arm(opened.plan, "sce")] == [0, 1]
    assert [t.model.seed for t in find_arm(opened.plan, "isce m=0.1")] == [0, 1, 2]
    with pytest.raises(BadOption, match=r"'isce' may be any of 2: 'isce m=0', 'isce m=0.1'"):
        find_arm(opened.plan, "isce")
    with pytest.raises(BadOption, match=r"did you mean 'isce m=0\.1'"):
        find_arm(opened.plan, "isce m=0.15")


def test_a_trial_shows_all_that_the_store_holds_of_it(opened):
    trial = opened.plan.trials[2]
    found = json.loads(json.dumps(show_trial(opened.store, trial.id, trial)))
    assert (found["name"], found["state"], found["epochs"]) == (trial.name, "done", 2)
    assert found["configuration"] == trial.model.spec()
    assert found["last_epoch"]["epoch"] == 2
    assert found["execution"]["torch"] == torch.__version__
    assert found["missing"] == found["failures"] == []
    cells = {cell["name"]: cell for cell in found["cells"]}
    assert cells.keys() == {*trial.cells, "embedding"}
    assert cells[PGD]["accuracy"] == accuracy(opened, trial, PGD)
    assert cells["embedding"]["numbers"]
    bare = show_trial(opened.store, trial.id, None)
    assert (bare["state"], bare["configuration"]) == ("trained", found["configuration"])
    assert {*trial.cells, "cell/test/embedding"} == {cell["name"] for cell in bare["cells"]}


def test_a_trial_that_failed_or_never_ran_says_so(opened):
    trial = opened.plan.trials[-1]
    found = show_trial(opened.store, trial.id, trial)
    assert (found["state"], found["cells"]) == ("nothing trained", [])
    assert set(found["missing"]) == {*trial.cells, "embedding"}
    note_failure(opened.store, trial.id, "RuntimeError: no luck", "Traceback …")
    found = show_trial(opened.store, trial.id, None)
    assert (found["state"], found["failures"][0]["reason"]) == ("failed", "RuntimeError: no luck")
    opened.store.remove(f"trials/{trial.id}")


def test_a_cell_shows_what_was_done_to_which_images(opened):
    trial = opened.plan.trials[0]
    found = show_cell(opened.store, trial.id, trial.cell_ids[PGD], trial)
    assert found["configuration"] == trial.cells[PGD].spec()
    assert (found["name"], found["split"], found["n"]) == (PGD, "test", 30)
    assert found["seconds"] > 0


def test_two_configurations_are_paired_by_seed(opened):
    plan, store = opened.plan, opened.store
    arms = find_arm(plan, "isce m=0"), find_arm(plan, "sce")
    (found,) = compare_arms(plan, store, *arms)
    assert (found.place, found.seeds) == ("lenet5/mnist5k", 2)
    assert found.changed["loss"] == ("isce", "sce")
    assert found.changed["loss.s"] == ("1", "")
    assert not {"seed", "method"} & found.changed.keys()
    rows = {row.name: row for row in found.rows}
    assert rows.keys() == {names.ROBUST, *arms[1][0].cells}
    frame = opened.frame()
    by_seed = [frame[frame["label"] == label].set_index("seed")[names.ROBUST]
               for label in ("isce m=0", "sce")]  # fmt: skip
    assert rows[names.ROBUST].difference == compare(*by_seed)
    one, other = ([accuracy(opened, t, PGD) for t in arm] for arm in arms)
    assert rows[PGD].first == pytest.approx(sum(one) / 3)
    assert rows[PGD].difference.estimate.mean == pytest.approx((sum(one[:2]) - sum(other)) / 2)
    assert " ± " in rows[PGD].told
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["cells"][PGD]["p"] is not None


def test_two_trials_have_a_difference_and_no_interval(opened):
    plan = opened.plan
    one, other = plan.trials[0], plan.trials[1]  # two seeds of one method
    (found,) = compare_arms(plan, opened.store, [one], [other])
    assert found.changed == {"seed": ("0", "1")}
    (row,) = (row for row in found.rows if row.name == PGD)
    difference = accuracy(opened, one, PGD) - accuracy(opened, other, PGD)
    assert row.difference.estimate.mean == pytest.approx(difference)
    assert row.told == f"{100 * difference:+.1f}"


def test_what_has_no_result_is_told_as_missing(opened):
    plan = opened.plan
    (found,) = compare_arms(plan, opened.store, [plan.trials[0]], [plan.trials[-1]])
    assert all(math.isnan(row.second) and row.told == "-" for row in found.rows)
