"""Random rigs, and calibration files of every kind written from the same rig."""

import json
import pickle

import cv2
import h5py
import numpy as np
from scipy.io import savemat

from mouse_facelift.capture.config import InputConfig
from mouse_facelift.geometry import Camera, look_at_rotation

SIZE = (1152, 1024)
ARENA = np.array([55.0, 50.0, 30.0])


def random_rig(seed=0, count=6, size=SIZE):
    """Cameras in a rough ring about an arena, as domain recordings have them: mm, half-pixel centres."""
    rng = np.random.default_rng(seed)
    cameras = []
    for angle in 2 * np.pi * np.arange(count) / count + rng.normal(0, 0.1, count):
        height = np.radians(rng.uniform(5, 35))
        away = np.array([np.cos(angle) * np.cos(height), np.sin(angle) * np.cos(height), np.sin(height)])
        center = ARENA + rng.uniform(230, 420) * away
        R = look_at_rotation(ARENA + rng.normal(0, 15, 3) - center)
        focal = size[0] * rng.uniform(1.3, 1.5)
        K = np.array(
            [[focal, 0, size[0] / 2], [0, focal * rng.uniform(0.995, 1.005), size[1] / 2], [0, 0, 1]]
        )
        K[:2, 2] += rng.uniform(-0.04, 0.04, 2) * size[0]
        cameras.append(Camera.from_rt(K, R, -R @ center, *size))
    return cameras


def centroids_of(cameras, frames=24, noise_px=5.0, seed=1):
    """What masks of an animal that walks about the arena would give. [T, V, 2]"""
    rng = np.random.default_rng(seed)
    points = ARENA + np.clip(rng.normal(0, 30, (frames, 3)), -60, 60) * (1, 1, 0.3)
    pixels = np.stack([camera.project(points)[0] for camera in cameras], axis=1)
    return pixels + rng.normal(0, noise_px, pixels.shape)


def opencv_K(camera):
    K = camera.K.copy()
    K[:2, 2] -= 0.5
    return K


MEANINGS = {
    "standard": lambda camera: (camera.R, camera.t),
    "R transposed": lambda camera: (camera.R.T, camera.t),
    "camera to world": lambda camera: (camera.R.T, camera.center),
    "T is the centre": lambda camera: (camera.R, camera.center),
}


def entries(cameras, meaning="standard", K_transposed=False):
    """{K, R, T} as OpenCV or one of its misuses stores them."""
    result = []
    for camera in cameras:
        R, t = MEANINGS[meaning](camera)
        K = opencv_K(camera)
        result.append({"K": K.T.copy() if K_transposed else K, "R": np.array(R), "T": np.array(t)})
    return result


def write_pickle(folder, cameras, **how):
    (folder / "new_cam.pkl").write_bytes(pickle.dumps(entries(cameras, **how), protocol=3))
    return "new_cam.pkl"


def write_h5(folder, cameras, **how):
    given = entries(cameras, **how)
    with h5py.File(folder / "camera_params.h5", "w") as file:
        group = file.create_group("camera_parameters")
        for name, key in (("intrinsic", "K"), ("rotation", "R"), ("translation", "T")):
            group[name] = np.stack([entry[key] for entry in given])
    return "camera_params.h5"


def dannce_struct(entry, distortion=0.0):
    return {
        "K": entry["K"],
        "r": entry["R"],
        "t": entry["T"].reshape(1, 3),
        "RDistort": np.array([[distortion, 0.0, 0.0]]),
        "TDistort": np.zeros((1, 2)),
    }


def write_mat(folder, cameras, meaning="R transposed", K_transposed=True):
    cell = np.empty((len(cameras), 1), object)
    for i, entry in enumerate(entries(cameras, meaning, K_transposed)):
        cell[i, 0] = dannce_struct(entry)
    names = np.array([f"Camera{i + 1}" for i in range(len(cameras))], object)
    savemat(folder / "label3d_dannce.mat", {"params": cell, "camnames": names, "sync": np.zeros(3)})
    return "label3d_dannce.mat"


def write_mat73(folder, cameras, meaning="R transposed", K_transposed=True, platform="CPython 3.11"):
    """As MATLAB lays out -v7.3: a user block with a header, arrays transposed, cells as references."""
    path = folder / "dannce73.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        structs, names = [], []
        for i, entry in enumerate(entries(cameras, meaning, K_transposed)):
            group = file.create_group(f"#refs#/{chr(97 + i)}")
            for key, value in dannce_struct(entry).items():
                group[key] = np.asarray(value).T
            structs.append(group.ref)
            text = file.create_dataset(
                f"#refs#/n{i}", data=np.array([[ord(c)] for c in f"Camera{i + 1}"], "u2")
            )
            text.attrs["MATLAB_class"] = np.bytes_("char")
            names.append(text.ref)
        file.create_dataset("params", data=np.array([structs], h5py.ref_dtype), dtype=h5py.ref_dtype)
        file.create_dataset("camnames", data=np.array([names], h5py.ref_dtype), dtype=h5py.ref_dtype)
    with path.open("r+b") as file:
        file.write(f"MATLAB 7.3 MAT-file, Platform: {platform}, Created on: today".encode().ljust(128))
    return path.name


def write_hires(folder, cameras, meaning="R transposed", K_transposed=True):
    (folder / "calibration").mkdir()
    for i, entry in enumerate(entries(cameras, meaning, K_transposed)):
        savemat(folder / "calibration" / f"hires_cam{i + 1}_params.mat", dannce_struct(entry))
    return "calibration"


def write_toml(folder, cameras, distortions=(0.0,) * 5, extra=""):
    lines = []
    for i, camera in enumerate(cameras):
        rotation = cv2.Rodrigues(camera.R)[0].ravel().tolist()
        lines += [
            f"[cam_{i}]",
            f'name = "cam{i}"',
            f"size = [{camera.width}, {camera.height}]",
            f"matrix = {opencv_K(camera).tolist()}",
            f"distortions = {list(distortions)}",
            f"rotation = {rotation}",
            f"translation = {camera.t.tolist()}",
            extra,
        ]
    (folder / "calibration.toml").write_text("\n".join([*lines, "[metadata]", "error = 0.5"]))
    return "calibration.toml"


def quaternion(R):
    """wxyz of a rotation matrix, from its rotation vector."""
    vector = cv2.Rodrigues(R)[0].ravel()
    angle = np.linalg.norm(vector)
    return np.concatenate([[np.cos(angle / 2)], np.sin(angle / 2) * vector / angle])


def write_colmap(folder, cameras, model="PINHOLE", lens=(), name="cam{}.png"):
    (folder / "sparse").mkdir(exist_ok=True)
    cameras_text = ["# Camera list with one line of data per camera:"]
    images_text = ["# Image list with two lines of data per image:"]
    # COLMAP's ids are in no order and start anywhere.
    for i, camera in reversed(list(enumerate(cameras))):
        fx, fy, cx, cy = camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]
        focal = (fx,) if model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL") else (fx, fy)
        numbers = " ".join(repr(float(value)) for value in (*focal, cx, cy, *lens))
        cameras_text.append(f"{40 + i} {model} {camera.width} {camera.height} {numbers}")
        pose = " ".join(repr(float(value)) for value in (*quaternion(camera.R), *camera.t))
        images_text += [f"{90 - i} {pose} {40 + i} {name.format(i)}", "" if i % 2 else "10.5 20.25 -1 3 4 77"]
    (folder / "sparse" / "cameras.txt").write_text("\n".join(cameras_text) + "\n")
    (folder / "sparse" / "images.txt").write_text("\n".join(images_text) + "\n")
    return "sparse"


def write_nerf(folder, cameras, **extra):
    frames = []
    for i, camera in reversed(list(enumerate(cameras))):
        c2w = camera.c2w.copy()
        c2w[:3, 1:3] *= -1
        frames.append(
            {
                "file_path": f"images/view_{i}.png",
                "transform_matrix": c2w.tolist(),
                "fl_x": camera.K[0, 0],
                "fl_y": camera.K[1, 1],
                "cx": camera.K[0, 2],
                "cy": camera.K[1, 2],
            }
        )
    content = {"w": cameras[0].width, "h": cameras[0].height, **extra, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))
    return "transforms.json"


def write_own(folder, cameras):
    listed = [
        {
            "id": i,
            "role": "input",
            "width": camera.width,
            "height": camera.height,
            "K": camera.K.tolist(),
            "w2c": camera.w2c.tolist(),
        }
        for i, camera in enumerate(cameras)
    ]
    held_out = {**listed[0], "id": len(listed), "role": "held_out"}
    (folder / "cameras.json").write_text(json.dumps({"unit": "mm", "cameras": [*listed[::-1], held_out]}))
    return "cameras.json"


FREE = {"pickle": write_pickle, "h5": write_h5, "mat": write_mat, "mat73": write_mat73, "hires": write_hires}
"""Formats that have been seen in several conventions."""
FIXED = {"toml": write_toml, "colmap": write_colmap, "nerf": write_nerf, "own": write_own}
"""Formats that define theirs."""


def config_of(folder, name, **changes):
    return InputConfig(recording=folder, calibration=name, **changes)
