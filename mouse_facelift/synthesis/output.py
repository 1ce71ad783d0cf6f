"""The output folder of `mfl synthesize`: what is finished, and whether it is what would be made now."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import remove_leftovers, write_json
from ..provenance import Run, check_maker, check_output
from ..samples.format import CAMERAS_FILE, read_sample, write_list, write_sample
from .composing import NewView
from .plan import LISTS, PARTS, Planned

COMMAND = "synthesize"
RUN = "run.json"
MANIFEST = "manifest.json"
REJECTED = "rejected"
"""Folder that tells of samples that could not be used, so that they are not made again and again."""

KEPT = ("frame_index", "world_from_model", "similarity", "source")
"""What a new sample takes over from its source: where and when it was taken."""


class OutputFolder:
    """New samples, each with the recipe that it was made by.

    Args:
        path: Where they go.
        plan: What shall be there in the end.
        overwrite: Make finished ones again.

    Raises:
        ConfigError: the folder cannot be written, holds something else or the sources, or holds samples that
            would be made otherwise now, or not at all.
    """

    def __init__(self, path: Path, plan: Sequence[Planned], overwrite: bool) -> None:
        check_output(path)
        check_maker(path, COMMAND)
        self.path, self._plan, self._overwrite = path, plan, overwrite
        for planned in plan:
            if self.folder(planned).resolve() == planned.source.folder.resolve():
                raise ConfigError(
                    f"output: {path} is where the samples lie; new ones would replace them. Choose another."
                )
        self._check_foreign_files()
        self._check_others()
        self._finished = set() if overwrite else {p.name for p in plan if self._is_finished(p)}

    def folder(self, planned: Planned) -> Path:
        """Where a sample goes."""
        return self.path / planned.name

    def is_finished(self, planned: Planned) -> bool:
        """Whether a sample is there and is to be kept, or was rejected and would be again."""
        return planned.name in self._finished

    def begin(self, record: Run) -> None:
        """Say whose folder it is, and clear away what is not true while samples are made."""
        record.write(self.path)
        for folder in (self.path, self.path / REJECTED):
            remove_leftovers(folder, ".*")
        if self._overwrite:
            for name in (MANIFEST, *LISTS.values()):
                (self.path / name).unlink(missing_ok=True)

    def write(self, planned: Planned, views: Sequence[NewView], inputs: Sequence[int]) -> None:
        """Write a sample; it appears only when complete.

        Args:
            planned: What it was made by.
            views: All of its views.
            inputs: Ids of those that are made to be shown; empty where all are alike.
        """
        # First: a kill between the two must not leave a finished sample that counts as rejected.
        self._rejection(planned).unlink(missing_ok=True)
        kept = {name: planned.source.metadata[name] for name in KEPT if name in planned.source.metadata}
        named = {"input_view_ids": list(inputs)} if inputs else {}
        write_sample(
            self.folder(planned),
            [view.image for view in views],
            [view.camera for view in views],
            [view.view_id for view in views],
            {**kept, **named, "synthesis": dict(planned.recipe)},
        )

    def reject(self, planned: Planned, reason: str) -> None:
        """Note that a sample cannot be used; one that is overwritten goes."""
        if self.folder(planned).is_dir():
            shutil.rmtree(self.folder(planned))
        write_json(self._rejection(planned), {"reason": reason, "synthesis": dict(planned.recipe)})

    def finish(self, facts: Mapping[str, Any]) -> dict[str, int]:
        """Write the lists and the manifest.

        Args:
            facts: Further keys of the manifest.

        Returns:
            Number of samples, by part of the split, and of rejected ones.
        """
        rejected = {p.name for p in self._plan if self._rejection(p).is_file()}
        good = [planned for planned in self._plan if planned.name not in rejected]
        for part in PARTS:
            folders = [self.folder(planned) for planned in good if planned.part == part]
            write_list(self.path / LISTS[part], folders)
        counts = {part: sum(planned.part == part for planned in good) for part in PARTS}
        counts[REJECTED] = len(rejected)
        entries = [
            {
                "name": planned.name,
                "frame": planned.source.frame_index,
                "part": REJECTED if planned.name in rejected else planned.part,
                "source": str(planned.source.folder.resolve()),
                "synthesis": planned.recipe,
            }
            for planned in self._plan
        ]
        write_json(self.path / MANIFEST, {"complete": True, "counts": counts, **facts, "samples": entries})
        return counts

    def _check_foreign_files(self) -> None:
        """Refuse a folder of something else: lists would be lost, training data be told of other weights."""
        if (self.path / RUN).is_file():
            return
        foreign = sorted(file.name for file in self.path.glob("[!.]*"))
        if foreign:
            raise ConfigError(
                f"output: {self.path} holds {foreign[0]}, but no {RUN} of `mfl {COMMAND}`. Choose an empty "
                "folder, or a new one."
            )

    def _check_others(self) -> None:
        """Refuse finished samples that are not planned: lists, manifest and training data leave them out."""
        names = {planned.name for planned in self._plan}
        others = sorted({file.parent.name for file in self.path.glob(f"[!.]*/{CAMERAS_FILE}")} - names)
        if others:
            raise ConfigError(
                f"output: {self.path} holds {len(others)} samples that would not be made now, such as "
                f"{others[0]}; its lists would lose them. Choose another output, or give all samples at once."
            )

    def _rejection(self, planned: Planned) -> Path:
        return self.path / REJECTED / f"{planned.name}.json"

    def _is_finished(self, planned: Planned) -> bool:
        """Whether it is there; what is there must have been made as it would be now.

        Raises:
            ConfigError: it was made otherwise, or by something else.
        """
        folder, rejection = self.folder(planned), self._rejection(planned)
        if folder.is_dir():
            place, then = folder, read_sample(folder).metadata.get("synthesis")
        elif rejection.is_file():
            place, then = rejection, _read_rejection(rejection)
        else:
            return False
        if then == planned.recipe:
            return True
        if isinstance(then, dict):
            keys = sorted(key for key in {*then, *planned.recipe} if then.get(key) != planned.recipe.get(key))
            found = "; ".join(f"{key}: then {then.get(key)}, now {planned.recipe.get(key)}" for key in keys)
        else:
            found = "it does not say how"
        raise ConfigError(f"{place} was made otherwise ({found}). Choose another output, or overwrite=true.")


def _read_rejection(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["synthesis"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a note of `mfl synthesize` ({error!r}). Remove the file.") from None
