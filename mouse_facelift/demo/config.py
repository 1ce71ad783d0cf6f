"""What a synthetic recording is made of."""

from pathlib import Path

from pydantic import Field

from ..config import Config


class RecordingConfig(Config):
    """A synthetic six-camera recording with exact ground truth."""

    seed: int = Field(0, ge=0, description="Seed of the mouse's looks, its motion and the sensor noise.")
    rig_seed: int | None = Field(
        None, ge=0, description="Seed of six other camera positions; null takes the recorded MAMMAL rig."
    )
    frames: int = Field(72, ge=1, description="Length of the recording in frames.")
    fps: int = Field(30, ge=1, le=1000, description="Frames per second.")
    width: int = Field(576, ge=64, multiple_of=2, description="Picture width in pixels, even.")
    height: int = Field(512, ge=64, multiple_of=2, description="Picture height in pixels, even.")
    truth_every: int = Field(
        6, ge=1, description="Every n-th frame gets true masks and pictures from the held-out cameras."
    )
    noise: float = Field(
        1.5, ge=0, le=50, description="Standard deviation of the sensor noise, in grey levels of 255."
    )
    crf: int = Field(18, ge=0, le=51, description="H.264 quality of the colour videos; lower is better.")
    mask_crf: int = Field(24, ge=0, le=51, description="H.264 quality of the mask videos; lower is better.")
    threads: int = Field(2, ge=1, description="Cameras rendered and encoded at the same time.")

    @property
    def truth_frames(self) -> range:
        """Indices of the frames that have true masks and novel views."""
        return range(0, self.frames, self.truth_every)


class DemoConfig(Config):
    """The whole pipeline, small, on a synthetic recording; each stage is the real command."""

    output: Path = Field(Path("outputs/demo"), description="Folder of everything that the demo makes.")
    weights: Path | None = Field(
        None,
        description="Folder with gslrm and mvdiffusion, as scripts/train_demo.py exports it; null takes the "
        "shipped checkpoints/demo.",
    )
    stages: Path | None = Field(
        None, description="Folder with preprocess.yaml, infer.yaml, ...; null takes configs/demo."
    )
    recording: RecordingConfig = Field(
        RecordingConfig(rig_seed=1, frames=60, fps=15, truth_every=2),
        description="The synthetic recording: of a mouse and of cameras that no shipped weights have seen.",
    )
    samples: int = Field(5, ge=1, description="Held-out samples to reconstruct and measure.")
    preprocess: list[str] = Field([], description="Settings on top of preprocess.yaml, as key.sub=value.")
    infer: list[str] = Field([], description="Settings on top of infer.yaml, for both modes.")
    compare: list[str] = Field([], description="Settings on top of compare.yaml.")
    train_mvdiff: list[str] = Field([], description="Settings on top of train_mvdiff.yaml.")
    train_gslrm: list[str] = Field([], description="Settings on top of train_gslrm.yaml.")
