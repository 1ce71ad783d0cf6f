"""`mfl view`: a page served by viser, for as long as the command runs."""

import getpass
import io
import logging
import os
import socket
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

from ..errors import ConfigError, DependencyError
from .config import ViewConfig
from .contents import find_groups
from .player import Player
from .shown import read_moment

if TYPE_CHECKING:
    import viser

log = logging.getLogger(__name__)

TRIES = 100
"""Ports that are looked at."""


def run(config: ViewConfig, dry_run: bool = False) -> None:
    """Show what paths hold until interrupted.

    Args:
        config: What, and where.
        dry_run: Read the first moment and stop.

    Raises:
        DependencyError: viser is not installed.
        DataError: a path holds nothing that can be shown.
        ConfigError: nothing can be served at that address.
    """
    _check_viser()
    groups = find_groups(config.paths)
    port = _free_port(config.host, config.port)
    for group in groups:
        log.info("%s: %d to see", group.name, len(group.moments))
    if dry_run:
        read_moment(groups[0].moments[0], config.frame)
        return
    with _serving(config, port) as server:
        player = Player(server, groups, config)
        _announce(config, server.get_port())
        player.run()


def _check_viser() -> None:
    try:
        import viser  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f"`mfl view` needs viser, which cannot be imported ({error}). Install it with "
            "`pip install 'mouse-facelift[viewer]'`. The page view.html beside a result of `mfl infer` "
            "shows it without."
        ) from None


def _free_port(host: str, first: int) -> int:
    """The first port from there on that nobody listens at.

    Raises:
        ConfigError: there is none, or the address is not one of this machine.
    """
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"host={host} is not an address ({error}). Use localhost or 0.0.0.0.") from None
    ports = range(first, min(first + TRIES, 65536))
    reason: OSError | None = None
    for port in ports:
        try:
            for family, kind, protocol, _, address in addresses:
                with socket.socket(family, kind, protocol) as probe:
                    # As the server will: a port that was in use a moment ago is free.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((address[0], port, *address[2:]))
        except OSError as error:
            reason = error
        else:
            return port
    raise ConfigError(
        f"no port from {ports[0]} to {ports[-1]} can be served at host={host} ({reason}). Choose another "
        "port, or host=localhost."
    )


@contextmanager
def _serving(config: ViewConfig, port: int) -> Iterator["viser.ViserServer"]:
    """viser's server, which tells on the terminal what we tell ourselves."""
    import viser

    with redirect_stdout(io.StringIO()):
        server = viser.ViserServer(host=config.host, port=port, label="mfl view", verbose=False)
    try:
        # Sharing would send the scene to a server of viser's makers.
        dark = config.background < 0.5
        server.gui.configure_theme(dark_mode=dark, show_logo=False, show_share_button=False)
        yield server
    finally:
        with redirect_stdout(io.StringIO()):
            server.stop()


def _announce(config: ViewConfig, port: int) -> None:
    """Tell where the page is, and open it where there is somebody to look."""
    if port != config.port:
        log.info("port %d is in use, taking %d", config.port, port)
    near = "localhost" if config.host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::") else config.host
    address = f"http://{near}:{port}"
    log.info("open %s in a browser; Ctrl-C ends", address)
    connection = os.environ.get("SSH_CONNECTION", "").split()
    if len(connection) == 4 and near == "localhost":
        user, server = getpass.getuser(), connection[2]
        log.info("from your own machine: ssh -N -L %d:localhost:%d %s@%s", port, port, user, server)
    if config.open is True or (config.open is None and not connection and _has_display()):
        webbrowser.open(address)


def _has_display() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
