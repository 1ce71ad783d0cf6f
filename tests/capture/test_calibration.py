import pickle

import numpy as np
import pytest
from rig_writers import (
    FIXED,
    SIZE,
    centroids_of,
    config_of,
    entries,
    random_rig,
    write_colmap,
    write_nerf,
    write_own,
    write_toml,
)

from mouse_facelift.capture.calibration import choose_convention, read_rig
from mouse_facelift.errors import CalibrationError
from mouse_facelift.geometry import Camera

QUARTER = (SIZE[0] // 4, SIZE[1] // 4)

BAD = {
    "cam_R_not_orthonormal": r"new_cam\.pkl: camera 4: R is not orthonormal.*expected at most.*Export",
    "cam_R_reflection": r"new_cam\.pkl: camera 0: R has determinant -1.*expected \+1.*Export",
    "cam_R_singular": r"new_cam\.pkl: camera 1: R is singular.*expected a rotation.*Export",
    "cam_nan_in_K": r"new_cam\.pkl: camera 2: K holds NaN.*expected finite.*Calibrate",
    "cam_not_a_pickle": r"new_cam\.pkl: is not a readable pickle.*Expected a pickled list.*export",
    "cam_only_five": r"new_cam\.pkl: holds 5 cameras, but there are 6 videos.*Expected one entry.*export",
    "cam_pickle_runs_code": r"new_cam\.pkl: names 'builtins\.exec'.*Nothing was run.*export",
}


@pytest.fixture
def read(tmp_path):
    """Read entries {K, R, T} as a recording's pickle."""

    def read(content, count=6, size=SIZE, **changes):
        (tmp_path / "new_cam.pkl").write_bytes(pickle.dumps(content))
        return read_rig(config_of(tmp_path, "new_cam.pkl", **changes), range(count), [size] * count)

    return read


def refused(read, index, **changes):
    content = entries(random_rig())
    content[index] = {**content[index], **changes}
    with pytest.raises(CalibrationError, match=rf"new_cam\.pkl: camera {index}: ") as error:
        read(content)
    return str(error.value)


@pytest.mark.parametrize("name", BAD)
def test_bad_calibrations_get_one_message(shared, name):
    with pytest.raises(CalibrationError, match=BAD[name]) as error:
        read_rig(config_of(shared / "data/bad_captures" / name, "new_cam.pkl"), range(6), [(288, 256)] * 6)
    assert "\n" not in str(error.value)


def test_the_code_in_a_bad_pickle_is_not_run(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("BAD_PICKLE_MARKER", str(tmp_path / "ran"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CalibrationError):
        read_rig(
            config_of(shared / "data/bad_captures/cam_pickle_runs_code", "new_cam.pkl"),
            range(6),
            [(288, 256)] * 6,
        )
    assert list(tmp_path.iterdir()) == []


def test_camera_count_must_be_that_of_the_videos(read):
    with pytest.raises(CalibrationError, match="holds 6 cameras, but there are 7 videos"):
        read(entries(random_rig()), 7)
    with pytest.raises(CalibrationError, match="holds 6 cameras, but there are 2 videos"):
        read(entries(random_rig()), 2)


def test_dict_keys_must_be_the_videos_numbers(read):
    content = dict(zip((0, 1, 2, 3, 4, 9), entries(random_rig()), strict=True))
    with pytest.raises(
        CalibrationError, match="cameras 0, 1, 2, 3, 4, 9, expected the videos' numbers 0, 1, 2"
    ):
        read(content)


def test_nan(read):
    K = entries(random_rig())[1]["K"]
    K[0, 0] = np.nan
    assert "K holds NaN" in refused(read, 1, K=K)


def test_mirror(read):
    assert "determinant -1" in refused(read, 2, R=np.diag([1, 1, -1]) @ random_rig()[2].R)


def test_singular_rotation(read):
    R = random_rig()[0].R.copy()
    R[2] = R[1]
    assert "singular" in refused(read, 0, R=R)


def test_sheared_rotation(read):
    assert "not orthonormal" in refused(read, 3, R=random_rig()[3].R @ np.diag([1, 1, 1.1]))


def test_dummy_camera(read):
    message = refused(read, 0, R=np.eye(3), T=np.array([[0], [0], [1000.0]]))
    assert "identity" in message and "placeholder" in message


def test_a_world_tied_to_the_first_camera_is_fine(read):
    """As stereo calibrations give it: anipose, OpenCV's stereoCalibrate."""
    cameras = random_rig()
    first = cameras[0]
    tied = [Camera(camera.K, camera.w2c @ first.c2w, *SIZE) for camera in cameras]
    tied[0] = Camera(first.K, np.eye(4), *SIZE)
    pixels = centroids_of(cameras)
    calibration = choose_convention(read(entries(tied)), [SIZE] * 6, pixels, range(24))
    for found, true in zip(calibration.cameras, tied, strict=True):
        np.testing.assert_allclose(found.w2c, true.w2c, atol=1e-9)


def test_one_transposed_K_among_upright_ones(read):
    content = entries(random_rig())
    content[3]["K"] = content[3]["K"].T
    with pytest.raises(CalibrationError, match=r"last row of K is 0, 0, 1 in camera 0, but .* in camera 3"):
        read(content)


def test_a_K_that_is_no_intrinsics_shows_its_rows(read):
    K = random_rig()[2].K @ random_rig()[2].R
    message = refused(read, 2, K=K)
    assert "expected (fx, s, cx; 0, fy, cy; 0, 0, 1)" in message


@pytest.mark.parametrize("factor, shown", [(4, "4"), (0.25, "0.2"), (1.5, "1.5")])
def test_intrinsics_of_another_resolution_name_the_factor(read, factor, shown):
    content = [{**entry, "K": np.diag([factor, factor, 1]) @ entry["K"]} for entry in entries(random_rig())]
    with pytest.raises(CalibrationError, match=r"camera 0: .*1152x1024.*another resolution, about") as error:
        read(content)
    assert f"about {shown}" in str(error.value)
    assert "scale it: fx, fy times" in str(error.value)


def test_quarter_size_intrinsics_with_a_centred_principal_point(read):
    content = entries(random_rig())
    for entry in content:
        entry["K"] = np.array([[408.1, 0, 144], [0, 409.8, 128], [0, 0, 1.0]])
    with pytest.raises(CalibrationError, match=r"another resolution, about 0\.25 times.*fx, fy times 4,"):
        read(content)


def test_a_thrown_away_principal_point_is_flagged(read, caplog):
    content = entries(random_rig(size=QUARTER))
    for entry in content:
        entry["K"][:2, 2] = 144, 128
    read(content, size=QUARTER)
    assert "exact middle" in caplog.text


def test_one_camera_of_another_resolution(read):
    message = refused(read, 2, K=np.diag([0.25, 0.25, 1]) @ entries(random_rig())[2]["K"])
    assert "another resolution" in message
    assert "1152x1024" in message


def test_principal_point_outside_the_picture(read):
    K = entries(random_rig())[1]["K"]
    K[0, 2] = 1300
    assert "principal point" in refused(read, 1, K=K)


def test_focal_length_in_millimetres(read):
    assert "focal length fx is 12.0 px" in refused(read, 1, K=[[12, 0, 570], [0, 12, 510], [0, 0, 1]])


def test_squeezed_pictures_are_flagged(read, caplog):
    content = entries(random_rig())
    content[4]["K"][0, 0] *= 1.05
    read(content)
    assert "camera 4: fx is" in caplog.text
    assert "squeezed" in caplog.text


@pytest.mark.parametrize("writer", [write_own, write_toml])
def test_a_picture_size_in_the_file_must_be_the_videos(tmp_path, writer):
    name = writer(tmp_path, random_rig())
    with pytest.raises(
        CalibrationError, match=r"calibrated for 1152x1024, the video is 288x256.*times 0\.25"
    ):
        read_rig(config_of(tmp_path, name), range(6), [QUARTER] * 6)


@pytest.mark.parametrize("unit, key", [(1000, "1000"), (10, "10"), (0.001, "0.001")])
def test_other_units_are_noticed_and_the_key_is_named(read, unit, key):
    content = [{**entry, "T": entry["T"] / unit} for entry in entries(random_rig())]
    with pytest.raises(CalibrationError, match=rf"farthest apart.*expected 100 to 10000 mm.*unit_mm={key}\."):
        read(content)
    read(content, unit_mm=unit)


@pytest.mark.parametrize("kind, writer", [("COLMAP", write_colmap), ("transforms.json", write_nerf)])
def test_worlds_of_no_unit_ask_for_one(tmp_path, kind, writer):
    cameras = [Camera.from_rt(c.K, c.R, c.t / 317, *SIZE) for c in random_rig()]
    name = writer(tmp_path, cameras)
    with pytest.raises(CalibrationError, match=rf"{kind}.*no unit of its own.*input\.unit_mm"):
        read_rig(config_of(tmp_path, name), range(6), [SIZE] * 6)


@pytest.mark.parametrize("kind", FIXED)
def test_one_camera_copied_over_another(tmp_path, kind):
    cameras = random_rig()
    cameras[3] = cameras[0]
    name = FIXED[kind](tmp_path, cameras)
    with pytest.raises(CalibrationError, match="cameras 0 and 3 stand at the same place"):
        read_rig(config_of(tmp_path, name), range(6), [SIZE] * 6)


def test_two_cameras_at_one_place_that_look_elsewhere(read):
    cameras = random_rig()
    turned = cameras[0].R @ cameras[0].R @ cameras[0].R
    nudge = Camera.from_rt(cameras[1].K, turned, -turned @ cameras[0].center, *SIZE)
    aside = nudge.reaim(nudge.K, _tilted(cameras[0].R), *SIZE)[0]
    cameras[1] = aside
    with pytest.raises(CalibrationError, match=r"cameras 0 and 1 stand at the same place, .* mm"):
        choose_convention(read(entries(cameras)), [SIZE] * 6, centroids_of(cameras), range(24))


def _tilted(R):
    angle = 0.1
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]) @ R


def test_any_up_direction_is_accepted_in_silence(read, caplog):
    y_up = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0.0]])
    content = [{**entry, "R": entry["R"] @ y_up} for entry in entries(random_rig())]
    choose_convention(read(content), [SIZE] * 6, centroids_of(random_rig()), range(24))
    assert "up direction" not in caplog.text
