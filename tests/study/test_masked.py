"""Models whose gradients are masked on purpose, and an honest one, before a whole audit."""

from __future__ import annotations

import copy

import pytest
import torch
import yaml

from analysis.audit import judge
from analysis.plan import Plan as Described
from study.describe import describe
from study.files import read_study
from study.plan import make_plan
from study.results import read_outcome
from trainables import names
from trainables.classifier import Classifier
from trainables.evaluation import measure
from trainables.execution import Execution
from trainables.losses.base import Head
from trainables.store import Store
from trainables.training import Trainer
from trainables.transforms.base import Transformation

FEW, ENOUGH = 60, 150  # images: fewer than 150 cannot certify that an attack is strong
QUERIES = 300
SURFACES = ["ce_raw", "margin_raw", "dlr_raw"]
AT = {"name": "adversarial", "budget": "l2_abs", "eps": 1.5, "alpha": 0.5, "steps": 5}


class Scaled(Head):
    """Logits times 1e4: the same classes, and a cross entropy that is flat in float32."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, features):
        return 1e4 * self.head(features)

    def loss(self, features, labels):
        return self.head.loss(features, labels)


class Quantised(Transformation):
    """Eight levels of grey: no pixel has a derivative."""

    def forward(self, images, draws):
        return (7 * images).round() / 7


class Noisy(Classifier):
    """Noise at the output, as large as the logits themselves, and not a word of it."""

    looks = 0

    def raw(self, images, draws=None):
        return self.head(self.features(images, draws))

    def features(self, images, draws=None):
        self.looks += 1
        noise = draws.at("noise", self.looks).normal(10).to(images)
        return torch.cat([super().features(images, draws), noise], dim=1)


class NoisyHead(Scaled):
    """Adds what `Noisy` left beside the features to the logits."""

    def forward(self, features):
        logits = self.head(features[:, :-10])
        return logits + logits.detach().std(dim=1, keepdim=True) * features[:, -10:]


def noisy(model):
    made = copy.deepcopy(model)
    made.__class__, made.head = Noisy, NoisyHead(made.head)
    return made


@pytest.fixture(scope="module")
def audited(splits, tmp_path_factory):
    """Runs the attacks of an audit on a model, as a trial does; gives the verdict.

    AutoAttack takes most of the time and nothing but trust depends on it: only where asked for.
    """

    def run(classifier, method, eps=0.5, n=FEW):
        folder = tmp_path_factory.mktemp("audit")
        file = {
            "study": "masked",
            "data": "mnist5k",
            "backbone": "lenet5",
            "methods": {"it": method},
            "evaluate": {"test": n, "validation": 1},
            "attacks": {"pgd": {"budget": "l2_abs", "eps": eps, "steps": 50, "surface": SURFACES}},
            "headline": {"attack": "pgd"},
            "audit": {"n": n, "queries": QUERIES},
        }
        (folder / "it.yaml").write_text(yaml.safe_dump(file))
        plan = make_plan(read_study(str(folder / "it.yaml")))
        (trial,) = plan.trials
        store = Store(str(folder / "store"))
        wanted = [name for name in trial.cells if n == ENOUGH or "autoattack" not in name]
        cells = {trial.cell_ids[name]: trial.cells[name] for name in wanted}
        groups = {}
        for cell_id, cell in cells.items():
            groups.setdefault(cell.group, {})[cell_id] = cell
        for group in groups.values():
            measured = measure(classifier, list(group.values()), splits)
            for cell_id, objects in zip(group, measured, strict=True):
                store.write(f"outcomes/{trial.id}/{cell_id}", objects)
        outcomes = {
            name: read_outcome(store, trial.id, trial.cell_ids[name]).arrays for name in wanted
        }
        described = Described(describe(plan, "study run"))
        (group,) = described.groups
        protocol = described.protocol(group)
        verdict = judge(protocol.cells, protocol.headline_metrics, outcomes)
        assert not verdict.broken_invariants
        marks = {surface: verdict.marks[_cell(surface, eps)] for surface in SURFACES}
        failed = {(check.name, check.about) for check in verdict.checks if check.verdict == "fail"}
        print(marks, verdict.mark, failed)
        return verdict, marks

    return run


def _cell(surface, eps):
    return f"cell/test/pgd-l2_abs-un-{surface}-eps{names.number(eps)}-n50"


def trained(config, splits):
    trainer = Trainer(config, splits, Execution())
    while not trainer.done:
        trainer.epoch()
    return trainer.classifier.eval()


def test_logits_times_ten_thousand_mask_cross_entropy_and_nothing_else(audited, sce):
    model = copy.deepcopy(sce)
    model.head = Scaled(model.head)
    verdict, marks = audited(model, {"loss": "sce"})
    assert marks["ce_raw"] == names.MASKED
    assert names.MASKED not in (marks["margin_raw"], marks["dlr_raw"], verdict.mark)


def test_the_same_model_unscaled_is_not_masked(audited, sce):
    verdict, marks = audited(sce, {"loss": "sce"})
    assert names.MASKED not in (*marks.values(), verdict.mark)


def test_mmc_is_masked_under_cross_entropy_and_not_under_the_margin(audited, model_config, splits):
    verdict, marks = audited(trained(model_config("mmc"), splits), {"loss": "mmc"})
    assert marks["ce_raw"] == names.MASKED
    assert names.MASKED not in (marks["margin_raw"], verdict.mark)


def test_a_quantised_input_is_masked_on_every_surface(audited, sce):
    model = copy.deepcopy(sce)
    model.transform = Quantised()
    verdict, marks = audited(model, {"loss": "sce"})
    assert set(marks.values()) == {names.MASKED}
    assert verdict.mark == names.MASKED


def test_noise_at_the_output_is_masked(audited, sce):
    verdict, _ = audited(noisy(sce), {"loss": "sce"})
    assert verdict.mark == names.MASKED


def test_adversarial_training_is_trusted_within_its_ball(audited, model_config, splits):
    model = trained(model_config("sce", regime=AT, epochs=8), splits)
    verdict, marks = audited(model, {"loss": "sce", "regime": AT}, n=ENOUGH)
    assert verdict.mark == names.TRUSTED
    assert marks["margin_raw"] == names.TRUSTED
