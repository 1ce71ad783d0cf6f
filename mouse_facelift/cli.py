"""The `mfl` command: every subcommand reads one config, and every user error is one message and exit code 2.

Exit codes: 0 done, 2 user error, 130 interrupted, 143 ended by SIGTERM or SIGUSR1, 1 a bug. Rooms are
imported only when their command runs.
"""

import errno
import importlib
import json
import logging
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from . import __version__, progress
from .errors import ConfigError, Interrupted, MflError

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
    "prompts": Subcommand(
        "Encode one text per view for MVDiffusion, with a pipeline's own text encoder.",
        "mvdiffusion.prompts.config:PromptsConfig",
        "mvdiffusion.prompts.command:run",
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
        help="Sanity check: learn N samples by heart and tell how well; the same as overfit=N.",
    ),
]
Gpus = Annotated[
    int | None,
    typer.Option(
        "--gpus", metavar="N", min=1, help="Train on N GPUs of this machine, a process each; 1 if left out."
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

    def training(
        config: ConfigFile = None,
        overrides: Overrides = None,
        overfit: Overfit = None,
        gpus: Gpus = None,
        dry_run: DryRun = False,
        debug: Debug = False,
    ) -> None:
        settings = [*(overrides or []), *([f"overfit={overfit}"] if overfit else [])]
        if gpus is None or gpus == 1:
            _run(subcommand, config, settings, dry_run, debug)
        else:
            _launch(name, gpus, config, settings, dry_run, debug)

    functions: dict[str, Callable[..., None]] = {
        "infer": command_with_mode,
        "preprocess": preprocess,
        "train-gslrm": training,
        "train-mvdiff": training,
    }
    app.command(name, cls=ConfigCommand, help=subcommand.summary)(functions.get(name, command))


for _name, _subcommand in SUBCOMMANDS.items():
    _register(_name, _subcommand)


@app.command("runs", help="List training runs: how far they are, how they stand, what they reached.")
def _runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER ...]", help="Where to look; runs and outputs if none."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    debug: Debug = False,
) -> None:
    def work() -> None:
        from .training import runs

        found = runs.list_runs(folders or [])
        if as_json:
            typer.echo(runs.as_json(found))
            return
        from rich.console import Console

        Console(highlight=False, markup=False).print(
            runs.as_table(found) if found else "no training runs here"
        )

    _at_border(work, debug)


@app.command("cache", help="Decode the pictures of sample lists once, into files that training reads.")
def _cache(
    lists: Annotated[
        list[Path], typer.Argument(metavar="LIST ...", help="List files, as written by `mfl preprocess`.")
    ],
    size: Annotated[int, typer.Option("--size", min=1, help="Side of the pictures in training.")] = 512,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to; sample_cache beside each list if left out.")
    ] = None,
    debug: Debug = False,
) -> None:
    def work() -> None:
        from .samples.cache import FOLDER
        from .samples.datasets import SampleDataset
        from .training.data import cache_pictures

        for path in lists:
            place = folder or path.parent / FOLDER
            samples = SampleDataset.from_list(path, size)
            cache_pictures(samples, place)
            typer.echo(f"{path}: {len(samples)} samples at {size} px are in {place}")

    _at_border(work, debug)


def _run(
    subcommand: Subcommand, path: Path | None, overrides: Sequence[str], dry_run: bool, debug: bool
) -> None:
    def work() -> None:
        from .config import load_config

        config = load_config(_load(subcommand.config), path, overrides)
        _load(subcommand.entry)(config, dry_run=dry_run)

    _at_border(work, debug)


def _launch(
    name: str, gpus: int, path: Path | None, settings: Sequence[str], dry_run: bool, debug: bool
) -> None:
    """The same command in as many processes; their outcome is this one's."""

    def work() -> None:
        from .config import load_config
        from .training.launch import launch

        # What is wrong with the request is told before anything starts.
        load_config(_load(SUBCOMMANDS[name].config), path, settings)
        flags = [*(["--dry-run"] if dry_run else []), *(["--debug"] if debug else [])]
        config = ["--config", str(path)] if path is not None else []
        code, message = launch(gpus, [name, *config, *flags, *settings])
        if message:
            typer.echo(message, err=True)
        raise typer.Exit(code)

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
    except typer.Exit:
        raise
    except KeyboardInterrupt as error:
        raise _interruption(error) from None
    except Exception as error:  # noqa: BLE001 - the one place that may: it reports and exits
        if _interruptions:
            # Raised while a library was importing itself, an interruption comes out as something else.
            raise _interruption(_interruptions[0]) from None
        message = _user_message(error)
        trace = traceback.format_exc() if message is None or debug else ""
        if message is None:
            message = "This is a bug in mouse-facelift; please report it with the lines above."
            raise _end(BUG, trace + message) from None
        raise _end(USER_ERROR, f"{trace}error: {message}") from None


def _end(code: int, message: str) -> typer.Exit:
    """Tell why on stderr. One of several processes leaves that to its launcher, which tells it once."""
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if place is None or "MFL_LAUNCHED" not in os.environ:
        typer.echo(message, err=True)
    else:
        now = time.time()
        # The launcher's own fields, and two of ours: see training/launch.py.
        content = {"message": message, "timestamp": int(now), "exact_time": now, "exit_code": code}
        Path(place).write_text(json.dumps(content), encoding="utf-8")
    return typer.Exit(code)


def _interruption(error: KeyboardInterrupt) -> typer.Exit:
    _interruptions.clear()
    return _end(error.exit_code if isinstance(error, Interrupted) else INTERRUPTED, "interrupted")


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
    # One process tells for all.
    first = os.environ.get("RANK", "0") == "0"
    progress.console = progress.console if first else None
    level = logging.INFO if first else logging.ERROR
    logging.getLogger(__package__).setLevel(logging.DEBUG if debug else level)


def main() -> None:
    """Console script. A cluster's or a container's SIGTERM and a scheduler's warning clean up like Ctrl-C."""
    for which in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(which, _interrupt)
    try:
        app(prog_name="mfl")
    except BaseException:
        if not _interruptions:
            raise
        # Before a command begins, the command line's library takes it for a Ctrl-C, or for a bug.
        raise SystemExit(_interruption(_interruptions[0]).exit_code) from None
    finally:
        # All is told and written: nothing is left that a signal could spoil.
        for which in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(which, signal.SIG_DFL)


_interruptions: list[Interrupted] = []


def _interrupt(number: int, frame: object) -> None:
    _interruptions.append(Interrupted(number))
    raise _interruptions[-1]
