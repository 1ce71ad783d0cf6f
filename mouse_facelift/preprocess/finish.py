"""Last stage, from the samples on disk alone: lists, quality figures, report, manifest."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_json
from ..provenance import Run
from ..samples.format import Sample, read_sample, write_list
from .config import PreprocessConfig
from .facts import RecordingFacts
from .first_pass import FirstPass
from .plan import Dropped, Plan
from .quality import QualityRow, rows_of, write_quality_csv
from .report import Report, write_quality_html
from .workspace import MANIFEST, Identity, Workspace

logger = logging.getLogger(__name__)


def finish(
    config: PreprocessConfig,
    workspace: Workspace,
    identity: Identity,
    facts: RecordingFacts,
    plan: Plan,
    first_pass: FirstPass,
    record: Run,
) -> None:
    """Write what describes the samples, the manifest last, and remove what only an unfinished run needs."""
    output = workspace.output
    planned = [item for item in plan.samples if item.frame not in first_pass.lost]
    samples = [read_sample(output / item.name) for item in planned]
    parts = [item.part for item in planned]
    rows = [row for sample, part in zip(samples, parts, strict=True) for row in rows_of(sample, part)]
    lost = [Dropped(frame, (reason,)) for frame, reason in sorted(first_pass.lost.items())]
    dropped = sorted((*plan.dropped, *lost), key=lambda item: item.frame)
    for part in ("train", "val"):
        chosen = [sample.folder for sample, name in zip(samples, parts, strict=True) if name == part]
        write_list(output / f"data_{part}.txt", chosen)
    write_quality_csv(output / "quality.csv", rows)
    write_quality_html(output / "quality.html", _report(config, facts, plan, samples, rows, dropped))
    record.lap("report")
    record.write(output, {"samples": len(samples), "dropped": len(dropped)})
    write_json(output / MANIFEST, _manifest(identity, facts, plan, samples, parts, dropped))
    workspace.abandon()
    _tell(output, samples, dropped, plan)


def _manifest(
    identity: Identity,
    facts: RecordingFacts,
    plan: Plan,
    samples: list[Sample],
    parts: list[str],
    dropped: list[Dropped],
) -> dict[str, Any]:
    """What the folder holds and why; written last, so it exists only beside complete samples."""
    return {
        "complete": True,
        "counts": {**Counter(parts), "samples": len(samples), "dropped": len(dropped)},
        "scale": plan.framing.scale,
        "rotation": facts.rotation.tolist(),
        "crop_side_px": plan.framing.crop_side_px,
        "azimuth_order": list(plan.azimuth_order),
        "jumps": list(plan.jumps),
        "cut_frames": list(plan.cut),
        "notes": [*facts.notes, *plan.notes],
        "samples": [
            {"name": sample.folder.name, "frame": sample.frame_index, "part": part}
            for sample, part in zip(samples, parts, strict=True)
        ],
        "dropped": [
            {"frame": item.frame, "reasons": list(item.reasons), "replaced_by": item.replaced_by}
            for item in dropped
        ],
        "recording": facts.to_json(),
        "identity": identity,
    }


def _report(
    config: PreprocessConfig,
    facts: RecordingFacts,
    plan: Plan,
    samples: list[Sample],
    rows: list[QualityRow],
    dropped: list[Dropped],
) -> Report:
    parts = Counter(row.part for row in rows[:: len(facts.camera_ids)])
    divided = f"{parts['train']} train, {parts['val']} val, {parts['guard']} guard (in neither)"
    centers = {item.frame: item.similarity.center for item in plan.samples}
    return Report(
        facts=facts,
        rows=rows,
        samples=samples,
        summary={
            "samples": f"{len(samples)}: {divided}",
            "frames dropped": len(dropped),
            "frames cut by the box or a picture": len(plan.cut),
            "orientation": facts.up,
        },
        dropped=[(item.frame, item.reasons, item.replaced_by) for item in dropped],
        jumps=plan.jumps,
        azimuth_order=plan.azimuth_order,
        centers=np.array([centers[row.frame] for row in rows[:: len(facts.camera_ids)]]),
        scale=plan.framing.scale,
        limits=config.quality,
        notes=[*facts.notes, *plan.notes],
    )


def _tell(output: Path, samples: list[Sample], dropped: list[Dropped], plan: Plan) -> None:
    for note in plan.notes:
        logger.warning("%s", note)
    if plan.cut:
        logger.warning(
            "in %d of %d frames a part of the animal leaves the box or a picture", len(plan.cut), len(samples)
        )
    logger.info("%d samples written to %s, %d frames dropped", len(samples), output, len(dropped))
    logger.info("look at %s", output / "quality.html")
