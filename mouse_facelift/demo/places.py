"""Where the demo puts things."""

from dataclasses import dataclass
from pathlib import Path

from ..evaluation.compare import PAGE


@dataclass(frozen=True)
class Places:
    """Everything lies below one folder."""

    root: Path

    @property
    def marker(self) -> Path:
        """Which settings and which weights the folder is of; see `facts`."""
        return self.root / "demo.json"

    @property
    def of_stages(self) -> tuple[Path, ...]:
        """What stages write; nothing of it is there before the marker."""
        modes = self.results("direct"), self.results("e2e")
        return (
            self.recording,
            self.samples,
            self.held_out,
            self.truth,
            *modes,
            self.comparison,
            self.tunings,
        )

    @property
    def recording(self) -> Path:
        """The synthetic recording."""
        return self.root / "recording"

    @property
    def samples(self) -> Path:
        """What preprocess writes."""
        return self.root / "samples"

    @property
    def held_out(self) -> Path:
        """List of the samples that are reconstructed and measured."""
        return self.root / "held_out.txt"

    @property
    def truth(self) -> Path:
        """Their true pictures at further cameras, and their true surfaces."""
        return self.root / "truth"

    def results(self, mode: str) -> Path:
        """What infer writes."""
        return self.root / mode

    @property
    def comparison(self) -> Path:
        """What evaluate compare writes."""
        return self.root / "compare"

    @property
    def page(self) -> Path:
        """The report to look at."""
        return self.comparison / PAGE

    @property
    def tunings(self) -> Path:
        """Folder of all fine-tuning."""
        return self.root / "fine_tuned"

    def tuned(self, model: str) -> Path:
        """The run that fine-tunes a model."""
        return self.tunings / model

    def before(self, model: str) -> Path:
        """Validation of the weights that it starts from."""
        return self.tunings / f"{model}_before"
