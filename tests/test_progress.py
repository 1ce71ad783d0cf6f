import io

import pytest
from rich.console import Console

from mouse_facelift import progress
from mouse_facelift.progress import bar, track


def test_without_a_console_items_pass_in_silence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "console", None)
    assert list(track([3, 1, 2], "work")) == [3, 1, 2]
    with bar("work", 2) as line:
        line.advance(note="x")
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_the_line_counts_and_shows_the_note(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system=None, width=100)
    monkeypatch.setattr(progress, "console", console)
    with bar("train", 3) as line:
        line.advance()
        line.advance(2, note="loss [0.5]")
    assert "train" in screen.getvalue()
    assert "3/3" in screen.getvalue()
    assert "loss [0.5]" in screen.getvalue()


def test_total_of_a_generator_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system=None, width=100)
    monkeypatch.setattr(progress, "console", console)
    assert list(track((n for n in range(2)), "read")) == [0, 1]
    assert "2/?" in screen.getvalue()


def test_error_in_the_work_ends_the_line_and_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "console", Console(file=io.StringIO(), force_terminal=True))
    with pytest.raises(KeyError):
        for item in track([1], "work"):
            raise KeyError(item)
    with bar("next", 1) as line:
        line.advance()
