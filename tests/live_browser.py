"""A page that keeps changing, in a Chromium without a window that is talked to over its own protocol."""

import base64
import io
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headless_browser import NAMES, SOFTWARE_WEBGL
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]


class LivePage:
    """An open page."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, itertools.count()

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def script(self, text: str) -> Any:
        """The value of an expression in the page."""
        return self.ask("Runtime.evaluate", expression=text, returnByValue=True)["result"].get("value")

    def script_until(self, text: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.script(text):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {text}")
            time.sleep(0.2)

    def picture(self) -> Picture:
        """What is seen now. [H, W, 3]"""
        data = base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))

    def picture_when(self, good: Callable[[Picture], bool], seconds: float = 60) -> Picture:
        """What is seen as soon as it is good, or in the end."""
        end = time.monotonic() + seconds
        while True:
            picture = self.picture()
            if good(picture) or time.monotonic() > end:
                return picture
            time.sleep(0.5)


@contextmanager
def live_page(address: str, folder: Path, width: int, height: int) -> Iterator[LivePage]:
    """Open a page; skips where there is no Chromium, or nothing to talk to it with."""
    client = pytest.importorskip("websockets.sync.client")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium on the path ({', '.join(NAMES)})")
    profile = folder / "browser"
    # Of an earlier page in the same folder.
    (profile / "DevToolsActivePort").unlink(missing_ok=True)
    command = [
        *(found, "--headless=new", "--no-sandbox", "--disable-background-networking", *SOFTWARE_WEBGL),
        *(f"--window-size={width},{height}", "--hide-scrollbars", f"--user-data-dir={profile}"),
        *("--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank"),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            with client.connect(_target(profile), max_size=None) as socket:
                page = LivePage(socket)
                page.ask("Page.navigate", url=address)
                # Before the first frame there is nothing to take a picture of.
                page.script_until("document.readyState === 'complete' && location.protocol === 'http:'")
                yield page
        finally:
            browser.terminate()
            browser.wait(30)


def _target(profile: Path) -> str:
    """Address of the first page's commands."""
    from urllib.request import urlopen

    told = profile / "DevToolsActivePort"
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if told.is_file() and (lines := told.read_text().split()):
            with urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=10) as answer:
                pages = [target for target in json.load(answer) if target["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise TimeoutError("Chromium does not answer")
