"""The `mfl` command: every subcommand reads one config, and every user error is one message and exit code 2.

Exit codes: 0 done, 2 user error, 130 interrupted, 1 a bug. Rooms are imported only when their command runs.
"""

import errno
import importlib
import logging
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from . import __version__, progress
from .errors import ConfigError, MflError

USER_ERROR, INTERRUPTED, BUG = 2, 130, 1

REFUSALS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EIO,
    errno.EEXIST,
    errno.ENOTDIR,
)
"""What the system says when files cannot be read or written; no bug of ours."""


@dataclass(frozen=True)
class Subcommand:
    """Where a subcommand's configuration and entry point live, as `module:name`, imported on use."""

    summary: str
    config: str
    entry: str


SUBCOMMANDS = {
    "preprocess": Subcommand(
        "Turn a multi-camera recording into FaceLift samples with exact cameras.",
        "preprocess.config:PreprocessConfig",
        "preprocess.run:run",
    ),
    "train-mvdiff": Subcommand(
        "Fine-tune MVDiffusion: one view to all views.",
        "mvdiffusion.config:TrainMVDiffConfig",
        "mvdiffusion.train:run",
    ),
    "train-gslrm": Subcommand(
        "Fine-tune GS-LRM: posed views to 3D Gaussians.",
        "gslrm.config:TrainGSLRMConfig",
        "gslrm.train:run",
    ),
    "infer": Subcommand(
        "Reconstruct samples: Gaussians, renders, turntable, metrics.",
        "inference.config:InferConfig",
        "inference.run:run",
    ),
    "demo": Subcommand(
        "Run every stage, small, on a synthetic recording that it makes itself.",
        "demo.config:DemoConfig",
        "demo.run:run",
    ),
}


class ConfigCommand(TyperCommand):
    """A command whose `--help` ends with its configuration keys."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the usual help, then every key with its type, default and meaning."""
        super().format_help(ctx, formatter)
        from rich.console import Console
        from rich.padding import Padding

        from .config import describe

        console = Console(markup=False, highlight=False)
        console.print(" Configuration keys, for the file and as KEY=VALUE\n")
        for field in describe(_load(SUBCOMMANDS[str(self.name)].config)):
            # A list and not a table: keys must be readable in full on a terminal of any width.
            default = "required" if field.default == "required" else f"default {field.default}"
            console.print(f" {field.key}  ({field.type}; {default})", soft_wrap=True)
            console.print(Padding(field.description, (0, 0, 0, 5), expand=False))


app = typer.Typer(
    name="mfl",
    help="From six calibrated cameras of a mouse to 3D Gaussians.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with the configuration.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY.SUB=VALUE", help="Settings on top of the file.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, run nothing.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")]
Shard = Annotated[
    str | None,
    typer.Option("--shard", help="i/n: do the i-th of n parts (1/n to n/n), for job arrays; then merge."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="The same as overwrite=true.")]
Overfit = Annotated[
    int | None,
    typer.Option(
        "--overfit",
        metavar="N",
        min=1,
        help="Sanity check: learn N samples by heart, tell PSNR on inputs and on held-out views; the same as "
        "overfit=N.",
    ),
]
Mode = Annotated[str | None, typer.Option("--mode", help="direct or e2e; the same as mode=VALUE.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"mouse-facelift {__version__}")
        raise typer.Exit


def _register(name: str, subcommand: Subcommand) -> None:
    def command(
        config: ConfigFile = None, overrides: Overrides = None, dry_run: DryRun = False, debug: Debug = False
    ) -> None:
        _run(subcommand, config, overrides or [], dry_run, debug)

    def preprocess(
        config: ConfigFile = None,
        overrides: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="[merge] KEY.SUB=VALUE",
                help="Settings on top of the file; with `merge` among them: finish what shards have done in "
                "output=DIR.",
            ),
        ] = None,
        shard: Shard = None,
        overwrite: Overwrite = False,
        dry_run: DryRun = False,
        debug: Debug = False,
    ) -> None:
        settings = [*(overrides or []), *(["overwrite=true"] if overwrite else [])]
        _at_border(lambda: _preprocess(subcommand, config, settings, shard, dry_run), debug)

    def command_with_mode(
        config: ConfigFile = None,
        overrides: Overrides = None,
        mode: Mode = None,
        dry_run: DryRun = False,
        debug: Debug = False,
    ) -> None:
        settings = [*(overrides or []), *([f"mode={mode}"] if mode else [])]
        _run(subcommand, config, settings, dry_run, debug)

    def command_with_overfit(
        config: ConfigFile = None,
        overrides: Overrides = None,
        overfit: Overfit = None,
        dry_run: DryRun = False,
        debug: Debug = False,
    ) -> None:
        settings = [*(overrides or []), *([f"overfit={overfit}"] if overfit else [])]
        _run(subcommand, config, settings, dry_run, debug)

    functions: dict[str, Callable[..., None]] = {
        "infer": command_with_mode,
        "preprocess": preprocess,
        "train-gslrm": command_with_overfit,
    }
    app.command(name, cls=ConfigCommand, help=subcommand.summary)(functions.get(name, command))


for _name, _subcommand in SUBCOMMANDS.items():
    _register(_name, _subcommand)


def _run(
    subcommand: Subcommand, path: Path | None, overrides: Sequence[str], dry_run: bool, debug: bool
) -> None:
    def work() -> None:
        from .config import load_config

        config = load_config(_load(subcommand.config), path, overrides)
        _load(subcommand.entry)(config, dry_run=dry_run)

    _at_border(work, debug)


def _preprocess(
    subcommand: Subcommand, path: Path | None, settings: Sequence[str], shard: str | None, dry_run: bool
) -> None:
    from .config import load_config

    model = _load(subcommand.config)
    if "merge" in settings:
        if shard or dry_run:
            raise ConfigError("`mfl preprocess merge` takes neither --shard nor --dry-run: leave them out.")
        # Merging reads everything but the output's place from there.
        rest = [setting for setting in settings if setting != "merge"]
        _load("preprocess.run:merge")(load_config(model, path, ["input.recording=.", *rest]))
        return
    share = {"shard": _load("preprocess.shard:Shard").parse(shard)} if shard else {}
    _load(subcommand.entry)(load_config(model, path, settings), dry_run=dry_run, **share)


def _at_border(work: Callable[[], None], debug: bool) -> None:
    """Every outcome of a command becomes an exit code."""
    _set_up_terminal(debug)
    try:
        work()
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:  # noqa: BLE001 - the one place that may: it reports and exits
        message = _user_message(error)
        if message is None or debug:
            traceback.print_exc()
        if message is None:
            typer.echo("This is a bug in mouse-facelift; please report it with the lines above.", err=True)
            raise typer.Exit(BUG) from None
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(USER_ERROR) from None


def _user_message(error: Exception) -> str | None:
    """What to tell the user where the cause lies with the request or the file system; None for a bug."""
    if isinstance(error, MflError):
        return str(error)
    if isinstance(error, OSError) and error.errno in REFUSALS:
        # A write that fails, unlike an open, does not say to which file.
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}. Check the path, its permissions and the free space."
    return None


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f".{module}", __package__), name)


def _set_up_terminal(debug: bool) -> None:
    from rich.console import Console
    from rich.logging import RichHandler

    console = Console(stderr=True)
    if console.is_terminal:
        progress.console = console
        handler: logging.Handler = RichHandler(console=console, show_path=False, show_time=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        # A log file has neither a width to fold lines at nor a line to draw progress on.
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger(__package__).setLevel(logging.DEBUG if debug else logging.INFO)


def main() -> None:
    """Console script. A cluster's or a container's SIGTERM cleans up like Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app(prog_name="mfl")
