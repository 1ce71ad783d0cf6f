"""Small commands that read no configuration file: `mfl runs`, `mfl cache`, `mfl weights pull|verify`."""

from pathlib import Path
from typing import Annotated

import typer

from .border import at_border

Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")]
Name = Annotated[str, typer.Argument(metavar="[NAME]", help="Which weights: facelift or sd21unclip.")]
To = Annotated[
    Path | None, typer.Option("--to", metavar="FOLDER", help="Their folder; checkpoints/NAME if left out.")
]

weights = typer.Typer(
    help="Fetch the published weights from the Hugging Face Hub, or check them.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the commands to `mfl`."""
    app.command("runs", help="List training runs: how far they are, how they stand, what they reached.")(runs)
    app.command("cache", help="Decode the pictures of sample lists once, into files that training reads.")(
        cache
    )
    app.add_typer(weights, name="weights")


def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER ...]", help="Where to look; runs and outputs if none."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    debug: Debug = False,
) -> None:
    """`mfl runs`."""

    def work() -> None:
        from .training import runs

        found = runs.list_runs(folders or [])
        if as_json:
            typer.echo(runs.as_json(found))
            return
        from rich.console import Console

        console = Console(highlight=False, markup=False)
        if not console.is_terminal:
            # Lines for a file or a pipe have no width.
            console.width = 1000
        console.print(runs.as_table(found) if found else "no training runs here")

    at_border(work, debug)


def cache(
    lists: Annotated[
        list[Path], typer.Argument(metavar="LIST ...", help="List files, as written by `mfl preprocess`.")
    ],
    size: Annotated[
        int, typer.Option("--size", metavar="PIXELS", min=1, help="Side of the pictures in training.")
    ] = 512,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder", metavar="FOLDER", help="Where to; sample_cache beside each list if left out."
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """`mfl cache`."""

    def work() -> None:
        from .samples.cache import FOLDER
        from .samples.datasets import SampleDataset
        from .training.data import cache_pictures

        for path in lists:
            place = folder or path.parent / FOLDER
            samples = SampleDataset.from_list(path, size)
            cache_pictures(samples, place)
            typer.echo(f"{path}: {len(samples)} samples at {size} px are in {place}")

    at_border(work, debug)


@weights.command("pull", help="Fetch what is missing, once the licence is accepted.")
def weights_pull(
    name: Name = "facelift",
    to: To = None,
    accept: Annotated[
        bool, typer.Option("--accept-licence", help="You have read their licence and accept it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be fetched.")] = False,
    debug: Debug = False,
) -> None:
    """`mfl weights pull`."""

    def work() -> None:
        from .weights.published import find_published
        from .weights.pull import pull

        published = find_published(name)
        pull(published, to or published.home, accept, dry_run)

    at_border(work, debug)


@weights.command("verify", help="Say whether they are all there, and as they were fetched.")
def weights_verify(name: Name = "facelift", to: To = None, debug: Debug = False) -> None:
    """`mfl weights verify`."""

    def work() -> None:
        from .weights.published import find_published
        from .weights.verify import verify

        published = find_published(name)
        folder = to or published.home
        typer.echo(f"{folder}: {verify(published, folder)}")

    at_border(work, debug)
