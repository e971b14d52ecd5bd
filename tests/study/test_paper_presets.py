"""The presets of the paper: its rows and columns, all of them, and each model once."""

import pytest

from analysis.plan import Plan as Described
from analysis.published import TABLES, published
from analysis.published.match import column_of, row_of
from study.describe import describe
from study.files import BASES, FULL, PRESETS, presets, read_study
from study.plan import make_plan
from trainables import names

FIGURES = ("figure3", "figure4")
PARTS = (*FIGURES, *(f"table{number}" for number in TABLES))
SCALES = (FULL, "small", "tiny")
CONTROLS = {"norm-sce", "isce-raw"}


@pytest.fixture(scope="module")
def plans():
    """Every preset of the paper as planned, at either scale."""
    return {
        (name, scale): make_plan(read_study(name, (), scale))
        for name in (*PARTS, "paper")
        for scale in SCALES
    }


@pytest.mark.parametrize("number", TABLES)
def test_a_table_has_the_papers_rows_and_columns_and_the_controls(plans, number):
    plan = Described(describe(plans[f"table{number}", FULL], "study run"))
    table = published(number)
    rows, columns, others = set(), set(), set()
    for group in plan.groups:
        cells = [c for c in plan.protocol(group).cells if c.split == names.TEST and not c.check]
        found = {column_of(cell, group, group.backbone) for cell in cells}
        columns |= found & set(table.columns)
        trials = [t for t in plan.trials if t["dataset"] == group.dataset]
        of_group = {row_of(trial["params"]) for trial in trials}
        assert set(table.methods) <= of_group, group
        rows |= of_group
        others |= {m for t in trials for m in t["methods"] if row_of(t["params"]) is None}
    assert columns == set(table.columns)
    assert rows - {None} == set(table.methods)
    assert others == CONTROLS


def test_paper_is_the_union_of_its_parts_and_trains_each_model_once(plans):
    for scale in SCALES:
        whole = plans["paper", scale]
        parts = [plans[name, scale] for name in PARTS]
        assert set(whole.by_id) == {trial for part in parts for trial in part.by_id}
        assert len(whole.trials) == len(whole.by_id)
        for part in parts:
            for trial in part.trials:
                wanted = set(trial.cell_ids.values())
                assert wanted <= set(whole.by_id[trial.id].cell_ids.values())


def test_the_scale_reaches_no_id(tmp_path):
    """A study written out at the small scale's size has its ids."""
    text = (PRESETS / "table5.yaml").read_text()
    small = {
        "data": "mnist5k",
        "seeds": 2,
        "evaluate": "{validation: 200, test: 200}",
        "training.epochs": 12,
        "attacks.ball.eps": 1.0,
        "attacks.ball.steps": 40,
        "audit.queries": 1000,
        "methods.random.evaluate": "{validation: 20, test: 50}",
        "methods.at-linf.regime.eps": 0.2,
        "methods.at-linf.regime.alpha": 0.05,
        "methods.at-linf.regime.steps": 10,
        "methods.at-l2.regime.alpha": 0.6,
        "methods.at-l2.regime.steps": 5,
    }
    path = tmp_path / "written.yaml"
    path.write_text(text)
    written = make_plan(read_study(str(path), [f"{key}={value}" for key, value in small.items()]))
    scaled = make_plan(read_study("table5", (), "small"))
    assert (written.name, scaled.name) == ("table5", "table5@small")
    assert written.by_id.keys() == scaled.by_id.keys()
    for trial in written.trials:
        assert trial.cell_ids == scaled.by_id[trial.id].cell_ids


def test_small_studies_fit_a_laptop(plans):
    for (_, scale), plan in plans.items():
        for trial in plan.trials:
            if scale != FULL:
                assert trial.model.backbone.name in ("lenet5", "cnn8")
                assert trial.model.training.epochs <= 12
                assert trial.seeds <= 2


def test_every_reading_of_epsilon_stands_in_the_tables_of_pgd(plans):
    for number in (1, 2, 5, 6):
        plan = plans[f"table{number}", FULL]
        (protocol,) = plan.protocols.values()
        readings = {
            cell.columns.budget for cell in protocol.cells if cell.label == "pgd" and cell.columns
        }
        assert readings == {"path_linf", "l2_rms", "l2_abs"}
        assert protocol.leading.budget == "l2_abs"


READINGS = {  # of METHODS 3
    *("path_l2, kappa 1.0", "path_l2, kappa 3.0", "path_l2, kappa 6.0"),
    *("path_linf, kappa 0.5", "path_linf, kappa 1.0", "l2_abs", "l2_rms", "l2_rel", "linf"),
}


@pytest.mark.parametrize("scale", SCALES)
def test_calibrate_fills_table_5_in_every_reading_with_its_models(plans, scale):
    whole, table5 = make_plan(read_study("calibrate", (), scale)), plans["table5", scale]
    assert whole.by_id.keys() == table5.by_id.keys()
    plan = Described(describe(whole, "study run"))
    (group,) = plan.groups
    filled: dict[str, set] = {}
    for cell in plan.protocol(group).cells:
        column = column_of(cell, group, "lenet5")
        if cell.attack == "pgd" and cell.split == names.TEST:
            assert cell.surface == "ce_deployed"
            title = ", ".join([cell.budget, *(f"{key} {value}" for key, value in cell.extra)])
            filled.setdefault(title, set()).add(column)
    attacked = {column for column in published(5).columns if not column.is_clean}
    assert filled == dict.fromkeys(READINGS, attacked)
    assert not any(cell.check for cell in plan.protocol(group).cells)  # the audit is table5's


def test_calibrate_reaches_no_other_preset(plans):
    """What table5 measures too has the same ids; the other readings are nobody else's."""
    whole, table5 = make_plan(read_study("calibrate", ())), plans["table5", FULL]
    for trial in whole.trials:
        theirs = table5.by_id[trial.id].cell_ids
        both = trial.cell_ids.keys() & theirs.keys()
        assert {name: trial.cell_ids[name] for name in both} == {n: theirs[n] for n in both}
        assert len(both) < len(trial.cell_ids)
    for (name, _), plan in plans.items():
        cells = [cell for protocol in plan.protocols.values() for cell in protocol.cells]
        budgets = {cell.columns.budget for cell in cells if cell.columns}
        assert budgets.isdisjoint({"path_l2", "l2_rel"}), name


def test_bases_are_no_presets_and_each_is_extended():
    bases = {path.stem for path in BASES.glob("*.yaml")}
    assert bases.isdisjoint(presets())
    texts = "".join(path.read_text() for path in presets().values())
    assert all(base in texts for base in bases)
