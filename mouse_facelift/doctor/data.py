"""Lists, samples, pictures and cameras of a data set, as training will meet them."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..samples.format import SampleView, read_rgba
from ..words import several
from .dataset import LISTS, DataSet, spread
from .findings import Finding, ok, problem, some, warning

REMAKE = "Write them again with `mfl preprocess`, or take them out of the lists."
TINY_SHARE, WHOLE_SHARE, SOFT_SHARE = 0.001, 0.95, 0.6
"""Of a picture that is animal; of the animal that is half transparent."""
NEAR, FAR = 0.5, 20.0
"""Distance of a camera from the origin, model units: FaceLift's stand at 2.7."""
FOCAL_TOLERANCE = 1e-3
SCALE_TOLERANCE = 1e-6


def check_lists(data: DataSet) -> Iterator[Finding]:
    """Lists can be read and name folders, none of them twice."""
    if data.list_faults:
        yield problem("lists", some(data.list_faults), "Correct the list, or run `mfl preprocess` again.")
    repeated = [
        f"{name} names {folder} {several(count, 'time')}"
        for name, folders in data.parts.items()
        for folder, count in Counter(path.resolve() for path in folders).items()
        if count > 1
    ]
    if repeated:
        yield warning(
            "lists", some(repeated), "Leave one line of each: the others weigh it more than the rest."
        )
    if not data.list_faults and not repeated:
        counts = (f"{name}: {several(len(folders), 'sample')}" for name, folders in data.parts.items())
        yield ok("lists", ", ".join(counts))


def check_samples(data: DataSet) -> Iterator[Finding]:
    """Cameras files can be read, pictures exist, and all samples have the same views."""
    looked = len(data.samples) + len(data.sample_faults)
    seen = f"{looked} of {several(data.count, 'sample')}"
    if data.sample_faults:
        found = f"{len(data.sample_faults)} of {looked} cannot be read: {some(data.sample_faults)}"
        yield problem("samples", found, REMAKE)
    views = Counter(tuple(view.view_id for view in sample.views) for sample in data.samples.values())
    if len(views) > 1:
        (usual, _), (other, _) = views.most_common()[0], views.most_common()[-1]
        odd = next(f for f, s in data.samples.items() if tuple(v.view_id for v in s.views) == other)
        found = f"{odd} has the cameras {list(other)}, most have {list(usual)}"
        yield problem("samples", found, "Train on samples with the same cameras, one list for each rig.")
    elif views and not data.sample_faults:
        yield ok("samples", f"{seen} looked at, all with the cameras {list(next(iter(views)))}")


def check_pictures(data: DataSet) -> Iterator[Finding]:
    """Pictures can be decoded, have their camera's size, and an alpha that shows an animal."""
    views = [view for sample in data.samples.values() for view in sample.views]
    chosen = spread(views, data.pictures)
    broken: list[str] = []
    odd: list[str] = []
    shares = []
    for view in chosen:
        try:
            picture = read_rgba(view.file)
        except DataError as error:
            broken.append(str(error))
            continue
        height, width = picture.shape[:2]
        if (width, height) != (view.camera.width, view.camera.height):
            expected = f"{view.camera.width}x{view.camera.height}"
            broken.append(f"{view.file} is {width}x{height}, its camera is for {expected}")
        alpha = picture[..., 3] / 255
        shares.append(float(alpha.mean()))
        if fault := _fault_of_alpha(alpha):
            (broken if fault.startswith("is ") else odd).append(f"{view.file} {fault}")
    if broken:
        yield problem("pictures", f"{len(broken)} of {len(chosen)}: {some(broken)}", REMAKE)
    if odd:
        fix = "Look at them and at their masks; geometry.scale of `mfl preprocess` sets the animal's size."
        yield warning("pictures", f"{len(odd)} of {len(chosen)}: {some(odd)}", fix)
    if chosen and not broken and not odd:
        middle = float(np.median(shares))
        yield ok(
            "pictures", f"{len(chosen)} of {len(views)} decoded, the animal covers {middle:.1%} in the median"
        )


def check_cameras(data: DataSet) -> Iterator[Finding]:
    """Cameras see the origin, where the animal is, with square pixels; each stands at its own place."""
    wrong: list[str] = []
    odd: list[str] = []
    for folder, sample in data.samples.items():
        for view in sample.views:
            name = f"{folder}, camera {view.view_id}"
            wrong += [f"{name}: {fault}" for fault in _faults_of_camera(view)]
            odd += [f"{name}: {fault}" for fault in _oddities_of_camera(view)]
        centers = np.stack([view.camera.center for view in sample.views])
        if len(np.unique(centers.round(6), axis=0)) < len(centers):
            wrong.append(f"{folder}: two cameras stand at the same place")
    if wrong:
        fix = "See the conventions in docs/architecture.md: OpenCV, w2c, the animal at the origin."
        yield problem("cameras", some(wrong), fix)
    if odd:
        fix = "FaceLift's cameras have square pixels and stand at 2.7; `mfl preprocess` writes such cameras."
        yield warning("cameras", some(odd), fix)
    if data.samples and not wrong and not odd:
        distances = [float(np.linalg.norm(v.camera.center)) for s in data.samples.values() for v in s.views]
        found = f"all look at the origin, from {min(distances):.2f} to {max(distances):.2f} units away"
        yield ok("cameras", found)


def check_scale(data: DataSet) -> Iterator[Finding]:
    """One scale for all samples of a recording, so that the animal keeps its size."""
    scales: dict[Path, list[float]] = {}
    uneven = []
    for folder, sample in data.samples.items():
        try:
            if (scale := sample.mm_per_unit) is not None:
                scales.setdefault(folder.parent, []).append(scale)
        except DataError as error:
            uneven.append(str(error))
    uneven += [
        f"{place}: from {min(found):.6g} to {max(found):.6g} mm per unit"
        for place, found in scales.items()
        if max(found) - min(found) > SCALE_TOLERANCE * max(found)
    ]
    if uneven:
        yield problem("scale", some(uneven), "One run of `mfl preprocess` gives one scale; do not mix runs.")
    elif scales:
        yield ok(
            "scale", ", ".join(f"{found[0]:.4g} mm per unit in {place}" for place, found in scales.items())
        )
    elif data.samples:
        yield ok("scale", "not recorded in these samples (no world_from_model)")


def check_overlap(data: DataSet) -> Iterator[Finding]:
    """No frame is in training and in validation."""
    if not all(name in data.parts for name in LISTS):
        return
    train, val = ({folder.resolve() for folder in data.parts[name]} for name in LISTS)
    both = [f"{path} is in both lists" for path in sorted(train & val)]
    frames: dict[tuple[Path, int | None], Path] = {
        (folder.resolve().parent, sample.frame_index): folder
        for folder, sample in data.samples.items()
        if folder.resolve() in train and sample.frame_index is not None
    }
    for folder, sample in data.samples.items():
        twin = frames.get((folder.resolve().parent, sample.frame_index))
        if folder.resolve() in val - train and twin is not None:
            both.append(f"{folder} and {twin} are both of frame {sample.frame_index}")
    if both:
        fix = "Take them out of one list: validation on what was trained says nothing."
        yield problem("train and validation", some(both), fix)
    else:
        looked = len(data.samples)
        yield ok("train and validation", f"no folder in both lists, no frame in both of {looked} samples")


def _fault_of_alpha(alpha: np.ndarray) -> str | None:
    """Begins with `is` where nothing can be learned from the picture."""
    share, covered = float(alpha.mean()), alpha > 0
    if not covered.any():
        return "is empty: alpha is 0 everywhere"
    if share > WHOLE_SHARE:
        return f"is all animal: mean alpha {share:.2f}"
    if share < TINY_SHARE:
        return f"shows hardly any animal: {share:.3%}"
    soft = float((alpha[covered] < 1).mean())
    return f"shows a ghost: {soft:.0%} of the animal is half transparent" if soft > SOFT_SHARE else None


def _faults_of_camera(view: SampleView) -> Iterator[str]:
    camera = view.camera
    pixel, depth = camera.project((0.0, 0.0, 0.0))
    if not depth > 0:
        yield "the origin, where the animal is, lies behind it"
    elif not (0 <= pixel[0] <= camera.width and 0 <= pixel[1] <= camera.height):
        yield f"the origin, where the animal is, lies outside its picture at ({pixel[0]:.0f}, {pixel[1]:.0f})"


def _oddities_of_camera(view: SampleView) -> Iterator[str]:
    K, distance = view.camera.K, float(np.linalg.norm(view.camera.center))
    if abs(K[0, 0] / K[1, 1] - 1) > FOCAL_TOLERANCE:
        yield f"fx {K[0, 0]:.2f} and fy {K[1, 1]:.2f} differ"
    if not NEAR <= distance <= FAR:
        yield f"stands {distance:.3g} units from the origin: are these millimetres?"
