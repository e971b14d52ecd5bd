"""Slices of a study."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.shard import Shard
from trainables.errors import BadOption

IDS = st.sets(st.text("0123456789abcdef", min_size=4, max_size=6))


@given(ids=IDS, count=st.integers(1, 20))
def test_slices_are_disjoint_even_and_whole_together(ids, count):
    slices = [Shard(index, count).of(ids) for index in range(1, count + 1)]
    assert sorted(id for part in slices for id in part) == sorted(ids)
    sizes = [len(part) for part in slices]
    assert max(sizes) - min(sizes) <= 1


@given(ids=IDS, count=st.integers(1, 20))
def test_a_slice_does_not_depend_on_the_order(ids, count):
    assert Shard(1, count).of(sorted(ids, reverse=True)) == Shard(1, count).of(ids)


@given(index=st.integers(1, 999), more=st.integers(0, 999))
def test_what_is_written_is_read_again(index, more):
    shard = Shard(index, index + more)
    assert Shard.parse(str(shard)) == shard


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "-1/4", "1/0", "1/4/2", "a/b", "1.5/4"])
def test_what_is_no_slice_is_refused(text):
    with pytest.raises(BadOption, match="expected one of N slices such as 3/16"):
        Shard.parse(text)
