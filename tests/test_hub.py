"""Pinned files of the Hub: cache first, then a download of nothing else, then a message that helps."""

import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from mouse_facelift import hub
from mouse_facelift.errors import CheckpointError, DependencyError

REPO, COMMIT, SUBFOLDER = "someone/weights", "0123456789abcdef0123456789abcdef01234567", "a/pipeline"
NEEDED = ("unet/config.json", "unet/model.safetensors")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub" / "models--someone--weights" / "snapshots" / COMMIT


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[http.server.BaseHTTPRequestHandler]]:
    """A Hub on this machine that answers everything with `status`."""

    class Hub(http.server.BaseHTTPRequestHandler):
        status, code, wait_s = 200, "", 0.0

        def do_GET(self) -> None:
            time.sleep(self.wait_s)
            self.send_response(self.status)
            self.send_header("X-Error-Code", self.code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield Hub
    server.shutdown()
    server.server_close()


def fetch(needed: tuple[str, ...] = NEEDED) -> Path:
    return hub.fetch(REPO, COMMIT, SUBFOLDER, needed, local_key="start.path")


def fill(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


def offer(monkeypatch: pytest.MonkeyPatch, cache: Path, offered: list[str], given: bool = True) -> list[str]:
    """Let the Hub have these files; returns the names that are downloaded, as they come."""
    downloaded: list[str] = []

    def model_info(self: Any, repo_id: str, **options: Any) -> Any:
        assert (repo_id, options["revision"]) == (REPO, COMMIT)
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name, size=2) for name in offered])

    def snapshot_download(repo_id: str, *, revision: str, allow_patterns: list[str]) -> None:
        assert (repo_id, revision) == (REPO, COMMIT)
        downloaded.extend(allow_patterns)
        fill(cache, tuple(allow_patterns) if given else ())

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return downloaded


def test_complete_cache_is_used_without_asking_the_network(
    cache: Path, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "status", 500)
    fill(cache / SUBFOLDER, NEEDED)
    assert fetch() == cache / SUBFOLDER


def test_only_what_is_needed_is_downloaded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = [f"{SUBFOLDER}/{name}" for name in NEEDED]
    fill(cache / SUBFOLDER, NEEDED[:1])
    downloaded = offer(monkeypatch, cache, [*inside, f"{SUBFOLDER}/unet/model.fp16.safetensors", "big.ckpt"])
    assert fetch() == cache / SUBFOLDER
    assert downloaded == inside
    assert all((cache / name).is_file() for name in inside)


def test_top_of_a_repository_needs_no_subfolder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, cache, list(NEEDED))
    assert hub.fetch(REPO, COMMIT, None, NEEDED, local_key="start.path") == cache


def test_file_that_the_repository_lacks_is_named_before_any_download(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloaded = offer(monkeypatch, cache, [f"{SUBFOLDER}/{NEEDED[0]}"])
    with pytest.raises(CheckpointError, match=r"has no a/pipeline/unet/model\.safetensors"):
        fetch()
    assert not downloaded


def test_download_that_brings_nothing_is_noticed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, cache, [f"{SUBFOLDER}/{name}" for name in NEEDED], given=False)
    with pytest.raises(CheckpointError, match="after the download"):
        fetch()


def test_disk_that_is_full_is_not_called_a_missing_network(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, cache, [f"{SUBFOLDER}/{name}" for name in NEEDED])

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(OSError, match="No space left"):
        fetch()


@pytest.mark.parametrize("variables", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}])
def test_without_a_network_the_message_says_which_files_go_where(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    code = (
        "from mouse_facelift.hub import fetch\n"
        "from mouse_facelift.errors import DependencyError\n"
        f"try: fetch({REPO!r}, {COMMIT!r}, {SUBFOLDER!r}, {NEEDED!r}, local_key='start.path')\n"
        "except DependencyError as error: print(error)"
    )
    begin = time.monotonic()
    environment = {**os.environ, "HF_HOME": str(tmp_path), **variables}
    message = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert time.monotonic() - begin < 20
    for part in (
        f"{REPO} at {COMMIT}",
        str(tmp_path),
        "put unet/config.json, unet/model.safetensors into checkpoints/weights/a/pipeline/",
        "set start.path=checkpoints/weights/a/pipeline.",
        f"hf download {REPO} {SUBFOLDER}/{NEEDED[0]} {SUBFOLDER}/{NEEDED[1]} --revision {COMMIT} "
        "--local-dir checkpoints/weights",
    ):
        assert part in message
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("status", "code", "error", "message"),
    [
        (401, "", CheckpointError, "HF_TOKEN"),
        (403, "GatedRepo", CheckpointError, "HF_TOKEN"),
        (404, "RepoNotFound", CheckpointError, "the Hub refuses it"),
        (404, "RevisionNotFound", CheckpointError, "Check name and revision"),
        (500, "", DependencyError, "cannot be used"),
        (200, "", DependencyError, "cannot be used"),
    ],
)
def test_refusals_and_failures_are_told_apart(
    cache: Path,
    endpoint: Any,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr(endpoint, "status", status)
    monkeypatch.setattr(endpoint, "code", code)
    with pytest.raises(error, match=message) as caught:
        fetch()
    assert "By hand: put unet/config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hub_that_does_not_answer_costs_seconds(
    cache: Path, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "wait_s", 3.0)
    monkeypatch.setattr(hub, "LOOKUP_TIMEOUT_S", 0.2)
    begin = time.monotonic()
    with pytest.raises(DependencyError, match="Timeout"):
        fetch()
    assert time.monotonic() - begin < 2.5


@pytest.mark.parametrize("revision", ["main", "3ebac9f8", "v1.0", "3EBAC9F8E2D791F02507B8AA61520E1BA379A115"])
def test_names_that_can_move_are_no_revision(revision: str) -> None:
    with pytest.raises(ValueError, match="full commit hash"):
        hub.fetch(REPO, revision, None, NEEDED, local_key="start.path")


def test_impossible_repository_name_is_quoted(cache: Path) -> None:
    with pytest.raises(CheckpointError, match="'no such/thing at all'"):
        hub.fetch("no such/thing at all", COMMIT, None, NEEDED, local_key="start.path")
