"""`mfl view` as a user runs it: its address, its end, and the page in a real browser."""

import logging
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from live_browser import LivePage, live_page
from test_viewer_in_browser import GREY, mouse, ours, psnr_db
from things_to_view import cloud, make_result, make_sample, make_sequence

from mouse_facelift.errors import ConfigError, DependencyError
from mouse_facelift.viewer import server
from mouse_facelift.viewer.config import START_VIEWS, ViewConfig
from mouse_facelift.viewer.page import View
from mouse_facelift.viewer.stage import BOX_COLOR, CAMERA_COLOR

WIDTH, HEIGHT = 1200, 800
FREE_OF_PANELS = slice(340, 850)
"""Columns in which neither a notice of the browser nor the controls hide the scene."""

CONTROL = "[...document.querySelectorAll('label')].find((label) => label.textContent === '{}')"
"""A check box, by its name."""


def click(page: LivePage, control: str) -> None:
    page.script_until(f"{CONTROL.format(control)} !== undefined")
    page.script(f"{CONTROL.format(control)}.click()")


def config(tmp_path: Path, **options: object) -> ViewConfig:
    cloud().save_ply(tmp_path / "a.ply")
    return ViewConfig(paths=(tmp_path / "a.ply",), **options)  # type: ignore[arg-type]


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def viewing(*arguments: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A running command, from the moment it has told its address."""
    pytest.importorskip("viser")
    command = [sys.executable, "-m", "mouse_facelift", "view", *map(str, arguments), "open=false"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if found := re.search(r"http://\S+", line):
                    yield found.group(), process
                    return
            pytest.fail("".join(lines))
        finally:
            process.kill()


def test_without_viser_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(DependencyError, match=r"pip install 'mouse-facelift\[viewer\]'"):
        server.run(config(tmp_path))


def test_next_free_port_is_taken() -> None:
    with taken_port() as port:
        free = server._free_port("localhost", port)
        assert port < free < port + server.TRIES


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7"])
def test_address_of_no_one_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match=f"host={host}"):
        server._free_port(host, 8080)


def test_ports_end_at_65535() -> None:
    with socket.create_server(("127.0.0.1", 65535)), pytest.raises(ConfigError, match="65535"):
        server._free_port("127.0.0.1", 65535)


def test_over_ssh_the_tunnel_is_told_and_no_browser_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(server.webbrowser, "open", opened.append)
    monkeypatch.setattr(server.getpass, "getuser", lambda: "mia")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.7 51234 10.0.0.1 22")
    with caplog.at_level(logging.INFO):
        server._announce(config(tmp_path), 8083)
    assert "port 8080 is in use, taking 8083" in caplog.text
    assert "ssh -N -L 8083:localhost:8083 mia@10.0.0.1" in caplog.text
    assert opened == []


def test_browser_opens_by_itself_only_where_there_is_a_display(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(server.webbrowser, "open", opened.append)
    monkeypatch.setattr(server.sys, "platform", "linux")
    for name in ("SSH_CONNECTION", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    server._announce(config(tmp_path), 8080)
    assert opened == []
    server._announce(config(tmp_path, open=True), 8080)
    monkeypatch.setenv("DISPLAY", ":0")
    server._announce(config(tmp_path), 8080)
    assert opened == 2 * ["http://localhost:8080"]


def test_every_start_view_can_be_named() -> None:
    for name in START_VIEWS:
        assert ViewConfig(paths=(Path(),), view=name).view == name  # type: ignore[arg-type]


def test_dry_run_reads_the_first_moment_and_serves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("viser")
    monkeypatch.setattr(server, "_serving", None)
    server.run(config(tmp_path), dry_run=True)


def test_ctrl_c_ends_the_command_cleanly(tmp_path: Path) -> None:
    with taken_port() as port, viewing(make_result(tmp_path / "a"), f"port={port}") as (address, process):
        assert address != f"http://localhost:{port}"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (out, err.strip()) == ("", "interrupted")


def test_page_shows_the_mouse_as_our_renderer_draws_it(tmp_path: Path) -> None:
    mouse().save_ply(tmp_path / "mouse.ply")
    with (
        viewing(tmp_path / "mouse.ply", f"background={GREY}", "view=left") as (address, _),
        live_page(address, tmp_path, WIDTH, HEIGHT) as page,
    ):
        click(page, "box")
        expected = ours(mouse(), View(*START_VIEWS["left"]), WIDTH, page.picture().shape[0])

        def likeness_db(picture: np.ndarray) -> float:
            return psnr_db(picture[:, FREE_OF_PANELS], expected[:, FREE_OF_PANELS])

        shown = page.picture_when(lambda picture: likeness_db(picture) > 45)
    assert likeness_db(np.full_like(expected, round(255 * GREY))) < 30, "the mouse is not in sight"
    assert likeness_db(shown) > 45


def test_page_shows_the_rig(tmp_path: Path) -> None:
    result = make_result(tmp_path / "out/sample_000004", 4, "rig")
    sample = make_sample(tmp_path / "data/sample_000004", 4)
    with (
        viewing(result, sample, "view=rig") as (address, _),
        live_page(address, tmp_path, WIDTH, HEIGHT) as page,
    ):
        page.script_until("document.body.innerText.includes('millimetres of the rig')")

        def all_is_there(picture: np.ndarray) -> bool:
            """Lines of the cameras and of the box."""
            colors = picture[:, FREE_OF_PANELS].reshape(-1, 3).astype(int)
            near = [np.abs(colors - color).max(-1) < 60 for color in (CAMERA_COLOR, BOX_COLOR)]
            return all(found.sum() > 100 for found in near)

        picture = page.picture_when(all_is_there)
    assert all_is_there(picture)


def test_time_plays_in_the_browser(tmp_path: Path) -> None:
    sequence = make_sequence(tmp_path / "sequence", range(10, 14))
    with (
        viewing(sequence, "fps=4") as (address, process),
        live_page(address, tmp_path, WIDTH, HEIGHT) as page,
    ):
        click(page, "play")
        for frame in (12, 10):
            page.script_until(f"document.body.innerText.includes('frame {frame}')")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130, "not while somebody looks"
