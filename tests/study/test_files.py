"""Reading study files: numbers as people write them, and what YAML gets wrong."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from study.files import (
    CannotWrite,
    StudyFileNotFound,
    presets,
    read_study,
    standalone,
    write_copy,
)
from study.loader import GONE, dump_yaml, load_yaml, plain_number
from trainables.errors import InvalidStudy


def read(tmp_path, text, *overrides):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    return read_study(str(path), overrides)


@pytest.mark.parametrize(
    ("written", "number"),
    [("1e-3", 1e-3), ("8/255", 8 / 255), ("1E3", 1000), (".5", 0.5), ("-2e-1", -0.2), ("3", 3)],
)
def test_numbers_as_people_write_them(tmp_path, written, number):
    assert read(tmp_path, f"study: a\nx: {written}").data["x"] == pytest.approx(number, rel=1e-11)


@pytest.mark.parametrize("text", ["1/0", "a/b", "1e", "1.2.3", "l2_rms"])
def test_other_text_stays_text(tmp_path, text):
    assert read(tmp_path, f"study: a\nx: {text}").data["x"] == text


@given(value=st.floats(-1e9, 1e9, allow_nan=False))
@settings(deadline=None, derandomize=True)
def test_plain_numbers_keep_twelve_digits(value):
    assert plain_number(value) == float(f"{value:.12g}")


@pytest.mark.parametrize("text", ["'8/255'", '"1e-3"', "'7'"])
def test_what_is_quoted_stays_text(tmp_path, text):
    assert read(tmp_path, f"study: a\nx: {text}").data["x"] == text.strip("'\"")


@pytest.mark.parametrize(
    "text",
    ["x: &a [*a]", "x: " + "[" * 2000, "x: 2026-99-99", "x: !!int y", "x: !!float y",
     "x: " + "9" * 6000, "x: !!bool abc", "{a, b}: 1", "? [1]\n: 2", "x: !!set 3"],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_odd_yaml_is_a_mistake_and_no_crash(tmp_path, text):
    with pytest.raises(InvalidStudy, match="YAML"):
        read(tmp_path, f"study: a\n{text}")


def test_merge_keys_work(tmp_path):
    data = read(tmp_path, "study: a\nb: &b {x: 1, y: 2}\nc: {<<: *b, x: 3}").data
    assert data["c"] == {"x": 3, "y": 2}


def test_a_file_that_is_no_text_is_told(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyFileNotFound, match="is no text file"):
        read_study(str(tmp_path / "a.yaml"))


def test_whole_numbers_are_ints(tmp_path):
    assert type(read(tmp_path, "study: a\nx: 1e2").data["x"]) is int


def test_a_key_read_as_a_boolean_is_diagnosed(tmp_path):
    with pytest.raises(InvalidStudy, match=r"found True .*quote the key"):
        read(tmp_path, "study: a\non: 3")


def test_a_key_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(InvalidStudy, match=r"line 3.*'x' stands twice"):
        read(tmp_path, "study: a\nx: 1\nx: 2")


def test_python_objects_are_not_made(tmp_path):
    with pytest.raises(InvalidStudy, match="not readable as YAML"):
        read(tmp_path, "study: !!python/object/apply:os.system ['true']")


def test_overrides_reach_any_depth_and_make_what_is_missing(tmp_path):
    file = read(tmp_path, "study: a\nt: {x: 1}", "t.x=2e-1", "u.v.w=[1, 8/255]")
    assert file.data["t"] == {"x": 0.2}
    assert file.data["u"]["v"]["w"] == [1, pytest.approx(8 / 255)]


@pytest.mark.parametrize("override", ["novalue", "=1", "study.x=1", "a=[1"])
def test_a_malformed_override_is_told(tmp_path, override):
    with pytest.raises(InvalidStudy) as error:
        read(tmp_path, "study: a", override)
    assert f"--set {override}" in str(error.value)


def test_an_unknown_file_names_the_nearest_preset():
    with pytest.raises(StudyFileNotFound, match="did you mean 'quickstart'"):
        read_study("quickstar")


@pytest.mark.parametrize("name", presets())
def test_presets_are_yaml_named_after_their_file(name):
    file = read_study(name)
    assert file.name == name
    assert next(yaml.safe_load_all(file.text))["study"] == name
    assert file.data["question"]


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return str(folder / f"{next(iter(files))}.yaml")


def test_a_file_extends_another(tmp_path):
    base = "study: base\nseeds: 2\ntraining: {epochs: 3, lr: 1e-3}\n# why so"
    path = write(
        tmp_path, a="extends: base.yaml\nstudy: a\ntraining: {epochs: 1}", **{"base": base}
    )
    file = read_study(path)
    assert file.data == {"study": "a", "seeds": 2, "training": {"epochs": 1, "lr": 1e-3}}
    assert "extends: base.yaml" in file.text and "# why so" in file.text


def test_of_several_that_a_file_extends_the_later_leads(tmp_path):
    files = {"b": "x: 1\ny: {u: 1}", "c": "x: 2\ny: {v: 2}"}
    path = write(tmp_path, a="study: a\nextends: [b.yaml, c.yaml]", **files)
    assert read_study(path).data == {"study": "a", "x": 2, "y": {"u": 1, "v": 2}}


@pytest.mark.parametrize("named", ["b", "[[b]]", "quickstrat", "3"])
def test_what_is_extended_must_be_there(tmp_path, named):
    with pytest.raises(InvalidStudy, match="extends: expected a preset or a file beside"):
        read_study(write(tmp_path, a=f"study: a\nextends: {named}"))


def test_nothing_extends_itself(tmp_path):
    path = write(tmp_path, a="study: a\nextends: b.yaml", b="extends: a.yaml")
    with pytest.raises(InvalidStudy, match="extends itself"):
        read_study(path)


SCALED = "study: a\nseeds: 5\ntraining: {epochs: 9, lr: 1}\nscales: {small: {training.epochs: 1}}"


def test_a_scale_is_laid_over_the_file(tmp_path):
    path = write(tmp_path, a=SCALED)
    small, full = read_study(path, (), "small"), read_study(path)
    assert (small.name, full.name) == ("a@small", "a")
    assert small.data == {"study": "a", "seeds": 5, "training": {"epochs": 1, "lr": 1}}
    assert full.data["training"] == {"epochs": 9, "lr": 1}
    assert read_study(path, ("training.epochs=4",), "small").data["training"]["epochs"] == 4


def test_scales_are_extended_too(tmp_path):
    path = write(tmp_path, b="study: b\nextends: a.yaml\nscales: {small: {seeds: 1}}", a=SCALED)
    small = read_study(path, (), "small")
    assert (small.data["seeds"], small.data["training"]["epochs"]) == (1, 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SCALED, "no scale 'smal' in this file; did you mean 'small'"),
        ("study: a", "there are: full"),
        ("study: a\nscales: 3", "scales: expected keys by scale, found 3"),
        ("study: a\nscales: {smal: 3}", "scales.smal: expected keys, found 3"),
    ],
)
def test_scales_that_are_not_there_are_told(tmp_path, text, told):
    with pytest.raises(InvalidStudy) as error:
        read_study(write(tmp_path, a=text), (), "smal")
    assert told in str(error.value)


def test_a_union_has_its_parts_at_its_scale(tmp_path):
    path = write(tmp_path, u="study: u\nunion: [a.yaml, b.yaml]", a=SCALED, b=SCALED)
    file = read_study(path, ("training.lr=3", "question=why"), "small")
    assert file.name == "u@small" and file.question == "why"
    assert [part.data["training"] for part in file.parts] == [{"epochs": 1, "lr": 3}] * 2
    assert "question" not in file.parts[0].data


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("union: 3", "union: expected a list of studies, found 3"),
        ("union: []", "union: expected a list"),
        ("union: [c.yaml]", "union.0: expected a preset or a file"),
        ("union: [v.yaml]", "union.0: 'v.yaml' is a union itself"),
    ],
)
def test_unions_of_what_is_not_there_are_told(tmp_path, text, told):
    path = write(tmp_path, u=f"study: u\n{text}", v="study: v\nunion: [a.yaml]", a=SCALED)
    with pytest.raises(InvalidStudy) as error:
        read_study(path)
    assert told in str(error.value)


@pytest.mark.parametrize("preset", presets())
def test_a_copy_of_a_preset_is_the_same_study_under_its_own_name(tmp_path, preset):
    write_copy(preset, tmp_path / "mine.yaml")
    copy, original = read_study(str(tmp_path / "mine.yaml")), read_study(preset)
    assert copy.name == "mine"
    assert {**copy.data, "study": preset} == original.data
    assert [part.source for part in copy.parts] == [part.source for part in original.parts]
    assert (tmp_path / "mine.yaml").read_text().count("#") == original.text.split("---")[0].count(
        "#"
    )


def test_a_copy_replaces_nothing_and_says_what_is_wrong(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("precious")
    with pytest.raises(CannotWrite, match="File exists"):
        write_copy("quickstart", path)
    assert path.read_text() == "precious"
    with pytest.raises(CannotWrite, match="No such file"):
        write_copy("quickstart", tmp_path / "nowhere" / "mine.yaml")
    with pytest.raises(StudyFileNotFound, match="did you mean 'quickstart'"):
        write_copy("quickstar", tmp_path / "other.yaml")
    with pytest.raises(InvalidStudy, match="expected a name of letters"):
        write_copy("quickstart", tmp_path / "a b.yaml")
    assert list(tmp_path.iterdir()) == [path]


KEYS = st.from_regex(r"[a-z]{1,3}", fullmatch=True)
NUMBERS = st.integers() | st.floats(-1e9, 1e9, allow_nan=False).map(plain_number)
TEXTS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=12)
DATA = st.recursive(
    NUMBERS | TEXTS | st.sampled_from(["1e-3", "8/255", "null", "on", "7", GONE, None, True]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(DATA)
def test_what_is_written_is_read_as_the_same(data):
    mistakes = []
    assert load_yaml(dump_yaml({"data": data}), "", mistakes) == {"data": data}
    assert not mistakes


def read_alone(folder, file):
    """A study read from nothing but the files that it stands in by itself."""
    written = standalone(file)
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")
    return read_study(str(folder / next(iter(written))), file.overrides, file.scale)


@pytest.mark.parametrize("preset", presets())
def test_a_study_that_stands_alone_is_the_same_at_every_scale(tmp_path, preset):
    plain = read_study(preset)
    scales = {scale for file in plain.parts or (plain,) for scale in file.plain.get("scales") or ()}
    for scale in {"full", *scales}:
        file = read_study(preset, ("seeds=7", "question=Why?"), scale)
        alone = read_alone(tmp_path, file)
        assert (alone.name, alone.data, alone.figures) == (file.name, file.data, file.figures)
        assert [part.data for part in alone.parts] == [part.data for part in file.parts]
        assert plain.text.splitlines()[-1] in alone.text  # its comments say why


def test_what_was_taken_away_stays_away_from_rules_and_scales(tmp_path):
    base = (
        "study: base\ndata: mnist\nbackbone: lenet5\nmethods: {a: {loss: sce}, b: {loss: isce}}\n"
        "scales: {small: {methods.b.seeds: 1}}\n"
        "when: [{if: {data: mnist}, set: {methods.b.seeds: 3}}]"
    )
    path = write(tmp_path, mine="study: mine\nextends: base.yaml\nmethods: {b: null}", base=base)
    file = read_study(path, (), "small")
    (tmp_path / "there").mkdir()
    alone = read_alone(tmp_path / "there", file)
    assert alone.data == file.data
    assert alone.data["methods"]["b"] is GONE
