import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from mouse_facelift.errors import ConfigError
from mouse_facelift.files import write_json
from mouse_facelift.preprocess.config import PreprocessConfig
from mouse_facelift.preprocess.workspace import Workspace, identify

MINE, OTHER = {"settings": {"size": 512, "scale": "fit"}, "inputs": {"0.mp4": "a"}}, None
OTHER = {"settings": {"size": 256, "scale": "fit"}, "inputs": {"0.mp4": "b"}}


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "out")


def take(workspace, identity):
    workspace.begin(identity)
    workspace.take_over()
    (workspace.output / "sample_000000").mkdir()


def test_unfinished_run_of_the_same_identity_goes_on(workspace):
    take(workspace, MINE)
    workspace.check(MINE, overwrite=False)
    workspace.begin(MINE)
    workspace.take_over()
    assert len(workspace.folders()) == 1


def test_other_settings_and_inputs_are_refused_by_name(workspace):
    take(workspace, MINE)
    with pytest.raises(ConfigError) as refusal:
        workspace.check(OTHER, overwrite=False)
    assert "settings.size: 512 there, 256 now" in str(refusal.value)
    assert "inputs.0.mp4: the file changed" in str(refusal.value)
    assert "scale" not in str(refusal.value)


def test_finished_run_is_known_by_its_manifest(workspace):
    write_json(workspace.output / "manifest.json", {"identity": MINE, "samples": []})
    assert workspace.is_complete(MINE)
    assert not workspace.is_complete(OTHER)
    with pytest.raises(ConfigError, match="other inputs or with other settings"):
        workspace.check(OTHER, overwrite=False)


def test_overwriting_removes_samples_only_when_taking_over(workspace):
    take(workspace, MINE)
    workspace.check(OTHER, overwrite=True)
    workspace.begin(OTHER)
    assert len(workspace.folders()) == 1
    workspace.take_over()
    assert workspace.folders() == []


def test_samples_of_unknown_origin_are_refused(workspace):
    (workspace.output / "sample_000000").mkdir(parents=True)
    with pytest.raises(ConfigError, match="--overwrite"):
        workspace.check(MINE, overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("run.json", '{"command": "train-gslrm"}', "belongs to `mfl train-gslrm`"),
        ("run.json", '{"mine": 1}', "not a run.json of mfl"),
        (".work/direct/scores.csv", "", "unfinished work of another command"),
        ("sample_000000/gaussians.ply", "", "is in the way, and is no sample"),
    ],
)
def test_what_another_command_wrote_is_never_replaced(workspace, file, content, message, overwrite):
    path = workspace.output / file
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        workspace.check(MINE, overwrite)
    assert path.read_text() == content


def test_lists_of_unknown_origin_are_replaced_only_if_asked_for(workspace):
    workspace.output.mkdir()
    (workspace.output / "data_train.txt").write_text("mine\n")
    with pytest.raises(ConfigError, match=r"of unknown origin.*--overwrite"):
        workspace.check(MINE, overwrite=False)
    workspace.check(MINE, overwrite=True)


def test_started_run_without_samples_is_in_nobodys_way(workspace):
    workspace.begin(OTHER)
    workspace.check(MINE, overwrite=False)


def test_foreign_files_survive(workspace):
    take(workspace, MINE)
    (workspace.output / "notes.txt").write_text("mine")
    workspace.begin(OTHER)
    workspace.take_over()
    workspace.abandon()
    assert [path.name for path in workspace.output.iterdir()] == ["notes.txt"]


def test_abandoned_empty_folder_disappears(workspace):
    workspace.begin(MINE)
    workspace.abandon()
    assert not workspace.output.exists()


def test_second_process_of_the_same_name_is_refused(workspace):
    workspace.begin(MINE)
    with (
        workspace.lock("shard_1_of_2"),
        workspace.lock("shard_2_of_2"),
        pytest.raises(ConfigError, match="another process"),
        workspace.lock("shard_1_of_2"),
    ):
        pass


def test_one_process_at_a_time_changes_the_folder_though_the_lock_comes_and_goes(workspace):
    inside, together = [], []
    workspace.output.mkdir()
    (workspace.output / "notes.txt").write_text("mine")

    def come_and_go(number):
        for _ in range(20):
            with workspace._alone():
                inside.append(number)
                together.append(len(inside))
                inside.remove(number)
            workspace.abandon()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(4)))
    assert together == [1] * 80
    assert [path.name for path in workspace.output.iterdir()] == ["notes.txt"]


def test_something_else_under_a_manifests_name_is_refused(workspace):
    workspace.output.mkdir()
    (workspace.output / "manifest.json").write_text("[]")
    with pytest.raises(ConfigError, match="not written by"):
        workspace.check(MINE, overwrite=True)


def test_identity_follows_content_and_not_place(tmp_path):
    def identity(parent, **settings):
        recording = tmp_path / parent / "rec"
        config = PreprocessConfig.model_validate(
            {"input": {"recording": recording}, "output": parent, **settings}
        )
        return json.loads(json.dumps(identify(config, {recording / "videos/0.mp4": "a"})))

    assert identity("a") == identity("b")
    assert identity("a") == identity("a", workers=3, overwrite=True)
    assert identity("a") != identity("a", size=256)
