"""Each schedule against torch's own, step by step."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.optim import lr_scheduler

from trainables import registry
from trainables.config import Training
from trainables.schedules.cosine import Cosine
from trainables.schedules.one_cycle import OneCycle
from trainables.schedules.step import Step

TOTAL, LR = 40, 0.3
REFERENCES = [
    ({"name": "constant"}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    ({"name": "step"}, lambda o: lr_scheduler.MultiStepLR(o, [20, 30])),
    (
        {"name": "step", "milestones": [0.25], "gamma": 0.5},
        lambda o: lr_scheduler.MultiStepLR(o, [10], gamma=0.5),
    ),
    ({"name": "cosine"}, lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL)),
    (
        {"name": "cosine", "floor": 0.1},
        lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=0.1 * LR),
    ),
    (
        {"name": "one_cycle"},
        lambda o: lr_scheduler.OneCycleLR(o, LR, total_steps=TOTAL, cycle_momentum=False),
    ),
    (
        {"name": "one_cycle", "warmup": 0.5, "div": 10, "final_div": 100},
        lambda o: lr_scheduler.OneCycleLR(
            o,
            LR,
            total_steps=TOTAL,
            pct_start=0.5,
            div_factor=10,
            final_div_factor=100,
            cycle_momentum=False,
        ),
    ),
]


@pytest.mark.parametrize(("spec", "reference"), REFERENCES, ids=map(str, range(len(REFERENCES))))
def test_rates_are_those_of_torch(spec, reference):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = reference(optimizer)
    schedule = registry.build("schedule", spec)
    for step in range(TOTAL):
        expected = optimizer.param_groups[0]["lr"]
        assert LR * schedule.factor(step, TOTAL) == pytest.approx(expected, rel=1e-9), step
        optimizer.step()
        if step < TOTAL - 1:
            scheduler.step()


def test_references_cover_every_schedule():
    assert {spec["name"] for spec, _ in REFERENCES} == set(registry.names("schedule"))


@pytest.mark.parametrize("cls", list(registry.every("schedule")), ids=lambda cls: cls.name)
@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_short_trainings_have_a_rate_at_every_step(cls, total):
    assert all(0 < cls().factor(step, total) <= 1 for step in range(total))


def test_training_takes_a_schedule_by_name_or_with_parameters():
    assert Training(schedule="cosine").schedule == Cosine()
    assert Training(schedule={"name": "step", "milestones": [0.3]}).schedule == Step(
        milestones=(0.3,)
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("cosin", "did you mean 'cosine'"),
        ({"name": "cosine", "floor": 2}, "floor"),
        (3, "expected the name of a schedule"),
    ],
)
def test_wrong_schedules_are_told(wrong, told):
    with pytest.raises(ValidationError, match=told):
        Training(schedule=wrong)


def test_the_constant_schedule_reaches_no_id_and_others_do():
    assert "schedule" not in Training().identity()
    assert Training(schedule=OneCycle()).identity()["schedule"]["component"] == "schedule/one_cycle"


@pytest.mark.parametrize("cls", list(registry.every("schedule")), ids=lambda cls: cls.name)
def test_a_single_step_is_taken_at_the_full_rate(cls):
    assert cls().factor(0, 1) == 1
