import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from mouse_facelift.preprocess.journal import Journal


def contents(journal):
    return [(record.content["frame"], record.blobs()) for record in journal.news()]


def test_records_come_back_with_their_blobs(tmp_path):
    with Journal(tmp_path, "a") as journal:
        journal.append({"frame": 1}, [b"mask", b""])
        journal.append({"frame": 2})
        assert contents(journal) == [(1, [b"mask", b""]), (2, [])]


def test_only_news_is_given_again(tmp_path):
    with Journal(tmp_path, "a") as journal:
        journal.append({"frame": 1})
        assert contents(journal) == [(1, [])]
        assert contents(journal) == []
        journal.append({"frame": 2}, [b"x"])
        assert contents(journal) == [(2, [b"x"])]


def test_processes_see_each_other(tmp_path):
    with Journal(tmp_path, "a") as first, Journal(tmp_path, "b") as second:
        first.append({"frame": 1})
        second.append({"frame": 7})
        assert sorted(frame for frame, _ in contents(first)) == [1, 7]
        first.append({"frame": 2}, [b"late"])
        assert contents(second)[0] == (1, [])
        assert contents(first) == [(2, [b"late"])]


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 200))
def test_torn_record_is_dropped_and_written_over(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("journal")
    with Journal(folder, "a") as journal:
        for frame in range(3):
            journal.append({"frame": frame}, [b"x" * 20])
    path = folder / "a.journal"
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    with Journal(folder, "a") as journal:
        survivors = [frame for frame, _ in contents(journal)]
        assert survivors == list(range(len(survivors)))
        for frame in range(len(survivors), 3):
            journal.append({"frame": frame}, [b"x" * 20])
    assert path.read_bytes() == whole


def test_damaged_record_ends_the_file_there(tmp_path):
    with Journal(tmp_path, "a") as journal:
        for frame in range(3):
            journal.append({"frame": frame}, [b"x" * 20])
    path = tmp_path / "a.journal"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(bytes(damaged))
    assert [frame for frame, _ in contents(Journal(tmp_path, "a"))] == [0]


def test_empty_folder_holds_nothing(tmp_path):
    assert contents(Journal(tmp_path / "none", "a")) == []


def test_appending_needs_an_open_journal(tmp_path):
    with pytest.raises(AssertionError, match="not open"):
        Journal(tmp_path, "a").append({"frame": 1})
