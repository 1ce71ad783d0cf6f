import json
import pickle
import re

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig_writers import (
    FIXED,
    FREE,
    SIZE,
    centroids_of,
    config_of,
    dannce_struct,
    entries,
    opencv_K,
    random_rig,
    write_colmap,
    write_hires,
    write_mat,
    write_mat73,
    write_nerf,
    write_own,
    write_toml,
)
from scipy.io import savemat

from mouse_facelift.capture.calibration import choose_convention, read_rig
from mouse_facelift.errors import CalibrationError
from mouse_facelift.geometry import Camera

WRITERS = {**FREE, **FIXED}


def read(folder, name, cameras, first=0, **changes):
    """The cameras as the whole capture room sees them: read, ordered, decided."""
    sizes = [(camera.width, camera.height) for camera in cameras]
    rig = read_rig(config_of(folder, name, **changes), range(first, first + len(cameras)), sizes)
    pixels = centroids_of(cameras)
    return choose_convention(rig, sizes, pixels, range(len(pixels)))


def assert_same(found, expected, tolerance=1e-6):
    for camera, true in zip(found, expected, strict=True):
        np.testing.assert_allclose(camera.K, true.K, atol=tolerance)
        np.testing.assert_allclose(camera.w2c, true.w2c, atol=tolerance)
        assert (camera.width, camera.height) == (true.width, true.height)


@pytest.mark.parametrize("kind", WRITERS)
@given(seed=st.integers(0, 10_000), count=st.integers(4, 8))
@settings(max_examples=4, deadline=None)
def test_every_kind_gives_the_same_cameras(tmp_path_factory, kind, seed, count):
    folder, cameras = tmp_path_factory.mktemp(kind), random_rig(seed, count)
    assert_same(read(folder, WRITERS[kind](folder, cameras), cameras).cameras, cameras)


@pytest.mark.parametrize("kind", WRITERS)
def test_videos_numbered_from_one_and_ten_cameras_or_more(tmp_path, kind):
    cameras = random_rig(3, 11)
    assert_same(read(tmp_path, WRITERS[kind](tmp_path, cameras), cameras, first=1).cameras, cameras)


@pytest.mark.parametrize("kind", ["own", "pickle", "mat"])
def test_other_units_become_millimetres(tmp_path, kind):
    cameras = random_rig(4)
    metres = [Camera.from_rt(c.K, c.R, c.t / 1000, c.width, c.height) for c in cameras]
    name = WRITERS[kind](tmp_path, metres)
    assert_same(read(tmp_path, name, cameras, unit_mm=1000).cameras, cameras)


@pytest.mark.parametrize("key", [int, str, "cam{}".format])
@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 3)])
def test_pickled_dicts_are_ordered_by_number_and_translations_have_any_shape(tmp_path, key, shape):
    cameras = random_rig(5, 12)
    given_entries = [{**entry, "T": entry["T"].reshape(shape)} for entry in entries(cameras)]
    content = {key(i): given_entries[i] for i in reversed(range(12))}
    (tmp_path / "new_cam.pkl").write_bytes(pickle.dumps(content))
    assert_same(read(tmp_path, "new_cam.pkl", cameras).cameras, cameras)


def test_nested_lists_instead_of_arrays(tmp_path):
    cameras = random_rig()
    content = [{name: value.tolist() for name, value in entry.items()} for entry in entries(cameras)]
    (tmp_path / "new_cam.pkl").write_bytes(pickle.dumps(content))
    assert_same(read(tmp_path, "new_cam.pkl", cameras).cameras, cameras)


def test_stacked_translations_may_stand(tmp_path):
    cameras = random_rig()
    FREE["h5"](tmp_path, cameras)
    with h5py.File(tmp_path / "camera_params.h5", "r+") as file:
        del file["camera_parameters/translation"]
        file["camera_parameters/translation"] = np.stack([c.t for c in cameras])[..., None]
    assert_same(read(tmp_path, "camera_params.h5", cameras).cameras, cameras)


@pytest.mark.parametrize("version", ["v5", "v7.3"])
def test_matlab_itself_counts_pixels_from_one(tmp_path, version):
    cameras = random_rig()
    moved = [c.affine(np.eye(2), (1, 1), c.width, c.height)[0] for c in cameras]
    if version == "v7.3":
        name = write_mat73(tmp_path, moved, platform="PCWIN64")
    else:
        name = write_mat(tmp_path, moved)
        with (tmp_path / name).open("r+b") as file:
            file.write(b"MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: today".ljust(116))
    assert_same(read(tmp_path, name, cameras).cameras, cameras)


def test_a_matlab_struct_array_is_as_good_as_a_cell(tmp_path):
    cameras = random_rig()
    structs = [dannce_struct(entry) for entry in entries(cameras, "R transposed", True)]
    fields = list(structs[0])
    array = np.empty((1, len(structs)), [(field, object) for field in fields])
    for i, struct in enumerate(structs):
        for field in fields:
            array[0, i][field] = struct[field]
    savemat(tmp_path / "array.mat", {"params": array})
    assert_same(read(tmp_path, "array.mat", cameras).cameras, cameras)
    with h5py.File(tmp_path / "array73.mat", "w", userblock_size=512) as file:
        for field in fields:
            references = []
            for i, struct in enumerate(structs):
                file[f"#refs#/{field}{i}"] = np.asarray(struct[field]).T
                references.append(file[f"#refs#/{field}{i}"].ref)
            file.create_dataset(f"params/{field}", data=references, dtype=h5py.ref_dtype)
    assert_same(read(tmp_path, "array73.mat", cameras).cameras, cameras)


def test_one_file_of_dannces_folder_is_not_a_rig(tmp_path):
    write_hires(tmp_path, random_rig())
    with pytest.raises(CalibrationError, match=r"single camera.*folder"):
        read(tmp_path, "calibration/hires_cam1_params.mat", random_rig())


def test_anipose_names_decide_the_order_not_the_sections(tmp_path):
    cameras = random_rig()
    write_toml(tmp_path, cameras)
    path = tmp_path / "calibration.toml"
    path.write_text(re.sub(r"\[cam_(\d)\]", lambda match: f"[cam_{5 - int(match[1])}]", path.read_text()))
    assert_same(read(tmp_path, path.name, cameras).cameras, cameras)


def test_anipose_cameras_with_serial_numbers_keep_the_sections_order(tmp_path):
    cameras = random_rig()
    write_toml(tmp_path, cameras)
    path = tmp_path / "calibration.toml"
    path.write_text(re.sub(r'"cam(\d)"', lambda match: f'"cam{881 - 7 * int(match[1])}"', path.read_text()))
    assert_same(read(tmp_path, path.name, cameras).cameras, cameras)


COLMAP_MODELS = {
    "SIMPLE_PINHOLE": 0,
    "PINHOLE": 0,
    "SIMPLE_RADIAL": 1,
    "RADIAL": 2,
    "OPENCV": 4,
    "FULL_OPENCV": 8,
}


@pytest.mark.parametrize("model", COLMAP_MODELS)
def test_colmap_models_without_distortion(tmp_path, model):
    cameras = random_rig()
    for i, camera in enumerate(cameras):
        K = camera.K.copy()
        K[1, 1] = K[0, 0]
        cameras[i] = Camera(K, camera.w2c, *SIZE)
    write_colmap(tmp_path, cameras, model, [0.0] * COLMAP_MODELS[model])
    for name in ("sparse", "sparse/cameras.txt", "sparse/images.txt"):
        assert_same(read(tmp_path, name, cameras).cameras, cameras)


def test_colmap_names_may_hold_a_constant_frame_number(tmp_path):
    cameras = random_rig()
    write_colmap(tmp_path, cameras, name="rig 2/camera{}/frame_000123.png")
    assert_same(read(tmp_path, "sparse", cameras).cameras, cameras)


def test_colmap_names_with_two_numbers_that_disagree_are_refused(tmp_path):
    write_colmap(tmp_path, random_rig())
    path = tmp_path / "sparse" / "images.txt"
    path.write_text(re.sub(r"cam(\d)\.png", lambda m: f"{m[1]}_{5 - int(m[1])}.png", path.read_text()))
    with pytest.raises(CalibrationError, match=r"5_0, 4_1.*several numbers"):
        read(tmp_path, "sparse", random_rig())


def test_colmap_without_numbers_or_with_one_missing_is_refused(tmp_path):
    cameras = random_rig()
    write_colmap(tmp_path, cameras)
    path = tmp_path / "sparse" / "images.txt"
    path.write_text(path.read_text().replace("cam3.png", "cam9.png"))
    with pytest.raises(CalibrationError, match=r"cam9.*expected the videos' numbers 0, 1, 2, 3, 4, 5"):
        read(tmp_path, "sparse", cameras)
    with pytest.raises(CalibrationError, match="holds 6 cameras, but there are 5 videos"):
        read(tmp_path, "sparse", cameras[:5])


def test_colmap_binary_models_are_named(tmp_path):
    (tmp_path / "sparse").mkdir()
    (tmp_path / "sparse" / "cameras.bin").touch()
    with pytest.raises(CalibrationError, match="model_converter"):
        read(tmp_path, "sparse", random_rig())


def test_nerf_with_one_angle_for_all(tmp_path):
    focal = 0.5 * SIZE[0] / np.tan(0.35)
    K = np.array([[focal, 0, SIZE[0] / 2], [0, focal, SIZE[1] / 2], [0, 0, 1]])
    cameras = [Camera(K, camera.w2c, *SIZE) for camera in random_rig()]
    write_nerf(tmp_path, cameras)
    path = tmp_path / "transforms.json"
    content = json.loads(path.read_text())
    frames = [{key: frame[key] for key in ("file_path", "transform_matrix")} for frame in content["frames"]]
    path.write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    assert_same(read(tmp_path, path.name, cameras).cameras, cameras)


def test_cameras_json_as_the_demo_writes_it(tmp_path):
    cameras = random_rig()
    write_own(tmp_path, cameras)
    path = tmp_path / "cameras.json"
    content = {**json.loads(path.read_text()), "convention": "x_cam = R X + t", "fps": 30}
    del content["unit"]
    path.write_text(json.dumps(content))
    assert_same(read(tmp_path, path.name, cameras).cameras, cameras)


DISTORTED = {
    "toml": lambda folder, cameras: write_toml(folder, cameras, (-0.31, 0, 0, 0, 0)),
    "fisheye": lambda folder, cameras: write_toml(folder, cameras, (0, 0, 0, 0), "fisheye = true"),
    "colmap": lambda folder, cameras: write_colmap(folder, cameras, "OPENCV", (-0.31, 0, 0, 0)),
    "nerf": lambda folder, cameras: write_nerf(folder, cameras, k1=-0.31, k2=0.0),
    "nerf fisheye": lambda folder, cameras: write_nerf(folder, cameras, camera_model="OPENCV_FISHEYE"),
}


def distorted_pickle(folder, cameras):
    content = [{**entry, "dist": np.array([[-0.31, 0, 0, 0, 0]])} for entry in entries(cameras)]
    (folder / "new_cam.pkl").write_bytes(pickle.dumps(content))
    return "new_cam.pkl"


def distorted_h5(folder, cameras):
    name = FREE["h5"](folder, cameras)
    with h5py.File(folder / name, "r+") as file:
        file["camera_parameters/distortion"] = np.tile([-0.31, 0, 0, 0, 0], (len(cameras), 1))
    return name


def distorted_mat(folder, cameras):
    cell = np.empty((len(cameras),), object)
    for i, entry in enumerate(entries(cameras, "R transposed", True)):
        cell[i] = dannce_struct(entry, distortion=-0.31)
    savemat(folder / "dannce.mat", {"params": cell})
    return "dannce.mat"


DISTORTED |= {"pickle": distorted_pickle, "h5": distorted_h5, "mat": distorted_mat}


@pytest.mark.parametrize("kind", DISTORTED)
def test_distortion_is_refused_unless_the_videos_are_undistorted(tmp_path, kind, caplog):
    caplog.set_level("INFO")
    cameras = random_rig()
    name = DISTORTED[kind](tmp_path, cameras)
    with pytest.raises(CalibrationError, match=r"0.*distortion.*input\.undistorted=true") as error:
        read(tmp_path, name, cameras)
    shown = "fisheye" if "fisheye" in kind else "-0.31"
    assert shown in str(error.value).lower()
    assert name in str(error.value)
    assert_same(read(tmp_path, name, cameras, undistorted=True).cameras, cameras)
    assert "distortion ignored" in caplog.text


@pytest.mark.parametrize("kind", WRITERS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_damaged_files_are_refused_or_read_but_never_crash(tmp_path_factory, kind, data):
    folder, cameras = tmp_path_factory.mktemp("damaged"), random_rig(count=4)
    name = WRITERS[kind](folder, cameras)
    files = list((folder / name).rglob("*.*")) if (folder / name).is_dir() else [folder / name]
    path = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        read(folder, name, cameras)
    except CalibrationError as error:
        assert str(folder) in str(error)


WRONG_JSON = [
    [],
    {},
    {"cameras": [{"id": 0}]},
    {"cameras": [1, 2, 3, 4]},
    {"cameras": {"0": {}}},
    {"cameras": [{"id": 0, "width": 1, "height": None, "K": 1, "w2c": 2}]},
    {"cameras": [], "unit": "m"},
    {"frames": [{}]},
    {"frames": [{"file_path": "0", "transform_matrix": [[1]]}]},
    {"frames": [{"file_path": "0", "transform_matrix": np.eye(4).tolist()}]},
    {"frames": [{"file_path": "0", "transform_matrix": np.eye(4).tolist(), "camera_angle_x": 4}]},
    {"frames": [{"file_path": "0", "transform_matrix": np.eye(4).tolist(), "fl_x": "wide"}]},
    {"frames": [{"file_path": "0", "transform_matrix": np.ones((4, 4)).tolist(), "fl_x": 1}]},
]
WRONG_TOML = [
    "x = 1",
    "[camera_0]\nname = 'a'",
    "cam_0 = 3",
    "[cam_0]\nmatrix = [1]\nrotation = [1]\ntranslation = [2]",
    "[cam_0]\nsize = 3\nmatrix = [[1,0,0],[0,1,0],[0,0,1]]\nrotation = [0,0,0]\ntranslation = [0,0,0]",
    "[cam_0]\nmatrix = [[1,0,0],[0,nan,0],[0,0,1]]\nrotation = [0,0,0]\ntranslation = [0,0,0]",
    "[cam_0",
]
WRONG_PICKLE = [[1, 2, 3, 4], "text", {"a": 1}, [{"R": 0}] * 4, None, {0: 3}, [{"R": {}, "T": 1, "K": "x"}]]


@pytest.mark.parametrize("content", WRONG_JSON, ids=str)
def test_wrong_json_is_described(tmp_path, content):
    (tmp_path / "cameras.json").write_text(json.dumps(content))
    with pytest.raises(CalibrationError, match=r"cameras\.json"):
        read(tmp_path, "cameras.json", random_rig())


@pytest.mark.parametrize("content", WRONG_TOML)
def test_wrong_toml_is_described(tmp_path, content):
    (tmp_path / "calibration.toml").write_text(content)
    with pytest.raises(CalibrationError, match=r"calibration\.toml"):
        read(tmp_path, "calibration.toml", random_rig())


@pytest.mark.parametrize("content", WRONG_PICKLE, ids=str)
def test_wrong_pickles_are_described(tmp_path, content):
    (tmp_path / "new_cam.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(CalibrationError, match=r"new_cam\.pkl"):
        read(tmp_path, "new_cam.pkl", random_rig())


@pytest.mark.parametrize(
    "stacks",
    [
        {},
        {"intrinsic": np.eye(3)[None]},
        {"intrinsic": 1.0, "rotation": 2.0, "translation": 3.0},
        {"intrinsic": np.zeros((6, 3, 3)), "rotation": np.zeros((5, 3, 3)), "translation": np.zeros((6, 3))},
        {"intrinsic": np.zeros((6, 2)), "rotation": np.zeros((6, 3, 3)), "translation": np.zeros((6, 3))},
        {"intrinsic": [b"a"] * 6, "rotation": np.zeros((6, 3, 3)), "translation": np.zeros((6, 3))},
    ],
    ids=lambda stacks: ", ".join(stacks) or "none",
)
def test_wrong_h5_is_described(tmp_path, stacks):
    with h5py.File(tmp_path / "camera_params.h5", "w") as file:
        for name, value in stacks.items():
            file[f"camera_parameters/{name}"] = value
    with pytest.raises(CalibrationError, match=r"camera_params\.h5"):
        read(tmp_path, "camera_params.h5", random_rig())


@pytest.mark.parametrize(
    "content",
    [
        {"x": 1},
        {"params": 3},
        {"params": np.zeros((3, 3))},
        {"params": {"K": np.eye(3)}},
        {"params": {"K": np.eye(2), "r": np.eye(3), "t": np.zeros(3)}},
        {"params": "text"},
    ],
    ids=str,
)
def test_wrong_mat_is_described(tmp_path, content):
    savemat(tmp_path / "dannce.mat", content)
    with pytest.raises(CalibrationError, match=r"dannce\.mat"):
        read(tmp_path, "dannce.mat", random_rig())


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("PINHOLE", "OPENCV_FISHEYE", "expected one of SIMPLE_PINHOLE"),
        ("PINHOLE 1152", "PINHOLE", "expected WIDTH HEIGHT fx fy cx cy"),
        ("PINHOLE 1152", "PINHOLE eleven", "picture size is not numeric"),
        (" 43 cam3", " 11 cam3", "names camera 11"),
        (" 43 cam3", " cam3", "expected IMAGE_ID QW"),
        ("\n10.5 20.25 -1 3 4 77", "", "line of its 2D points"),
    ],
)
def test_wrong_colmap_models_are_described(tmp_path, old, new, message):
    write_colmap(tmp_path, random_rig())
    for path in (tmp_path / "sparse").glob("*.txt"):
        path.write_text(path.read_text().replace(old, new))
    with pytest.raises(CalibrationError, match=rf"(cameras|images)\.txt.*{message}"):
        read(tmp_path, "sparse", random_rig())


def test_a_quaternion_must_have_length_one(tmp_path):
    write_colmap(tmp_path, random_rig())
    path = tmp_path / "sparse" / "images.txt"
    path.write_text(re.sub(r"^(90) \S+", r"\1 0.05", path.read_text(), flags=re.MULTILINE))
    with pytest.raises(CalibrationError, match=r"cam0\.png: the quaternion has length"):
        read(tmp_path, "sparse", random_rig())


def test_unknown_kinds_and_folders_are_refused_with_the_known_ones(tmp_path):
    (tmp_path / "cams.npz").touch()
    (tmp_path / "cams").mkdir()
    with pytest.raises(CalibrationError, match=r"not a known kind.*camera_params\.h5.*transforms\.json"):
        read(tmp_path, "cams.npz", random_rig())
    with pytest.raises(CalibrationError, match=r"COLMAP.*hires_cam1_params\.mat"):
        read(tmp_path, "cams", random_rig())


def test_a_missing_file_lists_the_calibrations_that_are_there(tmp_path):
    with pytest.raises(CalibrationError, match=r"cannot be read.*Expected the calibration: new_cam\.pkl"):
        read(tmp_path, "new_cam.pkl", random_rig())
    (tmp_path / "notes.json").touch()
    FREE["h5"](tmp_path, random_rig())
    with pytest.raises(CalibrationError, match=r"Found camera_params\.h5; set input\.calibration=camera_par"):
        read(tmp_path, "new_cam.pkl", random_rig())
    write_colmap(tmp_path, random_rig())
    write_hires(tmp_path, random_rig())
    with pytest.raises(CalibrationError, match=r"Found calibration \(or camera_params\.h5, sparse\)"):
        read(tmp_path, "new_cam.pkl", random_rig())


def test_half_a_pixel_is_added_once_and_only_where_it_is_missing(tmp_path):
    cameras = random_rig()
    sizes = [SIZE] * 6
    for kind, writer in WRITERS.items():
        (tmp_path / kind).mkdir()
        rig = read_rig(config_of(tmp_path / kind, writer(tmp_path / kind, cameras)), range(6), sizes)
        half_pixel = rig.cameras[0].first_pixel == 0.5
        stored = cameras[0].K if half_pixel else opencv_K(cameras[0])
        K = rig.cameras[0].K
        np.testing.assert_allclose(K.T if rig.transposed_K else K, stored, atol=1e-9)
        np.testing.assert_allclose(rig.K[0], cameras[0].K, atol=1e-9)
        assert half_pixel == (kind in ("own", "nerf", "colmap"))
