"""`mfl weights pull`: fetch published weights, each file into its place only once its checksum is right."""

import logging
import shutil
import time
from pathlib import Path

from ..errors import CheckpointError, ConfigError
from ..files import atomic_path, free_bytes
from ..hub import HubFile, download_file, explained, list_files
from ..progress import track
from ..provenance import check_output, sha256
from ..words import data_size, several
from .published import GSLRM, PIPELINE, Published
from .record import RECORD, Record, RecordedFile, read_record

log = logging.getLogger(__name__)

STAGING = ".download"
"""Below the folder: what has not come completely yet; a second pull goes on from there."""
RESERVE = 500e6
"""Bytes that stay free on the disk."""


def pull(published: Published, folder: Path, accepted: bool, dry_run: bool = False) -> Path:
    """Fetch what is missing and record what is there, so that `mfl infer` takes the folder's weights.

    Args:
        published: Which weights.
        folder: Where to; `gslrm/`, `mvdiffusion/` and `weights.json` below it.
        accepted: The user has accepted the licence.
        dry_run: Tell what would be fetched, then return.

    Returns:
        The folder.

    Raises:
        ConfigError: the licence is not accepted, the disk too small, or the folder or a file there unfit.
        DependencyError: the Hub cannot be reached; the message says which files go where.
        CheckpointError: the Hub does not give the files, or gives other bytes than it describes.
    """
    log.warning("%s: %s", published.licence, published.notice)
    if not accepted and not dry_run:
        raise ConfigError(
            f"nothing was downloaded: {published.repo_id} is under the {published.licence}. If you accept "
            "it, say so with --accept-licence."
        )
    check_output(folder)
    with explained(published.repo_id, published.revision, str(folder), published.by_hand(folder)):
        wanted = published.choose(list_files(published.repo_id, published.revision))
    missing = _missing(wanted, folder)
    needed = sum(file.bytes for file in missing.values())
    _check_disk(needed, folder)
    if dry_run:
        for name, file in wanted.items():
            state = f"would be fetched, {data_size(file.bytes)}" if name in missing else "is there"
            log.info("%s: %s", folder / name, state)
        return folder
    log.info("%s: %d of %d files to be fetched, %s", folder, len(missing), len(wanted), data_size(needed))
    for number, (name, file) in enumerate(missing.items(), start=1):
        log.info("%d/%d %s, %s", number, len(missing), name, data_size(file.bytes))
        _fetch(published, file, folder, folder / name)
    shutil.rmtree(folder / STAGING, ignore_errors=True)
    files = {name: _recorded(file, folder / name) for name, file in wanted.items()}
    _write(published, folder, files)
    _complete_prompts(published, folder, files)
    log.info("%s in %s, as the Hub describes them", several(len(wanted), "file"), folder)
    log.info("%s", usage(published, folder))
    return folder


def usage(published: Published, folder: Path) -> str:
    """The settings that take the weights."""
    if published.gslrm is None:
        return f"mfl train-mvdiff start.kind={published.name} start.path={folder / PIPELINE} ..."
    return f"mfl infer gslrm={folder / GSLRM} mvdiffusion={folder / PIPELINE} ..."


def _missing(wanted: dict[str, HubFile], folder: Path) -> dict[str, HubFile]:
    """What is not there, or is there damaged; refuses to replace what came from elsewhere."""
    record = read_record(folder)
    ours = record.files if record is not None else {}
    missing = {
        name: file
        for name, file in track(wanted.items(), "comparing what is there", len(wanted))
        if not file.is_content_of(folder / name)
    }
    if foreign := [name for name in missing if (folder / name).exists() and name not in ours]:
        raise ConfigError(
            f"{folder / foreign[0]}: exists and is not the published file. Move it away, or choose another "
            "folder with --to."
        )
    return missing


def _check_disk(needed: int, folder: Path) -> None:
    free = free_bytes(folder)
    if needed and needed + RESERVE > free:
        raise ConfigError(
            f"{folder}: {data_size(needed)} are to be fetched and {data_size(free)} are free there; expected "
            f"{data_size(needed + RESERVE)}. Free some, or choose another disk with --to."
        )


def _fetch(published: Published, file: HubFile, folder: Path, path: Path) -> None:
    instructions = published.by_hand(folder)
    with explained(published.repo_id, published.revision, str(folder), instructions):
        staged = download_file(published.repo_id, published.revision, file.name, folder / STAGING)
    if not file.is_content_of(staged):
        size = staged.stat().st_size
        staged.unlink()
        raise CheckpointError(
            f"{path}: came with {size} bytes that are not what the Hub describes ({file.bytes} bytes, "
            f"checksum {file.sha256 or file.git_blob}); thrown away. Pull again: the rest is kept."
        )
    with atomic_path(path) as temporary:
        staged.replace(temporary)


def _recorded(file: HubFile, path: Path) -> RecordedFile:
    """Of a file that was just compared with the Hub's description of it."""
    digest = file.sha256 or sha256(path)
    return RecordedFile(file.bytes, digest, file.name, "sha256" if file.sha256 else "git blob")


def _complete_prompts(published: Published, folder: Path, files: dict[str, RecordedFile]) -> None:
    """The published pipeline comes without prompt embeddings; its own text encoder makes them."""
    if published.style is None:
        return
    from ..mvdiffusion.folders import find_prompts

    pipeline = folder / PIPELINE
    try:
        find_prompts(pipeline)
    except CheckpointError as error:
        if not (pipeline / "text_encoder").is_dir():
            raise CheckpointError(f"{error} All else is in place.") from None
        made = _encode_prompts(published.style, pipeline)
        entry = RecordedFile(made.stat().st_size, sha256(made), None, "none")
        _write(published, folder, {**files, made.relative_to(folder).as_posix(): entry})


def _encode_prompts(style: str, pipeline: Path) -> Path:
    from ..mvdiffusion.folders import prompt_width
    from ..mvdiffusion.prompts import command
    from ..mvdiffusion.prompts.config import PromptsConfig

    log.info("making prompt embeddings, which are not on the Hub, with the pipeline's own text encoder")
    return command.run(
        PromptsConfig(text=pipeline, output=pipeline, style=style, width=prompt_width(pipeline))
    )


def _write(published: Published, folder: Path, files: dict[str, RecordedFile]) -> None:
    """What was made here before stays recorded while it is there."""
    before = read_record(folder) if (folder / RECORD).is_file() else None
    made = {
        name: entry
        for name, entry in (before.files if before else {}).items()
        if entry.source is None and (folder / name).is_file()
    }
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    facts = (published.name, published.repo_id, published.revision, published.licence, now)
    Record(*facts, {**made, **files}).write(folder)
