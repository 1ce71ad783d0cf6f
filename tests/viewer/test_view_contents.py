"""What paths hold."""

import logging
from pathlib import Path

import pytest
from things_to_view import cloud, make_result, make_sample, make_sequence

from mouse_facelift.errors import DataError
from mouse_facelift.samples.format import write_list
from mouse_facelift.viewer.config import settings
from mouse_facelift.viewer.contents import Group, find_groups


def names(groups: list[Group]) -> dict[str, list[str]]:
    return {group.name: [moment.name for moment in group.moments] for group in groups}


def test_ply_result_folder_and_folder_of_results_are_found(tmp_path: Path) -> None:
    cloud().save_ply(tmp_path / "other.ply")
    for frame in (18, 54):
        make_result(tmp_path / f"direct/sample_{frame:06d}", frame)
    assert names(find_groups([tmp_path / "other.ply"])) == {"other": ["other"]}
    one = tmp_path / "direct/sample_000018"
    assert names(find_groups([one])) == names(find_groups([one / "gaussians.ply"]))
    assert names(find_groups([one])) == {"sample_000018": ["sample_000018"]}
    both = {"direct": ["sample_000018", "sample_000054"]}
    assert names(find_groups([tmp_path / "direct"])) == both


def test_results_follow_each_other_in_the_order_of_frames(tmp_path: Path) -> None:
    for name, frame in (("a", 30), ("b", 10), ("c", 20)):
        make_result(tmp_path / name, frame)
    assert [m.frame_index for m in find_groups([tmp_path])[0].moments] == [10, 20, 30]


def test_methods_beside_each_other_are_groups_joined_with_their_samples(tmp_path: Path) -> None:
    for method in ("direct", "e2e"):
        make_result(tmp_path / method / "sample_000018", 18)
    make_sample(tmp_path / "samples/sample_000000", 0)
    make_sample(tmp_path / "samples/sample_000018", 18)
    groups = find_groups([tmp_path])
    assert names(groups) == {"direct": ["sample_000018"], "e2e": ["sample_000018"]}
    for group in groups:
        assert group.moments[0].sample == tmp_path / "samples/sample_000018"


def test_places_of_one_name_are_told_apart_and_a_place_given_twice_is_shown_once(tmp_path: Path) -> None:
    paths = [make_result(tmp_path / method / "sample_000018") for method in ("direct", "e2e")]
    assert list(names(find_groups([*paths, paths[0]]))) == ["direct/sample_000018", "e2e/sample_000018"]


def test_sequence_is_joined_with_samples_by_frame_and_read_lazily(tmp_path: Path) -> None:
    folder = make_sequence(tmp_path / "results/sequence", range(5, 8))
    sample = make_sample(tmp_path / "sample_000001", 6)
    for path in (folder, folder / "gaussians.npz", folder.parent):
        (group,) = find_groups([path, sample])
        assert [moment.name for moment in group.moments] == ["frame 5", "frame 6", "frame 7"]
        assert [moment.sample for moment in group.moments] == [None, sample, None]
        assert group.moments[1].read is not None
        assert len(group.moments[1].read()) == 50


def test_samples_alone_are_a_folder_a_list_or_one_sample(tmp_path: Path) -> None:
    folders = [make_sample(tmp_path / f"sample_{number:06d}") for number in range(2)]
    write_list(tmp_path / "data_val.txt", folders[1:])
    assert names(find_groups([tmp_path])) == {"samples": ["sample_000000", "sample_000001"]}
    assert names(find_groups([tmp_path / "data_val.txt"])) == {"samples": ["sample_000001"]}
    assert names(find_groups([folders[0]])) == {"samples": ["sample_000000"]}
    assert all(moment.read is None for moment in find_groups([tmp_path])[0].moments)


def test_one_ply_and_one_sample_belong_together_whatever_they_are_called(tmp_path: Path) -> None:
    cloud().save_ply(tmp_path / "mine.ply")
    sample = make_sample(tmp_path / "sample_000007")
    (group,) = find_groups([tmp_path / "mine.ply", sample])
    assert group.moments[0].sample == sample


def test_samples_of_other_results_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for frame in (1, 2):
        make_result(tmp_path / f"out/sample_{frame:06d}", frame)
    sample = make_sample(tmp_path / "sample_000009", 9)
    with caplog.at_level(logging.WARNING):
        (group,) = find_groups([tmp_path / "out", sample])
    assert all(moment.sample is None for moment in group.moments)
    assert "sample_000009" in caplog.text
    assert "sample_000001" in caplog.text


def test_second_sample_of_a_name_is_left_out_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folders = [make_sample(tmp_path / place / "sample_000000") for place in "ab"]
    with caplog.at_level(logging.WARNING):
        (group,) = find_groups([*folders, folders[0]])
    assert [moment.sample for moment in group.moments] == folders[:1]
    assert caplog.text.count("is left out") == 1


def test_hidden_folders_of_killed_commands_are_not_results(tmp_path: Path) -> None:
    make_result(tmp_path / ".sample_000012.ol189v57")
    make_result(tmp_path / "sample_000013")
    assert names(find_groups([tmp_path])) == {tmp_path.name: ["sample_000013"]}


def test_rig_frame_is_told_by_metrics_or_else_by_the_run(tmp_path: Path) -> None:
    make_result(tmp_path / "a", 1, "rig")
    make_result(tmp_path / "b", 2)
    assert [m.in_rig for m in find_groups([tmp_path])[0].moments] == [True, False]
    for name in "ab":
        (tmp_path / name / "metrics.json").unlink()
    (tmp_path / "run.json").write_text('{"config": {"output_frame": "rig"}}')
    assert [m.in_rig for m in find_groups([tmp_path])[0].moments] == [True, True]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("nothing", "no such file or folder"),
        ("empty", "an empty folder"),
        ("full", r"a folder with a\.mp4, b\.mp4, c\.mp4, d\.mp4, \.\.\."),
        ("full/a.mp4", r"a file of kind '\.mp4'"),
    ],
)
def test_what_is_found_and_what_was_expected_is_told(tmp_path: Path, path: str, found: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    for name in "abcde":
        (tmp_path / f"full/{name}.mp4").touch()
    with pytest.raises(
        DataError, match=rf"{path}: found {found}; `mfl view` shows a PLY .* a list of samples"
    ):
        find_groups([tmp_path / path])


def test_broken_similarity_is_told(tmp_path: Path) -> None:
    (make_result(tmp_path / "a") / "metrics.json").write_text('{"world_from_model": [[1, 2], [3]]}')
    with pytest.raises(DataError, match=r"world_from_model is .* expected 4x4"):
        find_groups([tmp_path])


def test_arguments_are_paths_unless_they_set_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=3").mkdir()
    assert settings(["a", "fps=3", "lr=3"]) == ['paths=["a", "lr=3"]', "fps=3"]
    assert settings(["fps=3"]) == ["fps=3"]
