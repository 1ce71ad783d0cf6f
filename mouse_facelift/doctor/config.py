"""Configuration of `mfl doctor`."""

from pathlib import Path

from pydantic import Field

from ..config import Config


class DoctorConfig(Config):
    """What to look at, and how closely."""

    data: Path | None = Field(
        None,
        description="A list file, a folder of `mfl preprocess`, a folder of samples or one sample; null "
        "looks at the machine alone.",
    )
    weights: Path = Field(
        Path("checkpoints"), description="Where the folders of published weights lie; it may be absent."
    )
    runs: tuple[Path, ...] = Field(
        (Path("runs"), Path("outputs")),
        description="Where training runs lie, whose checkpoints are looked at; folders may be absent.",
    )
    folder: Path = Field(Path(), description="Where results will be written; its disk is looked at.")
    samples: int = Field(
        300, ge=1, description="Samples of `data` whose cameras are read, spread over each list."
    )
    pictures: int = Field(
        24, ge=1, description="Pictures of `data` that are decoded, spread over those samples."
    )
    hash_gb: float = Field(
        1.0,
        ge=0,
        description="GB of weights, and as many of checkpoints, whose checksums are compared; of the rest "
        "only sizes.",
    )
    thorough: bool = Field(
        False,
        description="Look at all samples, pictures and checksums, and let gsplat compile; takes minutes.",
    )

    @property
    def hash_bytes(self) -> float | None:
        """How much may be hashed of one kind of file; None for all."""
        return None if self.thorough else self.hash_gb * 1e9
