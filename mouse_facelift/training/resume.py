"""Whether a run may continue from a checkpoint: same command, model and data, wherever they lie now."""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from ..errors import CheckpointError, DataError
from ..provenance import Run
from ..samples.format import CAMERAS_FILE, read_list
from ..words import duration
from .checkpoints import MANIFEST, Checkpoint, checkpoint_to_resume, list_checkpoints
from .config import TrainingConfig

log = logging.getLogger(__name__)

FORMAT = 2
"""Version of `state/` and of the manifest's facts; weights are readable whatever the version."""

NEEDED = ("time", "command", "config", "inputs", "data", "world_size", "samples_per_step")
"""Without these a manifest does not say what may continue it."""

FREE_TO_CHANGE = ("training.", "validation.", "output", "cache.folder")
"""Configuration, by how its keys begin, that a resumed run may have otherwise than the run it continues."""

COSTS_ALONE = (".gradient_checkpointing", ".compile")
"""The same by how its keys end: what it changes is time and memory."""

NOT_WORTH_TELLING = ("output", "training.resume")

ORDER = "training.seed"
"""Not free: another order, in the middle of an epoch, would repeat some samples and leave out others."""

ON_PURPOSE = ("optimizer.", ORDER)
"""What may be otherwise if the checkpoint is named: a changed rate can be a wish or an oversight."""


def agreed_checkpoint(run: Path, choice: str, main: bool) -> Checkpoint | None:
    """`checkpoint_to_resume`, the same in all processes.

    The first one looks: the others may see a network disk as it was some time ago.
    """
    chosen = [checkpoint_to_resume(run, choice) if main else None]
    broadcast_object_list(chosen)
    return chosen[0]


def facts_of_run(run: Run, training: TrainingConfig, world: int, frozen: str | None) -> dict[str, Any]:
    """What every manifest of a run says about it, and what decides whether it may be continued.

    Args:
        run: The command, its configuration and the hashes of its inputs. Values of the configuration under
            keys that end with `_list` or `.list` are list files.
        training: Batch and accumulation.
        world: Number of processes.
        frozen: Hash of the weights that are not trained.

    Raises:
        DataError: a list cannot be read.
    """
    known = {key: run.facts[key] for key in ("command", "config", "git_revision", "inputs")}
    leaves = dict(_leaves(known["config"]))
    lists = {value for key, value in leaves.items() if key.endswith(("_list", ".list")) and value is not None}
    return {
        "format": FORMAT,
        **known,
        "config_sha256": hashlib.sha256(json.dumps(known["config"], sort_keys=True).encode()).hexdigest(),
        "data": data_identity(sorted(lists)),
        "frozen": frozen,
        "world_size": world,
        "samples_per_step": training.batch_size * training.gradient_accumulation * world,
    }


def data_identity(lists: Iterable[str | Path]) -> dict[str, dict[str, Any]]:
    """What lists of samples mean, wherever they lie and however their paths are written.

    The hash covers, in order, the samples' names and cameras, and the `manifest.json` that `mfl preprocess`
    wrote beside the list: it holds the hashes of the recording and the settings. Without it, the sizes of the
    pictures' files are covered instead.

    Returns:
        By list, as written: `samples`, `views` (of the first sample), `sha256`.

    Raises:
        DataError: a list or a sample's cameras cannot be read.
    """
    return {str(path): _identify(Path(path)) for path in lists}


def check_compatible(checkpoint: Checkpoint, facts: Mapping[str, Any], named: bool = False) -> None:
    """Refuse to continue a run of another command, model or data; say what differs.

    Args:
        checkpoint: What to continue from.
        facts: `facts_of_run` of now.
        named: The user has asked for this very checkpoint: its optimizer's settings may be changed, and
            settings may be new: a version that did not know them wrote it.

    Raises:
        CheckpointError: with every difference.
    """
    then = checkpoint.manifest
    if then.get("format") != FORMAT:
        raise CheckpointError(
            f"{checkpoint.folder}: its state has format {then.get('format', 1)}, this version continues from "
            f"format {FORMAT}. Start from its weights instead, with another output."
        )
    lacking = [name for name in NEEDED if name not in then]
    if lacking:
        raise CheckpointError(
            f"{checkpoint.folder / MANIFEST}: does not say {', '.join(lacking)}, so nobody knows whether it "
            "may be continued. Start from its weights instead, with another output."
        )
    differences = {key: words for key, words in _differences(then, facts).items() if not _is_free(key)}
    on_purpose = {key for key in differences if _is_on_purpose(key, then["config"])}
    refused = {key: words for key, words in differences.items() if not (named and key in on_purpose)}
    if refused:
        way_out = "Restore these values, choose another output, or start from its weights instead."
        if refused.keys() <= on_purpose:
            way_out += f" To go on with the new ones all the same, set training.resume={checkpoint.folder}."
        raise CheckpointError(
            f"{checkpoint.folder} belongs to another configuration: {'; '.join(refused.values())}. {way_out}"
        )
    if then.get("frozen") != facts["frozen"]:
        raise CheckpointError(
            f"{checkpoint.folder} was trained beside other frozen weights than those given now; a "
            "checkpoint holds only what is trained. Give the start weights that the run began with."
        )


def announce(
    run: Path, training: TrainingConfig, checkpoint: Checkpoint | None, facts: Mapping[str, Any]
) -> None:
    """Say in the log what was found, what is taken, and what will be otherwise than before."""
    found = [item.step for item in list_checkpoints(run)]
    held = f"checkpoints of steps {found[0]} to {found[-1]} ({len(found)})" if found else "no checkpoints"
    if checkpoint is None:
        log.info("%s: holds %s; starting from step 0 (resume=%s)", run, held, training.resume)
        return
    if checkpoint.step > training.steps:
        log.info(
            "%s: is of step %d, beyond training.steps=%d", checkpoint.folder, checkpoint.step, training.steps
        )
        return
    why = "the newest complete one there" if training.resume == "auto" else f"resume={training.resume}"
    log.info("%s: holds %s", run, held)
    log.info(
        "%s: continuing from step %d of %d, written %s ago: %s",
        checkpoint.folder,
        checkpoint.step,
        training.steps,
        duration(max(0.0, time.time() - checkpoint.manifest["time"])),
        why,
    )
    then, now = checkpoint.manifest, facts
    changed = [words for key, words in _differences(then, now).items() if key not in NOT_WORTH_TELLING]
    if changed:
        log.warning("settings have changed since: %s", "; ".join(changed))
    if then["world_size"] != now["world_size"] or then["samples_per_step"] != now["samples_per_step"]:
        log.warning(
            "then %d processes with %d samples a step, now %d with %d: every epoch still holds every sample "
            "once, but other samples share a step and random draws differ, so the result is not that of an "
            "undisturbed run. The learning rate still follows the count of updates.",
            then["world_size"],
            then["samples_per_step"],
            now["world_size"],
            now["samples_per_step"],
        )


def _identify(path: Path) -> dict[str, Any]:
    digest, views = hashlib.sha256(), 0
    folders, manifest = read_list(path), path.parent / MANIFEST
    known = manifest.is_file()
    for folder in folders:
        cameras = folder / CAMERAS_FILE
        try:
            content = cameras.read_bytes()
            pictures = [folder / frame["file_path"] for frame in json.loads(content)["frames"]]
            sizes = [] if known else [picture.stat().st_size for picture in pictures]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{cameras}: not a readable cameras file ({error!r}).") from None
        views = views or len(pictures)
        digest.update(hashlib.sha256(folder.resolve().name.encode()).digest())
        digest.update(hashlib.sha256(content).digest())
        digest.update(json.dumps(sizes).encode())
    if known:
        digest.update(manifest.read_bytes())
    return {"samples": len(folders), "views": views, "sha256": digest.hexdigest()}


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Keys whose values mean something else now, with both in words; a path means what it names."""
    before, after = dict(_leaves(then["config"])), dict(_leaves(now["config"]))
    found = {}
    if then["command"] != now["command"]:
        found["command"] = f"command: then {then['command']}, now {now['command']}"
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if _meaning(old, then) != _meaning(new, now) and not (old == new and _is_folder(old, then)):
            was = _shown(old, then) if _knows(then["config"], key) else "unknown to that version"
            found[key] = f"{key}: then {was}, now {_shown(new, now)}"
    return found


def _is_free(key: str) -> bool:
    return (key.startswith(FREE_TO_CHANGE) and key != ORDER) or key.endswith(COSTS_ALONE)


def _is_on_purpose(key: str, then: Mapping[str, Any]) -> bool:
    """Whether a difference is fine where the checkpoint was named; of a setting that was unknown then nobody
    can restore the value."""
    return (key.startswith(ON_PURPOSE) and key != "optimizer.kind") or not _knows(then, key)


def _knows(config: Mapping[str, Any], key: str) -> bool:
    """Whether the version that wrote a configuration had such a setting, whatever its value."""
    section: Any = config
    for name in key.split("."):
        if not isinstance(section, Mapping):
            return True
        if name not in section:
            return False
        section = section[name]
    return True


def _is_folder(value: Any, facts: Mapping[str, Any]) -> bool:
    """A run to start from, which may have gone on since: this run has left it behind."""
    return value not in facts["data"] and value not in facts["inputs"]


def _meaning(value: Any, facts: Mapping[str, Any]) -> Any:
    """Of a path: a list's samples, a file's hash, or, of a folder, the hash of the inputs found in it."""
    if not isinstance(value, str) or not value:
        return value
    inputs = ((Path(name), digest) for name, digest in facts["inputs"].items())
    inside = {str(path.relative_to(value)): digest for path, digest in inputs if path.is_relative_to(value)}
    if len(inside) > 1:
        return hashlib.sha256(json.dumps(inside, sort_keys=True).encode()).hexdigest()
    return facts["data"].get(value, next(iter(inside.values()), value))


def _shown(value: Any, facts: Mapping[str, Any]) -> str:
    meaning = _meaning(value, facts)
    if isinstance(meaning, dict):
        content = f"{meaning['samples']} samples of {meaning['views']} views"
        return f"{value} ({content}, sha256 {meaning['sha256'][:12]})"
    return repr(value) if meaning == value else f"{value} (sha256 {meaning[:12]})"


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = {str(number): section for number, section in enumerate(value)}
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
