import pytest
from hypothesis import given
from hypothesis import strategies as st

from mouse_facelift.errors import ConfigError
from mouse_facelift.preprocess.shard import SINGLE, Shard


@given(items=st.lists(st.integers()), count=st.integers(1, 9))
def test_shares_together_are_everything_in_order(items, count):
    shares = [Shard(index, count).share(items) for index in range(1, count + 1)]
    assert [item for share in shares for item in share] == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_single_process_has_all():
    assert SINGLE.share([1, 2, 3]) == [1, 2, 3]


def test_text_is_read():
    assert Shard.parse("3/8") == Shard(3, 8)
    assert Shard(3, 8).name != Shard(8, 8).name


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1/4/2", ""])
def test_nonsense_is_refused(text):
    with pytest.raises(ConfigError, match="expected i/n"):
        Shard.parse(text)
