import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mouse_facelift.capture.calibration import load_pickle, read_calibration
from mouse_facelift.errors import CalibrationError
from mouse_facelift.geometry import look_at_rotation

SIZE = (640, 480)


def rig(count=4):
    """A ring of cameras that look at the middle, as a calibration stores them."""
    entries = []
    for angle in np.arange(count) * 2 * np.pi / count:
        center = np.array([300 * np.cos(angle), 300 * np.sin(angle), 120])
        R = look_at_rotation(-center)
        K = np.array([[900.0, 0, 310], [0, 905, 250], [0, 0, 1]])
        entries.append({"R": R, "T": -R @ center, "K": K})
    return entries


def save(path, content, protocol=3):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.fixture
def read(tmp_path):
    def read(content, count=4, protocol=3):
        return read_calibration(save(tmp_path / "new_cam.pkl", content, protocol), [SIZE] * count)

    return read


def refused(read, index, **changes):
    entries = rig()
    entries[index] = {**entries[index], **changes}
    with pytest.raises(CalibrationError) as error:
        read(entries)
    assert "new_cam.pkl" in str(error.value)
    assert f"camera {index}" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol_are_read(read, protocol):
    cameras = read(rig(), protocol=protocol)
    np.testing.assert_array_equal(cameras[2].R, rig()[2]["R"])
    np.testing.assert_array_equal(cameras[2].t, rig()[2]["T"])


def test_integer_centres_become_half_pixel_centres_once(read):
    K = read(rig())[0].K
    np.testing.assert_array_equal(K, [[900, 0, 310.5], [0, 905, 250.5], [0, 0, 1]])


@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 3)])
def test_translation_shapes(read, shape):
    entries = [{**entry, "T": entry["T"].reshape(shape)} for entry in rig()]
    np.testing.assert_array_equal(read(entries)[1].t, rig()[1]["T"])


@pytest.mark.parametrize("key", [int, str])
def test_dict_of_cameras_is_ordered_by_number_not_by_text(read, key):
    entries = rig(12)
    content = {key(i): entries[i] for i in reversed(range(12))}
    for camera, entry in zip(read(content, 12), entries, strict=True):
        np.testing.assert_array_equal(camera.R, entry["R"])


def test_nested_lists_instead_of_arrays(read):
    content = [{name: value.tolist() for name, value in entry.items()} for entry in rig()]
    np.testing.assert_array_equal(read(content)[3].R, rig()[3]["R"])


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pickle_is_named_and_never_run(read, tmp_path, protocol):
    marker = tmp_path / "ran"
    with pytest.raises(CalibrationError, match=r"'(builtins|__builtin__)\.exec'"):
        read([*rig(), Payload(marker)], 5, protocol)
    assert not marker.exists()


@given(
    cut=st.integers(0, 2000), flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 255)), max_size=4)
)
@settings(max_examples=150, deadline=None)
def test_damaged_pickles_never_crash(tmp_path_factory, cut, flips):
    content = bytearray(pickle.dumps(rig(), protocol=3))
    for position, change in flips:
        content[position % len(content)] ^= change
    path = tmp_path_factory.mktemp("damaged") / "new_cam.pkl"
    path.write_bytes(content[: max(1, len(content) - cut % len(content))])
    try:
        load_pickle(path)
    except CalibrationError as error:
        assert str(path) in str(error)


def test_missing_file(tmp_path):
    with pytest.raises(CalibrationError, match="cannot be read"):
        read_calibration(tmp_path / "new_cam.pkl", [SIZE] * 4)


def test_camera_count_must_be_that_of_the_videos(read):
    with pytest.raises(CalibrationError, match="holds 4 cameras, but there are 6 videos"):
        read(rig(), 6)


@pytest.mark.parametrize("content", [[1, 2, 3, 4], "text", {"a": 1}, [{"R": 0}] * 4, None])
def test_other_content_is_described(read, content):
    with pytest.raises(CalibrationError, match=r"new_cam\.pkl"):
        read(content)


def test_nan(read):
    K = rig()[1]["K"].copy()
    K[0, 0] = np.nan
    assert "K holds NaN" in refused(read, 1, K=K)


def test_mirror(read):
    assert "determinant -1" in refused(read, 2, R=np.diag([1, 1, -1]) @ rig()[2]["R"])


def test_singular_rotation(read):
    R = rig()[0]["R"].copy()
    R[2] = R[1]
    assert "singular" in refused(read, 0, R=R)


def test_sheared_rotation(read):
    assert "not orthonormal" in refused(read, 3, R=rig()[3]["R"] @ np.diag([1, 1, 1.1]))


def test_transposed_intrinsics(read):
    assert "K is transposed" in refused(read, 0, K=rig()[0]["K"].T)


def test_dummy_camera(read):
    message = refused(read, 0, R=np.eye(3), T=np.array([0, 0, 1000.0]))
    assert "identity" in message


def test_intrinsics_of_a_quarter_size_copy(read):
    message = refused(read, 2, K=np.diag([0.25, 0.25, 1]) @ rig()[2]["K"])
    assert "another resolution" in message
    assert "640x480" in message


def test_principal_point_outside_the_picture(read):
    K = rig()[1]["K"].copy()
    K[0, 2] = 1300
    assert "principal point" in refused(read, 1, K=K)


def test_focal_length_in_millimetres(read):
    assert "focal length" in refused(read, 1, K=np.array([[12.0, 0, 310], [0, 12, 250], [0, 0, 1]]))


def test_metres_are_noticed(read):
    with pytest.raises(CalibrationError, match="metres"):
        read([{**entry, "T": entry["T"] / 1000} for entry in rig()])


def test_one_camera_copied_over_another(read):
    entries = rig()
    entries[3] = entries[0]
    with pytest.raises(CalibrationError, match="same place"):
        read(entries)


def test_world_with_another_up_is_reported(read, caplog):
    y_up = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0.0]])
    read([{**entry, "R": entry["R"] @ y_up} for entry in rig()])
    assert "up direction" in caplog.text
