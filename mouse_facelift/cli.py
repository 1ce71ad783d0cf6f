"""The `mfl` command: its subcommands, each with one configuration, and what it takes besides settings.

Rooms are imported only when their command runs.
"""

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from . import __version__, tools
from .border import USER_ERROR, at_border, run_program
from .errors import ConfigError
from .tools import Debug

Command = Callable[..., None]
"""A function whose parameters are the command line's."""


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
    "synthesize": Subcommand(
        "Turn samples into GS-LRM training samples made of MVDiffusion's views.",
        "synthesis.config:SynthesizeConfig",
        "synthesis.run:run",
    ),
    "infer": Subcommand(
        "Reconstruct samples: Gaussians, renders, turntable, metrics.",
        "inference.config:InferConfig",
        "inference.run:run",
    ),
    "evaluate": Subcommand(
        "Measure reconstructions against the truth, with intervals and a guard against leaks.",
        "evaluation.config:EvaluateConfig",
        "evaluation.run:run",
    ),
    "view": Subcommand(
        "Show Gaussians, sequences and the rig on a page that turns, locally or over SSH.",
        "viewer.config:ViewConfig",
        "viewer.server:run",
    ),
    "doctor": Subcommand(
        "Look at this machine, its weights and a data set: what works, and how to mend the rest.",
        "doctor.config:DoctorConfig",
        "doctor.run:run",
    ),
    "demo": Subcommand(
        "Run every stage, small, with trained weights, on a synthetic recording that it makes itself.",
        "demo.config:DemoConfig",
        "demo.run:run",
    ),
}

WORDS = {
    "evaluate": {
        "compare": Subcommand(
            "Compare e2e with direct at the same places, and say what to train next, in one page.",
            "evaluation.compare_config:CompareConfig",
            "evaluation.compare:run",
        )
    }
}
"""Subcommands that are told by a word after another one, such as `mfl evaluate compare`."""


class ConfigCommand(TyperCommand):
    """A command whose `--help` ends with its configuration keys."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the usual help, then every key with its type, default and meaning."""
        super().format_help(ctx, formatter)
        from rich.console import Console
        from rich.padding import Padding

        from .config import describe

        console = Console(markup=False, highlight=False)
        name = str(self.name)
        for word, subcommand in {"": SUBCOMMANDS[name], **WORDS.get(name, {})}.items():
            of = f" of mfl {name} {word}" if word else ""
            console.print(f" Configuration keys{of}, for the file and as KEY=VALUE\n")
            for field in describe(_load(subcommand.config)):
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

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="YAML file with the configuration.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY.SUB=VALUE", help="Settings on top of the file.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, run nothing.")]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="i/n: do the i-th of n parts (1/n to n/n), for job arrays; then merge.",
    ),
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
Mode = Annotated[
    str | None, typer.Option("--mode", metavar="MODE", help="direct or e2e; the same as mode=VALUE.")
]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"mouse-facelift {__version__}")
        raise typer.Exit


def _plain(name: str, subcommand: Subcommand) -> Command:
    def command(
        config: ConfigFile = None, overrides: Overrides = None, dry_run: DryRun = False, debug: Debug = False
    ) -> None:
        at_border(lambda: _run(subcommand, config, overrides or [], dry_run), debug)

    return command


def _evaluate(name: str, subcommand: Subcommand) -> Command:
    def command(
        config: ConfigFile = None,
        overrides: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="[compare] KEY.SUB=VALUE",
                help="Settings on top of the file; with `compare` among them: e2e against direct, on a page.",
            ),
        ] = None,
        dry_run: DryRun = False,
        debug: Debug = False,
    ) -> None:
        settings = overrides or []
        word = next((setting for setting in settings if setting in WORDS[name]), None)
        chosen = subcommand if word is None else WORDS[name][word]
        rest = [setting for setting in settings if setting != word]
        at_border(lambda: _run(chosen, config, rest, dry_run), debug)

    return command


def _preprocess(name: str, subcommand: Subcommand) -> Command:
    def command(
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
        at_border(lambda: _run_preprocess(subcommand, config, settings, shard, dry_run), debug)

    return command


def _infer(name: str, subcommand: Subcommand) -> Command:
    def command(
        config: ConfigFile = None,
        overrides: Overrides = None,
        mode: Mode = None,
        dry_run: DryRun = False,
        debug: Debug = False,
    ) -> None:
        settings = [*(overrides or []), *([f"mode={mode}"] if mode else [])]
        at_border(lambda: _run(subcommand, config, settings, dry_run), debug)

    return command


def _train(name: str, subcommand: Subcommand) -> Command:
    def command(
        config: ConfigFile = None,
        overrides: Overrides = None,
        overfit: Overfit = None,
        gpus: Gpus = None,
        dry_run: DryRun = False,
        debug: Debug = False,
    ) -> None:
        settings = [*(overrides or []), *([f"overfit={overfit}"] if overfit else [])]
        if gpus is None or gpus == 1:
            at_border(lambda: _run(subcommand, config, settings, dry_run), debug)
        else:
            flags = [*(["--dry-run"] if dry_run else []), *(["--debug"] if debug else [])]
            at_border(lambda: _launch(name, subcommand, gpus, config, flags, settings), debug)

    return command


def _demo(name: str, subcommand: Subcommand) -> Command:
    def command(
        config: ConfigFile = None,
        overrides: Overrides = None,
        show: Annotated[
            bool, typer.Option("--open", help="Show the report in a browser at the end.")
        ] = False,
        dry_run: DryRun = False,
        debug: Debug = False,
    ) -> None:
        at_border(lambda: _run_demo(subcommand, config, overrides or [], show, dry_run), debug)

    return command


def _doctor(name: str, subcommand: Subcommand) -> Command:
    def command(
        config: ConfigFile = None,
        arguments: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="[KEY=VALUE|PATH ...]",
                help="Settings on top of the file; a path is a data set, training runs or weights.",
            ),
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
        dry_run: DryRun = False,
        debug: Debug = False,
    ) -> None:
        at_border(lambda: _run_doctor(subcommand, config, arguments or [], as_json, dry_run), debug)

    return command


def _view(name: str, subcommand: Subcommand) -> Command:
    def command(
        config: ConfigFile = None,
        arguments: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="PATH ... [KEY=VALUE]",
                help="Results, PLYs, sequences, samples; settings on top of the file.",
            ),
        ] = None,
        dry_run: DryRun = False,
        debug: Debug = False,
    ) -> None:
        at_border(lambda: _run_view(subcommand, config, arguments or [], dry_run), debug)

    return command


COMMANDS: dict[str, Callable[[str, Subcommand], Command]] = {
    "demo": _demo,
    "doctor": _doctor,
    "evaluate": _evaluate,
    "infer": _infer,
    "preprocess": _preprocess,
    "train-gslrm": _train,
    "train-mvdiff": _train,
    "view": _view,
}
"""Subcommands that take more than a file, settings, --dry-run and --debug."""

for _name, _subcommand in SUBCOMMANDS.items():
    _command = COMMANDS.get(_name, _plain)(_name, _subcommand)
    app.command(_name, cls=ConfigCommand, help=_subcommand.summary)(_command)
tools.register(app)


def _run(subcommand: Subcommand, path: Path | None, overrides: Sequence[str], dry_run: bool) -> None:
    _load(subcommand.entry)(_configured(subcommand, path, overrides), dry_run=dry_run)


def _configured(subcommand: Subcommand, path: Path | None, overrides: Sequence[str]) -> Any:
    """What the user asked for."""
    from .config import check_overrides, load_config

    check_overrides(overrides)
    return load_config(_load(subcommand.config), path, overrides)


def _launch(
    name: str,
    subcommand: Subcommand,
    gpus: int,
    path: Path | None,
    flags: Sequence[str],
    settings: Sequence[str],
) -> None:
    """The same command in as many processes; their outcome is this one's."""
    from .training.launch import launch

    # What is wrong with the request is told before anything starts.
    _configured(subcommand, path, settings)
    config = ["--config", str(path)] if path is not None else []
    code, message = launch(gpus, [name, *config, *flags, *settings])
    if message:
        typer.echo(message, err=True)
    raise typer.Exit(code)


def _run_preprocess(
    subcommand: Subcommand, path: Path | None, settings: Sequence[str], shard: str | None, dry_run: bool
) -> None:
    if "merge" in settings:
        if shard or dry_run:
            raise ConfigError("`mfl preprocess merge` takes neither --shard nor --dry-run: leave them out.")
        # Merging reads everything but the output's place from there.
        rest = [setting for setting in settings if setting != "merge"]
        _load("preprocess.run:merge")(_configured(subcommand, path, ["input.recording=.", *rest]))
        return
    share = {"shard": _load("preprocess.shard:Shard").parse(shard)} if shard else {}
    _load(subcommand.entry)(_configured(subcommand, path, settings), dry_run=dry_run, **share)


def _run_demo(
    subcommand: Subcommand, path: Path | None, overrides: Sequence[str], show: bool, dry_run: bool
) -> None:
    output = _load(subcommand.entry)(_configured(subcommand, path, overrides), dry_run=dry_run)
    if show and not dry_run:
        _load("demo.run:open_report")(output)


def _run_doctor(
    subcommand: Subcommand, path: Path | None, arguments: Sequence[str], as_json: bool, dry_run: bool
) -> None:
    from rich.console import Console

    from .doctor import run

    findings = run.run(_configured(subcommand, path, run.settings(arguments)), dry_run=dry_run)
    if as_json:
        typer.echo(run.as_json(findings))
    else:
        Console(highlight=False, markup=False).print(run.as_text(findings), soft_wrap=True)
    if not run.is_well(findings):
        raise typer.Exit(USER_ERROR)


def _run_view(subcommand: Subcommand, path: Path | None, arguments: Sequence[str], dry_run: bool) -> None:
    _run(subcommand, path, _load("viewer.config:settings")(arguments), dry_run)


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f".{module}", __package__), name)


def main() -> None:
    """Console script."""
    # OpenMP reads it when torch is imported. Threads that spin while they wait make small networks ten times
    # slower as soon as anything else wants one of the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    run_program(lambda: app(prog_name="mfl"))
