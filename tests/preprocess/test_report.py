import base64
import io
import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mouse_facelift.geometry import Camera, Similarity
from mouse_facelift.preprocess.config import Limit, QualityConfig
from mouse_facelift.preprocess.facts import RecordingFacts
from mouse_facelift.preprocess.quality import QualityRow, quality_metadata
from mouse_facelift.preprocess.report import Report, write_quality_html
from mouse_facelift.preprocess.report.figures import Table
from mouse_facelift.preprocess.report.rig import rig_drawing
from mouse_facelift.preprocess.report.verdict import findings, lag_text
from mouse_facelift.samples.format import Sample, write_sample

SIZE, SCALE, FPS = 96, 0.01, 50.0
BODY, HEAD = np.array([-8.0, 0, 0]), np.array([24.0, 6, 4])
RADII = (26.0, 15.0)
"""Two joined balls, in mm about the animal's centre."""


def center(position: int) -> np.ndarray:
    return np.array([50 + 3.0 * position, 40 - 2.0 * position, 30])


def rig(views: int) -> list[Camera]:
    cameras = []
    for index in range(views):
        angle = 2 * np.pi * index / views + 0.3
        place = np.array([60 + 300 * np.cos(angle), 40 + 300 * np.sin(angle), 90 + 25 * (index % 3)])
        cameras.append(Camera.look_at(place, (60, 40, 25), 500.0, (320, 256)))
    return cameras


def picture(camera: Camera) -> np.ndarray:
    """The balls in model units as a camera sees them: dark on white, alpha exact to the pixel."""
    grid = np.arange(SIZE) + 0.5
    x, y = np.meshgrid(grid, grid)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(camera.K).T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    mask = np.zeros((SIZE, SIZE), bool)
    for place, radius in zip((BODY, HEAD), RADII, strict=True):
        to_center = camera.R @ (SCALE * place) + camera.t
        mask |= to_center @ to_center - (rays @ to_center) ** 2 <= (SCALE * radius) ** 2
    return np.where(mask[..., None], (60, 50, 40, 255), (255, 255, 255, 0)).astype(np.uint8)


def row(position: int, camera: int, **changes) -> QualityRow:
    values = QualityRow(
        sample=f"sample_{position:06d}",
        frame=10 * position,
        time_s=10 * position / FPS,
        segment=0,
        camera=camera,
        part="val" if position == 2 else "train",
        center_residual_px=3.0 + camera,
        hull_iou=0.97 - 0.001 * position,
        foreground_share=0.1,
        clipped_share=0.0,
        outside_share=0.2,
        touches_border=0,
        area_px=9000,
        area_jump=0.01,
        removed_share=0.0,
        warnings="",
    )
    return replace(values, **changes)


def write_samples(folder: Path, cameras: list[Camera], count: int, order: list[int]) -> list[Sample]:
    """`order[k]` is the view whose picture is written under camera k: other than k is a wrong rig."""
    samples = []
    for position in range(count):
        change = Similarity(SCALE, np.eye(3), center(position))
        written = []
        for camera in cameras:
            distance = SCALE * np.linalg.norm(center(position) - camera.center)
            aimed = Camera.look_at(camera.center, center(position), 103 * distance / 2.7, SIZE)
            written.append(aimed.similarity(change))
        pictures = [picture(camera) for camera in written]
        rows = [row(position, index) for index in range(len(cameras))]
        metadata = {
            "frame_index": 10 * position,
            "world_from_model": change.world_from_model.tolist(),
            "quality": quality_metadata(rows),
        }
        name = folder / f"sample_{position:06d}"
        chosen = [pictures[index] for index in order]
        samples.append(write_sample(name, chosen, written, range(len(cameras)), metadata))
    return samples


def make_report(folder: Path, views: int = 4, count: int = 5, **changes) -> Report:
    cameras = rig(views)
    order = changes.pop("order", list(range(views)))
    facts = RecordingFacts(
        name="balls",
        camera_ids=tuple(range(views)),
        cameras=tuple(cameras),
        frame_count=60,
        fps=FPS,
        frame_counts={str(camera): (60, 60) for camera in range(views)},
        rotation=np.eye(3),
        up="up is z",
        convention="as stored",
        evidence=[evidence("as stored", 0.004), evidence("R transposed", 0.4)],
        lags=[lag(camera) for camera in range(views)],
        notes=(),
    )
    known = {field.name for field in fields(RecordingFacts)} - {"notes"}
    values = {
        "facts": replace(facts, **{name: changes.pop(name) for name in known & set(changes)}),
        "rows": [row(position, camera) for position in range(count) for camera in range(views)],
        "samples": write_samples(folder, cameras, count, order),
        "summary": {"samples": f"{count}: all train"},
        "dropped": [],
        "jumps": [],
        "azimuth_order": tuple(range(views)),
        "centers": np.stack([center(position) for position in range(count)]),
        "scale": SCALE,
        "limits": QualityConfig(),
    }
    return Report(**{**values, **changes})


def evidence(convention: str, residual_share: float) -> dict:
    values = {"convention": convention, "residual_share": residual_share}
    return {**values, "frames": 24, "possible": True, "reason": ""}


def lag(camera: int, best: int = 0, **changes) -> dict:
    lags = tuple(range(-3, 4))
    curve = tuple(0.95 - 0.02 * abs(value - best) for value in lags)
    values = {"camera": camera, "lags": lags, "hull_iou": curve, "best": best, "gain": 0.02}
    return {**values, "conclusive": True, "mask_lag": 0, **changes}


def page(folder: Path, **changes) -> str:
    path = folder / "quality.html"
    write_quality_html(path, make_report(folder, **changes))
    return path.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects elements, and complains about any that is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == name]


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("good")
    return folder, page(folder)


def thumbnails(text: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Alpha of every embedded picture, and its outline filled."""
    pairs = re.findall(
        r'<image href="data:image/png;base64,([^"]+)"[^>]*></image><defs><path d="([^"]*)"',
        text,
    )
    result = []
    for data, line in pairs:
        alpha = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))[..., 3]
        rings = [
            np.array([point.split(",") for point in ring.split("L")], float)
            for ring in re.findall(r"M([^MZ]+)Z", line)
        ]
        filled = np.zeros(alpha.shape, np.uint8)
        shift = 4
        cv2.fillPoly(filled, [np.rint((ring - 0.5) * 2**shift).astype(int) for ring in rings], 1, shift=shift)
        result.append((alpha > 127, filled.astype(bool)))
    return result


def test_page_is_well_formed_and_says_that_all_is_good(good):
    _, text = good
    reader = Reader(text)
    assert text.startswith("<!doctype html>")
    words = " ".join(reader.text)
    assert "Good: everything is far from its limit." in words
    assert "All 4 cameras are in step to the frame." in words
    assert "Every chosen frame became a sample." in words
    assert 'class="verdict good"' in text


def test_page_loads_nothing_and_links_only_to_the_pictures(good):
    folder, text = good
    reader = Reader(text)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|src=", text.replace("// Turns", ""))
    assert not reader.all("link")
    links = [attributes["href"] for attributes in reader.all("a")]
    assert len(links) == 5 * 4
    assert all((folder / link).is_file() for link in links)


def test_every_drawing_has_a_title(good):
    assert len(re.findall(r"<svg[^>]*><title>[^<]+</title>", good[1])) == good[1].count("<svg")


def test_same_samples_give_the_same_bytes(good, tmp_path):
    assert page(tmp_path) == good[1]


def test_outline_lies_on_the_animal(good):
    pairs = thumbnails(good[1])
    assert len(pairs) == 5 * 4
    for alpha, filled in pairs:
        assert alpha.sum() > 300
        assert (alpha & filled).sum() / (alpha | filled).sum() > 0.9


def test_outline_falls_short_where_two_cameras_are_swapped(tmp_path):
    text = page(tmp_path, count=1, order=[1, 0, 2, 3])
    shares = [(alpha & filled).sum() / (alpha | filled).sum() for alpha, filled in thumbnails(text)]
    assert min(shares) < 0.85
    assert re.search(r'<span class="look">outline 0\.[0-8]', text)


def test_whatever_the_recording_says_is_escaped(tmp_path):
    evil = "<script>alert('x')</script>&\"<b>"
    text = page(
        tmp_path,
        name=evil,
        notes=[evil],
        summary={evil: evil},
        convention=evil,
        dropped=[(3, [evil], None)],
        rows=[row(position, camera, warnings=evil) for position in range(5) for camera in range(4)],
    )
    reader = Reader(text)
    assert text.count("<script>") == 1
    assert not reader.all("b") or all("alert" not in str(item) for item in reader.all("b"))
    assert evil in " ".join(reader.text)


def test_what_is_beyond_a_limit_is_red_and_first(tmp_path):
    rows = [row(position, camera) for position in range(5) for camera in range(4)]
    rows[3 * 4 + 1] = replace(rows[3 * 4 + 1], clipped_share=0.05)
    text = page(tmp_path, rows=rows)
    assert 'class="verdict beyond"' in text
    assert "1 of 5 samples is beyond a limit, farthest sample_000003, camera 1: cut off 5.0%." in text
    assert re.findall(r"<h3>(sample_\d+)</h3>", text)[0] == "sample_000003"
    assert '<span class="beyond">cut off 5.0%</span>' in text
    assert len(re.findall(r'<span class="beyond">cut off', text)) == 1


def test_number_of_samples_shown_is_a_setting(tmp_path):
    text = page(tmp_path, count=12, limits=QualityConfig(worst_shown=2))
    assert len(re.findall(r"<h3>sample_", text)) == 4  # two worst, two typical
    assert "Typical samples" in text
    assert "<image" not in page(tmp_path, count=12, limits=QualityConfig(worst_shown=0))


@pytest.mark.parametrize("views", [2, 16])
def test_any_number_of_cameras(tmp_path, views):
    text = page(tmp_path, views=views, count=2)
    Reader(text)
    names = re.findall(r'class="camera-name">(\d+)<', text)
    assert sorted(map(int, names)) == list(range(views))


def test_one_sample_without_lags_evidence_or_frame_rate(tmp_path):
    text = page(
        tmp_path,
        count=1,
        lags=[],
        evidence=[],
        fps=0.0,
        rows=[row(0, camera, time_s=None) for camera in range(4)],
    )
    Reader(text)
    assert "Not measured:" in text
    assert "sample_000000" in text


def test_missing_figures_are_dashes_that_deserve_a_look(tmp_path):
    rows = [row(position, camera) for position in range(5) for camera in range(4)]
    nothing = {
        "hull_iou": np.nan,
        "center_residual_px": np.nan,
        "area_jump": np.nan,
        "foreground_share": np.nan,
    }
    rows = [replace(item, **nothing) if item.camera == 2 else item for item in rows]
    text = page(tmp_path, rows=rows, lags=[lag(camera, hull_iou=(np.nan,) * 7) for camera in range(4)])
    Reader(text)
    assert "nan" not in re.sub(r"base64,[^\"]+|<script>.*</script>", "", text, flags=re.S).lower()
    assert '<span class="look">hull agreement –</span>' in text


def test_dropped_frames_are_counted_by_reason_and_listed(tmp_path):
    dropped = [
        (frame, [f"camera 2: mask agrees 0.{frame} with the hull, limit 0.6"], frame + 1)
        for frame in (11, 21)
    ]
    text = page(tmp_path, dropped=[*dropped, (31, ["camera 1: mask is empty"], None)])
    cells = [re.sub("<[^>]+>", "|", line) for line in re.findall(r"<tr>.*?</tr>", text)]
    assert "||camera 2: mask agrees … with the hull, limit …||2||2||11 to 21||" in cells
    assert "||camera 1: mask is empty||1||0||31 to 31||" in cells
    assert "21 → 22: camera 2: mask agrees 0.21 with the hull, limit 0.6" in text


def test_a_camera_out_of_step_is_told_with_the_remedy(tmp_path):
    text = page(tmp_path, lags=[lag(0), lag(1, best=2), lag(2), lag(3)])
    assert "Camera 1 runs 2 frames late: add 2 to its place in input.frame_offsets." in text
    assert text.count('<figure class="beyond">') == 1
    assert lag_text(lag(1, best=-1)).startswith("runs 1 frame early: add 1 to the other cameras'")
    assert lag_text(lag(1, best=3, conclusive=False)).startswith("cannot be told")


def test_three_thousand_samples_make_a_small_page(tmp_path):
    report = make_report(tmp_path, count=1)
    first = report.samples[0]
    samples = [replace(first, folder=tmp_path / f"sample_{index:06d}") for index in range(3000)]
    rows = [
        row(
            index, camera, hull_iou=0.9 + 0.1 * ((index * 7 + camera * 13) % 101) / 101, segment=index // 1000
        )
        for index in range(3000)
        for camera in range(4)
    ]
    dropped = [(10 * index + 1, ["camera 1: mask is empty"], None) for index in range(2000)]
    facts = replace(report.facts, frame_count=30_000)
    changes = {"rows": rows, "samples": samples, "dropped": dropped, "facts": facts}
    centers = np.cumsum(np.sin(np.arange(9000.0)).reshape(3000, 3), axis=0)
    path = tmp_path / "quality.html"
    write_quality_html(path, replace(report, **changes, centers=centers, jumps=[10_000, 20_000]))
    assert path.stat().st_size < 2_000_000
    Reader(path.read_text(encoding="utf-8"))


@pytest.fixture
def bare(tmp_path) -> Report:
    return make_report(tmp_path, count=2)


def use(report: Report, key: str, **changes) -> float:
    """The way to a limit of the first row, after changing it."""
    rows = [replace(report.rows[0], **changes), *report.rows[1:]]
    return float(Table(replace(report, rows=rows)).use[key][0])


def test_way_to_a_limit_is_one_at_the_limit(bare):
    assert use(bare, "hull_iou", hull_iou=0.6) <= 1 < use(bare, "hull_iou", hull_iou=0.599)
    assert (
        use(bare, "clipped_share", clipped_share=0.02) <= 1 < use(bare, "clipped_share", clipped_share=0.021)
    )
    smallest = 0.0005 * 320 * 256
    assert use(bare, "mask_share", area_px=int(smallest) + 1) < 1 < use(bare, "mask_share", area_px=40)
    assert use(bare, "clipped_share", clipped_share=0.0) == 0


def test_centre_residual_counts_in_the_mean_over_views(bare):
    diagonal = np.hypot(320, 256)
    assert use(bare, "center_residual", center_residual_px=0.1 * diagonal) < 1
    assert use(bare, "center_residual", center_residual_px=0.16 * diagonal) > 1


def test_border_contact_counts_in_the_number_of_views(bare):
    touching = [
        replace(item, touches_border=1) if item.sample == "sample_000001" else item for item in bare.rows
    ]
    found = Table(replace(bare, rows=touching)).use["border_views"]
    assert found[:4].tolist() == [0] * 4
    assert found[4:] == pytest.approx([4 / 3] * 4)


def test_a_limit_of_null_never_counts_and_zero_allows_nothing(bare):
    free = replace(bare, limits=QualityConfig(clipped_share=Limit(value=None, action="warn")))
    strict = replace(bare, limits=QualityConfig(clipped_share=Limit(value=0.0, action="warn")))
    assert use(free, "clipped_share", clipped_share=0.9) == 0
    assert use(strict, "clipped_share", clipped_share=1e-6) == np.inf
    assert use(strict, "clipped_share", clipped_share=0.0) == 0


def test_findings_come_worst_first(bare):
    facts = replace(bare.facts, lags=[lag(0, best=1), lag(1), lag(2), lag(3)])
    report = replace(bare, notes=["half way"], facts=facts)
    levels = [finding.level for finding in findings(report, Table(report))]
    assert levels == sorted(levels, key=("beyond", "look", "good").index)
    assert levels[0] == "beyond"


def test_rig_is_drawn_with_its_own_up(tmp_path):
    """A rig whose Y is up looks the same as the same rig with Z up."""
    turn = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # Z up -> Y up
    upright = make_report(tmp_path)
    change = Similarity(1.0, turn, np.zeros(3))
    turned = tuple(camera.similarity(change) for camera in upright.facts.cameras)
    facts = replace(upright.facts, cameras=turned, rotation=turn.T)
    lying = replace(upright, facts=facts, centers=upright.centers @ turn.T, samples=[])
    frustums = re.compile(r'<path d="([^"]+)"[^>]*class="frustum"')
    assert frustums.findall(rig_drawing(lying, -5.0)) == frustums.findall(rig_drawing(upright, -5.0))
