"""What comes with the package besides code: configurations, and the demo's trained weights."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, ConfigError
from ..gslrm import find_weights, load_gslrm
from ..gslrm.config import GSLRMConfig
from ..mvdiffusion.folders import locate
from ..mvdiffusion.frozen import FrozenParts

PACKAGE = Path(__file__).resolve().parents[1]
HOMES = (PACKAGE, PACKAGE.parent)
"""Inside the installed package, or beside it in a checkout."""


@dataclass(frozen=True)
class DemoWeights:
    """A folder as `scripts/train_demo.py export` writes it."""

    folder: Path

    @property
    def gslrm(self) -> Path:
        """Weights of GS-LRM and what they were trained on."""
        return self.folder / "gslrm"

    @property
    def mvdiffusion(self) -> Path:
        """A complete MVDiffusion pipeline, likewise."""
        return self.folder / "mvdiffusion"

    def model(self) -> GSLRMConfig:
        """Sizes and constants of the GS-LRM: a training that starts from it must repeat them.

        Raises:
            CheckpointError: it cannot be read.
        """
        return load_gslrm(self.gslrm).config


def find_demo_weights(folder: Path | None = None) -> DemoWeights:
    """The weights in a folder, or the shipped ones.

    Raises:
        CheckpointError: there is no such folder, or it holds something else.
    """
    places = [home / "checkpoints" / "demo" for home in HOMES] if folder is None else [folder]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise CheckpointError(
            f"no demo weights at {' or '.join(map(str, places))}. The shipped ones, checkpoints/demo, come "
            "with the repository (git checkout -- checkpoints/demo); scripts/train_demo.py makes others on a "
            "GPU. Give their folder as weights=DIR."
        )
    weights = DemoWeights(found)
    lacking = [place.name for place in (weights.gslrm, weights.mvdiffusion) if not place.is_dir()]
    if lacking:
        raise CheckpointError(
            f"weights: {found} has no folder {' and no folder '.join(lacking)}; expected demo weights as "
            "scripts/train_demo.py exports them. Give such a folder, or leave weights out to take the "
            "shipped ones."
        )
    find_weights(weights.gslrm)
    _, frozen = locate(weights.mvdiffusion)
    FrozenParts.check(frozen)
    return weights


def find_configs() -> Path:
    """The shipped `configs/`.

    Raises:
        ConfigError: they are not there.
    """
    for home in HOMES:
        if (home / "configs" / "demo").is_dir():
            return home / "configs"
    raise ConfigError(f"no configs/demo beside {PACKAGE}; give their folder as stages=DIR.")
