"""Pictures of the comparison page, and what it says of the figures that it is given."""

import pytest
import torch
from headless_browser import screenshot

from mouse_facelift.evaluation.decision import Contrast, Contrasts, decide
from mouse_facelift.evaluation.report.contents import Arm, Comparison
from mouse_facelift.evaluation.report.page import write_comparison_html
from mouse_facelift.evaluation.report.pictures import error_map, window_of
from mouse_facelift.evaluation.scores import Score
from mouse_facelift.gaussians import Gaussians
from mouse_facelift.viewer import Scene, pack, splat_viewer


def square(left: int, right: int) -> torch.Tensor:
    alpha = torch.zeros(1, 1, 32, 32)
    alpha[..., 8:24, left:right] = 1
    return alpha


def grey(alpha: torch.Tensor, level: float) -> torch.Tensor:
    return (alpha * level + 1 - alpha).expand(-1, 3, -1, -1)


def test_error_maps_are_white_where_all_is_right_and_tell_missing_from_extra():
    true, predicted = square(8, 24), square(12, 28)
    picture = error_map(grey(predicted, 0.2), predicted, grey(true, 0.2), true)[0]
    assert (picture[:, 10, 14] == 1).all(), "the right colour where both are"
    assert (picture[:, 2, 2] == 1).all(), "background"
    missing, extra = picture[:, 10, 9], picture[:, 10, 26]
    assert missing[0] > missing[2], "red"
    assert extra[2] > extra[0], "blue"


def test_the_window_holds_the_animal_of_all_views_and_stays_inside():
    alpha = torch.cat([square(0, 6), square(20, 30)])
    left, top, right, bottom = window_of(alpha)
    assert left == 0
    assert 30 <= right <= 32
    assert right - left == bottom - top
    assert top >= 0
    assert bottom <= 32
    assert window_of(torch.zeros(1, 1, 8, 8)) == (0, 0, 8, 8)


def comparison(total: float, leaks: dict[str, int], viewer: str = "") -> Comparison:
    def about(mean: float) -> Contrast:
        return Contrast(mean, mean - 0.1, mean + 0.1, 12)

    values = {
        "psnr_object_db": 20.0,
        "psnr_animal_db": 15.0,
        "psnr_outline_db": 18.0,
        "psnr_white_db": 3.0,
        "iou": 0.9,
        "angle_deg": 50.0,
        "error_missing": 0.01,
        "error_extra": 0.0,
        "error_colour": 0.02,
    }
    names = ("direct", "e2e")
    scores = {
        name: [Score(name, "x", f"s{n}", n, 1, "held_out", "clean", values) for n in range(6)]
        for name in names
    }
    contrasts = Contrasts(about(total), about(1.5), about(0.8), about(0.5))
    return Comparison(
        arms=[Arm(name, name, f"s{n + 1}", "<what it is>") for n, name in enumerate(names)],
        scores=scores,
        novel={},
        means={name: {key: about(value) for key, value in values.items()} for name in names},
        novel_means={},
        contrasts=contrasts,
        decision=decide(contrasts, 0.25),
        relevant_db=0.25,
        base="",
        gap=None,
        viewer=viewer,
        leaks=leaks,
    )


def test_the_verdict_comes_first_with_margin_and_ceiling(tmp_path):
    write_comparison_html(tmp_path / "page.html", comparison(2.0, {"clean": 12}))
    page = (tmp_path / "page.html").read_text()
    top = page[: page.index('id="arms"')]
    assert 'class="verdict good"' in top
    assert "Train GS-LRM on generated views (5a)" in top
    assert "+0.80 dB" in top
    assert "+1.50 dB" in top
    assert "No frame and no camera that is measured was trained on." in top
    assert "On the animal worse than the true outline in one colour (18.00 dB): direct (15.00 dB)" in top
    assert "&lt;what it is&gt;" in page
    assert "<nav>" not in page


@pytest.mark.parametrize(
    ("mark", "verdict"), [("seen frame", "look"), ("unknown", "look"), ("seen camera", "good")]
)
def test_what_training_has_seen_makes_the_verdict_doubtful(tmp_path, mark, verdict):
    write_comparison_html(tmp_path / "page.html", comparison(2.0, {"clean": 10, mark: 2}))
    page = (tmp_path / "page.html").read_text()
    assert f'class="verdict {verdict}"' in page
    assert f"2 of 12 scores are marked \u201c{mark}\u201d" in page


def test_the_page_opens_without_a_network_and_its_3d_view_is_not_blank(tmp_path):
    generator = torch.Generator().manual_seed(0)
    ball = Gaussians(
        means=0.3 * torch.randn(400, 3, generator=generator),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(400, 1),
        scales=torch.full((400, 3), 0.05),
        opacities=torch.full((400,), 0.9),
        sh0=torch.full((400, 1, 3), -1.0),
    )
    scene = pack(ball)
    viewer = splat_viewer([Scene("direct", [scene]), Scene("e2e", [scene])], side_by_side=True)
    write_comparison_html(tmp_path / "page.html", comparison(2.0, {"clean": 12}, viewer))
    page = (tmp_path / "page.html").read_text()
    # It lies far below, so that the top must lead there.
    assert '<a href="#view">' in page[: page.index('id="arms"')]
    # Only the 3D view is left to see.
    hidden = "section:not(#view), dl, h1, nav, #view h2, #view p"
    only = f"<style>{hidden} {{ display: none }} body {{ margin: 0 }}</style>"
    (tmp_path / "page.html").write_text(page.replace("</head>", f"{only}</head>"))
    pixels = screenshot(tmp_path / "page.html", 1000, 560)
    middle = pixels[100:400, 100:-100]
    dark = middle.max(axis=2) < 160
    halves = dark[:, : dark.shape[1] // 2], dark[:, dark.shape[1] // 2 :]
    assert all(half.mean() > 0.02 for half in halves), [half.mean() for half in halves]
