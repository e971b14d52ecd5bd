"""Claims files: what they may hold, and mistakes that are all told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.claims.claim import Cells
from analysis.claims.file import read_claims
from analysis.published import TABLES, published
from analysis.published.match import ROWS
from trainables.errors import InvalidStudy

ONE = "id: a, claim: b, arm: c"


def told(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(InvalidStudy) as error:
        read_claims(path)
    return [str(mistake) for mistake in error.value.mistakes]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a", "expected claims: and a list, found ['a']"),
        ("claims: []", "claims: expected a list of claims, found []"),
        ("claims: {a: b}", "claims: expected a list of claims, found {'a': 'b'}"),
        ("a: [", "not readable as YAML at line 1, column 5: "),
        ("claim: []", "claim: unknown key; did you mean 'claims'? (valid: claims, scale)"),
        (f"claims: [{{{ONE}}}]", "claims.0: expected one of better_than, no_worse_than, "),
        (
            f"claims: [{{{ONE}, unmasked: true, better_than: [d]}}]",
            "found better_than, unmasked",
        ),
        ("claims: [{claim: b, arm: c, unmasked: true}]", "claims.0.id: missing"),
        ("claims: [{id: a, claim: b, unmasked: true}]", "claims.0: arm: missing"),
        ("claims: [a]", "claims.0: expected a mapping of keys, found 'a'"),
        (
            f"claims: [{{{ONE}, beter_than: [d]}}]",
            "claims.0.beter_than: unknown key; did you mean 'better_than'? (valid: id, claim, ",
        ),
        (
            f"claims: [{{{ONE}, unmasked: true, where: {{datset: mnist}}}}]",
            "claims.0.where.datset: unknown key; did you mean 'dataset'? (valid: dataset, ",
        ),
        (
            f"claims: [{{{ONE}, better_than: [d], under: headlin}}]",
            "claims.0.under.0: expected 'headline' or 'clean', found 'headlin'; did you mean "
            "'headline'?",
        ),
        (
            f"claims: [{{{ONE}, better_than: [d], under: [clean, {{tabel: 2}}]}}]",
            "claims.0.under.1.tabel: unknown key; did you mean 'table'? (valid: table, attack, ",
        ),
        (
            f"claims: [{{{ONE}, better_than: [d], under: {{table: 8}}}}]",
            "claims.0.under.0.table: expected a number less than or equal to 7, found 8",
        ),
        (
            f"claims: [{{{ONE}, better_than: [d], under: {{eps: 1}}}}]",
            "claims.0.under.0: expected table or attack",
        ),
        (
            f"claims: [{{{ONE}, better_than: [d], under: {{attack: pgd, eps: 1/0}}}}]",
            "claims.0.under.0.eps.0: expected a valid number, ",
        ),
        (f"claims: [{{{ONE}, better_than: [d], under: []}}]", "claims.0.under: "),
        (
            f"claims: [{{{ONE}, better_than: [d], margin: 2}}]",
            "claims.0: margin says nothing without no_worse_than or as_good_as",
        ),
        (f"claims: [{{{ONE}, within: [0, 1]}}]", "within says nothing without measure"),
        (
            f"claims: [{{{ONE}, within: [1, 0], measure: {{diagnostic: d, number: n}}}}]",
            "within: expected [low, high], found [1.0, 0.0]",
        ),
        (f"claims: [{{{ONE}, better_than: [d], cases: mots}}]", "did you mean 'most'?"),
        (f"claims: [{{{ONE}, unmasked: true, under: clean}}]", "is said of the headline alone"),
        ("claims: [{id: a, claim: b, positive: z}]", "positive says nothing without over"),
        (
            "claims: [{id: a, claim: b, positive: z, over: {s: [2, 1], m: 0, f: 1}}]",
            "claims.0.over: s: expected a number or [low, high], found [2.0, 1.0]",
        ),
        (
            "claims: [{id: a, claim: b, positive: z, over: {s: 0.5, m: 0, f: 1}}]",
            "expected s from 1, m from 0 and S above 0",
        ),
        (
            "claims: [{id: a, claim: b, positive: z, over: {s: 2, m: 0, f: 1, S: 0}}]",
            "expected s from 1, m from 0 and S above 0",
        ),
        (f"scale: smal\nclaims: [{{{ONE}, unmasked: true}}]", "claims.0.scale: expected 'full'"),
        (
            f"claims: [{{{ONE}, unmasked: true}}, {{{ONE}, unmasked: true}}]",
            "claims.1.id: 'a' is claims.0's already",
        ),
    ],
)
def test_mistakes_are_told_with_place_and_expectation(
    tmp_path: Path, text: str, expected: str
) -> None:
    (mistake,) = told(tmp_path, text)
    assert expected in mistake


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidStudy, match="not readable as YAML: FileNotFoundError"):
        read_claims(tmp_path / "none.yaml")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = (
        f"claims: [{{{ONE}}}, {{id: a, claim: b, arm: c, unmaskd: true}}, "
        "{id: d, claim: e, arm: f, better_than: [g], cases: few}]"
    )
    places = [mistake.split(": ")[0] for mistake in told(tmp_path, text)]
    assert places == ["claims.0", "claims.1.unmaskd", "claims.2.cases", "claims.1.id"]


def test_scale_holds_for_all_that_say_none(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    other = "{id: b, claim: b, arm: c, unmasked: true, scale: any}"
    path.write_text(f"scale: full\nclaims: [{{{ONE}, unmasked: true}}, {other}]")
    assert [claim.needs_all for claim in read_claims(path)] == [True, False]
    path.write_text(f"claims: [{{{ONE}, unmasked: true}}]")
    assert not read_claims(path)[0].needs_all


def test_the_papers_claims_are_claims() -> None:
    claims = read_claims()
    assert len(claims) == 37
    assert all(claim.source and claim.needs_all for claim in claims)
    known = {*ROWS, "norm-sce", "isce-raw", "chosen"}
    for claim in claims:
        assert {*claim.others} | {claim.arm} <= known | {""}, claim.id


def test_the_papers_claims_name_rows_and_columns_that_its_tables_have() -> None:
    tables = set()
    for claim in read_claims():
        for item in claim.under:
            if isinstance(item, Cells) and item.table:
                tables.add(item.table)
                datasets = {column.dataset for column in published(item.table).columns}
                wanted = {claim.where.dataset} & datasets or datasets
                assert all(item.printed(dataset) for dataset in wanted), claim.id
                rows = {*claim.others, claim.arm}
                assert rows <= set(published(item.table).methods), claim.id
    assert tables == set(TABLES)
