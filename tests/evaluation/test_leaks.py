"""What counts as trained on."""

from pathlib import Path

import pytest
from one_ball import FURTHER, RIG, write_ball

from mouse_facelift.errors import DataError
from mouse_facelift.evaluation.leaks import LeakGuard
from mouse_facelift.samples.format import Sample, read_sample
from mouse_facelift.samples.training_data import FILE, Rig, TrainingData


@pytest.fixture
def ball(tmp_path: Path):
    """Makes a sample of a frame; `where` keeps equal names apart."""

    def make(frame: int, recording: str = "ball", where: str = "data", azimuths=RIG) -> Sample:
        return read_sample(write_ball(tmp_path / where / f"sample_{frame:06d}", azimuths, frame, recording))

    return make


def judge(record: TrainingData | None, sample: Sample, view_id: int = 0, guard_frames: int = 0) -> str:
    return LeakGuard([record], guard_frames).verdicts(sample)[view_id]


def test_a_trained_frame_is_seen_in_a_copy_of_another_name(ball) -> None:
    record = TrainingData.of([ball(10)], list(RIG))
    assert judge(record, ball(10, where="elsewhere")) == "seen frame"


def test_a_frame_within_the_guard_is_seen(ball) -> None:
    record = TrainingData.of([ball(10)], list(RIG))
    assert judge(record, ball(13), guard_frames=3) == "seen frame"
    assert judge(record, ball(14), guard_frames=3) == "seen camera"


def test_the_same_frame_number_of_another_recording_is_clean(ball) -> None:
    record = TrainingData.of([ball(10)], list(RIG))
    other = ball(10, recording="monday", where="monday", azimuths={k: v + 7 for k, v in RIG.items()})
    assert judge(record, other) == "clean"


def test_a_held_out_camera_is_clean_and_a_further_one_too(ball) -> None:
    record = TrainingData.of([ball(10)], [0, 1])
    frame, truth = ball(50), ball(50, where="truth", azimuths=FURTHER)
    assert judge(record, frame, view_id=1) == "seen camera"
    assert judge(record, frame, view_id=3) == "clean"
    assert LeakGuard([record]).verdicts(frame, truth)[6] == "clean"


def test_no_record_and_no_recording_are_unknown(ball) -> None:
    record = TrainingData.of([ball(10)], list(RIG))
    assert judge(None, ball(50)) == "unknown"
    assert judge(record, ball(50, recording="", where="nameless")) == "unknown"


def test_training_samples_that_say_nothing_make_all_unknown(ball) -> None:
    record = TrainingData.of([ball(10, recording="", where="nameless")], [0])
    assert judge(record, ball(50)) == "unknown"


def test_weights_that_have_seen_nothing_are_clean_whatever_is_measured(ball) -> None:
    assert judge(TrainingData(()), ball(50, recording="", where="nameless")) == "clean"


def test_start_weights_of_unknown_training_make_it_unknown(ball) -> None:
    record = TrainingData.of([ball(10)], [0]).joined(TrainingData((), ("ab12",)))
    assert judge(record, ball(50)) == "unknown"
    assert judge(record, ball(10)) == "seen frame"


def test_what_the_start_weights_saw_counts(ball) -> None:
    record = TrainingData.of([ball(10)], [0]).joined(TrainingData.of([ball(50)], [0]))
    assert judge(record, ball(50)) == "seen frame"


def test_the_network_that_has_seen_most_counts(ball) -> None:
    clean, seen = TrainingData.of([ball(90)], [2]), TrainingData.of([ball(10)], [0])
    frame = ball(10)
    assert LeakGuard([clean, seen]).verdicts(frame)[0] == "seen frame"
    assert LeakGuard([clean, None]).verdicts(frame)[0] == "unknown"


def test_a_rig_is_known_again_at_another_scale_of_its_samples(ball, tmp_path: Path) -> None:
    assert Rig.of(ball(10)).may_be(Rig.of(ball(20)))
    assert Rig.of(ball(10)).centers_mm[0] == pytest.approx(Rig.of(ball(20)).centers_mm[0])


def test_a_record_comes_back_from_its_file(ball, tmp_path: Path) -> None:
    record = TrainingData.of([ball(10), ball(20)], [0, 2]).joined(TrainingData((), ("ab12",)))
    record.save(tmp_path)
    assert TrainingData.load(tmp_path) == record
    assert record.sets[0].held_out_views == (1, 3)
    assert TrainingData.load(tmp_path / "nowhere") is None


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"format": 1, "sets": [{}]}')
    with pytest.raises(DataError, match="not a record of training data"):
        TrainingData.load(tmp_path)
