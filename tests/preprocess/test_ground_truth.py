"""The acceptance figures: the true animal through the written cameras against the written alpha."""

import importlib.util
import json
from itertools import product
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from mouse_facelift.capture.config import InputConfig
from mouse_facelift.capture.keypoints import read_keypoints
from mouse_facelift.capture.masks import clean_mask
from mouse_facelift.capture.video import VideoReader
from mouse_facelift.geometry import Camera, Similarity
from mouse_facelift.preprocess.centres import frame_centers
from mouse_facelift.preprocess.config import GeometryConfig, PreprocessConfig, QualityConfig
from mouse_facelift.preprocess.normalize import choose_framing, choose_up, normalized_view
from mouse_facelift.preprocess.run import run
from mouse_facelift.preprocess.survey import observe
from mouse_facelift.preprocess.warp import View
from mouse_facelift.samples.format import read_rgba, read_sample

SIZE = 512
FRAMES = [12, 108, 190]
"""Frames of the end-to-end run, with a lossless mask."""
CHECKED = [52, 150]
"""Frames of every combination of settings, with a lossless mask."""
TRACK = [*range(0, 60, 20), *range(60, 72), *range(80, 240, 20)]
"""Frames of which the centre is looked at: some in a row, the rest over the whole recording."""
SCALES = ["fit", "mean_distance", 0.0105]
COMBINATIONS = list(product(["lookat", "crop"], ["per_view", "fixed"], SCALES))
SUPERSAMPLING, SHIFT = 4, 6


def true_coverage(camera, vertices, faces):
    """Share of each pixel that the closed mesh covers. [H, W]

    Supersampled, because fillConvexPoly paints all it touches. Faces seen from behind add nothing.
    """
    fine, _ = camera.resized(SUPERSAMPLING * camera.width, SUPERSAMPLING * camera.height)
    pixels = fine.project(vertices)[0]
    first, second = (pixels[faces[:, corner]] - pixels[faces[:, 0]] for corner in (1, 2))
    seen = np.linalg.det(np.stack([first, second], axis=-1)) < 0
    corners = np.round((pixels - 0.5) * 2**SHIFT).astype(np.int32)
    picture = np.zeros((fine.height, fine.width), np.float32)
    for triangle in corners[faces[seen]]:
        cv2.fillConvexPoly(picture, triangle, 1, cv2.LINE_8, SHIFT)
    return cv2.resize(picture, (camera.width, camera.height), interpolation=cv2.INTER_AREA)


def overlap(found, expected):
    """Intersection over union of two coverages, at one half."""
    found, expected = found > 0.5, expected > 0.5
    return (found & expected).sum() / (found | expected).sum()


def outline(alpha):
    """Where alpha crosses one half between neighbouring pixels, to a fraction of a pixel. [N, 2]"""
    points = []
    for turned in (alpha, alpha.T):
        rows, columns = np.nonzero((turned[:, :-1] > 0.5) != (turned[:, 1:] > 0.5))
        before, after = turned[rows, columns], turned[rows, columns + 1]
        crossing = np.stack([columns + (0.5 - before) / (after - before), rows], axis=1)
        points.append(crossing if turned is alpha else crossing[:, ::-1])
    return np.concatenate(points)


def outline_distance(found, expected):
    """Mean distance in pixels of each outline from the other, in both directions."""
    a, b = outline(found), outline(expected)
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    distance = np.sqrt(np.maximum(squares, 0))
    return (distance.min(1).mean() + distance.min(0).mean()) / 2


def offset_px(found, expected):
    """Shift (x, y) from `expected` to `found` that explains their difference best, to first order."""
    smooth = cv2.blur(expected, (3, 3))
    rows, columns = np.gradient(smooth)
    slopes = -np.stack([columns.ravel(), rows.ravel()], axis=1)
    return np.linalg.lstsq(slopes, (found - expected).ravel(), rcond=None)[0]


@pytest.fixture(scope="module")
def truth(shared):
    """What the recording knows of itself."""
    folder = shared / "data/mouse_capture/ground_truth"
    spec = importlib.util.spec_from_file_location("read_truth", folder / "read_truth.py")
    read_truth = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(read_truth)
    half_pixel = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    cameras = [
        Camera.from_rt(entry["K"] + half_pixel, entry["R"], entry["T"], entry["width"], entry["height"])
        for entry in json.loads((folder / "cameras.json").read_text())["cameras"]
        if entry["role"] == "input"
    ]

    def mesh(frame):
        return read_truth.vertices(folder, frame)

    def lossless_mask(frame, number):
        picture = Image.open(folder / f"masks/frame{frame:04d}_cam{number}.png").convert("L")
        return np.asarray(picture) / np.float32(255)

    return SimpleNamespace(
        folder=folder,
        cameras=cameras,
        mesh=mesh,
        lossless_mask=lossless_mask,
        track=np.load(folder / "track.npz"),
    )


@pytest.fixture(scope="module")
def survey(truth):
    """What the lossy mask videos and the key points say."""
    frames, recording = sorted({*TRACK, *CHECKED}), truth.folder.parent
    videos = [VideoReader(recording / f"simpleclick_undist/{view}.mp4") for view in range(6)]
    streams = [video.frames(frames, "gray") for video in videos]
    result = SimpleNamespace(masks={}, observations={})
    for frame, pictures in zip(frames, zip(*streams, strict=True), strict=True):
        clean = [clean_mask(gray) for _, gray in pictures]
        result.observations[frame] = observe(
            frame, clean, truth.cameras, range(6), GeometryConfig(), QualityConfig()
        )
        if frame in CHECKED:
            result.masks[frame] = [item.mask for item in clean]
    result.keypoints = read_keypoints(InputConfig(recording=recording), range(6), 240)
    return result


def volume_centroid(vertices, faces):
    """Centre of mass of a closed mesh: its faces and the origin make tetrahedra. [3]"""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    volumes = np.einsum("ni,ni->n", a, np.cross(b, c))
    return volumes @ (a + b + c) / (4 * volumes.sum())


def similarities_of(truth, survey, geometry):
    """Frame -> similarity, the framing, and the frames that are cut."""
    items = list(survey.observations.values())
    centers = frame_centers(geometry, items, [0] * len(items), truth.cameras, survey.keypoints)
    rotation, _ = choose_up(geometry, truth.cameras)
    framing, cut = choose_framing(geometry, items, centers, truth.cameras, rotation)
    by_frame = {
        item.frame: Similarity(framing.scale, rotation, center)
        for item, center in zip(items, centers, strict=True)
    }
    return by_frame, framing, cut


@pytest.mark.parametrize(("virtual_camera", "focal", "scale"), COMBINATIONS)
def test_true_animal_covers_the_alpha_of_every_kind_of_view(truth, survey, virtual_camera, focal, scale):
    geometry = GeometryConfig(virtual_camera=virtual_camera, focal=focal, scale=scale)
    similarities, framing, cut = similarities_of(truth, survey, geometry)
    overlaps, distances = [], []
    for frame, number in product(CHECKED, range(6)):
        similarity, camera = similarities[frame], truth.cameras[number]

        def written(alpha, similarity=similarity, camera=camera):
            source = View(np.zeros((*alpha.shape, 3), np.uint8), alpha.astype(np.float32), camera)
            return normalized_view(source, similarity, geometry, SIZE, framing.crop_side_px)

        view = written(survey.masks[frame][number])
        alpha = view.rgba()[..., 3] / np.float32(255)
        vertices, faces = truth.mesh(frame)
        overlaps.append(overlap(alpha, true_coverage(view.camera, similarity.apply(vertices), faces)))
        distances.append(outline_distance(alpha, written(truth.lossless_mask(frame, number)).alpha))
        assert view.clipped_share == 0
    assert np.mean(overlaps) >= 0.985
    assert min(overlaps) >= 0.96
    assert max(distances) < 0.5
    assert cut == []


@pytest.mark.parametrize(
    ("centre", "target"), [("hull", "box"), ("triangulated", "volume"), ("keypoints", "vertices")]
)
def test_centre_is_near_the_true_one_and_moves_as_smoothly(truth, survey, centre, target):
    items = list(survey.observations.values())
    frames = [item.frame for item in items]
    config = GeometryConfig(centre=centre)
    found = frame_centers(config, items, [0] * len(items), truth.cameras, survey.keypoints)
    if target == "box":
        true = (truth.track["bbox_min_mm"][frames] + truth.track["bbox_max_mm"][frames]) / 2
    elif target == "vertices":
        true = truth.track["centroid_mm"][frames]
    else:
        true = np.stack([volume_centroid(*truth.mesh(frame)) for frame in frames])
    error = found - true
    assert np.median(np.linalg.norm(error, axis=1)) < 6
    in_a_row = [row for row in range(1, len(frames)) if frames[row] == frames[row - 1] + 1]
    assert len(in_a_row) > 10
    # The animal moves on by some millimetres a frame; the centre may tremble about that by less than one.
    tremble = np.linalg.norm(np.diff(error, axis=0), axis=1)[np.array(in_a_row) - 1]
    assert np.median(tremble) < 1


def test_stored_similarity_takes_model_coordinates_back_to_millimetres(truth, survey):
    for geometry in (GeometryConfig(), GeometryConfig(up="-x", scale=0.02)):
        similarities, _, _ = similarities_of(truth, survey, geometry)
        similarity = similarities[CHECKED[0]]
        stored = np.array(json.loads(json.dumps(similarity.world_from_model.tolist())))
        vertices, _ = truth.mesh(CHECKED[0])
        back = similarity.apply(vertices) @ stored[:3, :3].T + stored[:3, 3]
        np.testing.assert_allclose(back, vertices, rtol=1e-9, atol=1e-9)


# End to end


@pytest.fixture(scope="module")
def comparison(truth, tmp_path_factory):
    """Vertices in model units, written alpha and true coverage of every view, and the samples."""
    output = tmp_path_factory.mktemp("truth") / "out"
    config = {
        "input": {"recording": truth.folder.parent, "jumps": []},
        "output": output,
        "selection": {"mode": "list", "frames": FRAMES},
        "quality": {"sync_window": 0},
    }
    run(PreprocessConfig.model_validate(config))
    result = SimpleNamespace(models=[], alphas=[], coverages=[], samples=[])
    for position, frame in enumerate(FRAMES):
        sample = read_sample(output / f"sample_{position:06d}")
        assert sample.frame_index == frame
        vertices, faces = truth.mesh(frame)
        model_from_world = np.linalg.inv(sample.world_from_model)
        result.models.append(vertices @ model_from_world[:3, :3].T + model_from_world[:3, 3])
        result.alphas += [read_rgba(view.file)[..., 3] / np.float32(255) for view in sample.views]
        result.coverages += [true_coverage(view.camera, result.models[-1], faces) for view in sample.views]
        result.samples.append(sample)
    return result


def test_true_mesh_covers_the_written_alpha(comparison):
    ious = [overlap(*pair) for pair in zip(comparison.alphas, comparison.coverages, strict=True)]
    assert np.mean(ious) >= 0.99
    assert min(ious) >= 0.985


def test_written_alpha_is_nowhere_shifted(comparison):
    offsets = [offset_px(*pair) for pair in zip(comparison.alphas, comparison.coverages, strict=True)]
    assert np.abs(offsets).max() < 0.05
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.015


def test_true_animal_fills_the_box_and_is_centred(comparison):
    extents = [np.abs(model).max() for model in comparison.models]
    assert 0.88 < max(extents) < 0.91
    for model in comparison.models:
        assert np.abs(model.min(0) + model.max(0)).max() / 2 < 0.03


def test_written_similarity_is_exact_and_all_cameras_stand_where_the_rig_says(comparison, truth):
    for sample, model, frame in zip(comparison.samples, comparison.models, FRAMES, strict=True):
        back = model @ sample.world_from_model[:3, :3].T + sample.world_from_model[:3, 3]
        np.testing.assert_allclose(back, truth.mesh(frame)[0], rtol=1e-9, atol=1e-9)
        for view in sample.views:
            center = sample.world_from_model @ [*view.camera.center, 1]
            np.testing.assert_allclose(center[:3], truth.cameras[view.view_id].center, rtol=1e-9)
