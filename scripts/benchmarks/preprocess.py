"""How fast is `mfl preprocess`, and how much memory does it take, against the obvious loop?

Both run on the same generated 1152x1024 recording, each in its own process, right after one another: the loop
(naive_preprocess.py) on half of its share, `mfl preprocess` with everything that it checks and writes, then
the loop on the other half. The loop's time per sample does not depend on the number of samples, so it gets
some of the frames, spread evenly over the distance to their keyframes; its memory grows with every one.

    python scripts/benchmarks/preprocess.py [--frames 4500] [--every 1 9] [--folder outputs/benchmark]
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MEMORY_PARTS = 4
"""Memory is measured once more on a recording that is this many times shorter."""
QUIET_LOAD = 0.15
"""Share of the cores that may be busy with other things."""

# Nothing heavy is imported here: a child process is charged with the memory of the process that started it.


@dataclass(frozen=True)
class Usage:
    """What a process took.

    Attributes:
        samples: Time steps of six views that were written.
        seconds: From start to end.
        cpu_seconds: Over all cores; counts less than `seconds` where other programs run on the machine.
        peak_mb: Largest resident memory, 10^6 bytes.
    """

    samples: int
    seconds: float
    cpu_seconds: float
    peak_mb: float

    @property
    def rate(self) -> float:
        """Samples per second."""
        return self.samples / self.seconds

    def and_then(self, other: "Usage") -> "Usage":
        """Both, one after the other."""
        return Usage(
            self.samples + other.samples,
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.peak_mb, other.peak_mb),
        )


@dataclass(frozen=True)
class Comparison:
    """Both programs at one density: every `every`-th frame."""

    every: int
    naive: Usage
    ours: Usage

    @property
    def ratio(self) -> float:
        """How many times more samples per second `mfl preprocess` writes."""
        return self.ours.rate / self.naive.rate


@dataclass(frozen=True)
class Length:
    """Peak memory of `mfl preprocess` on a recording of so many frames."""

    frames: int
    usage: Usage


def main() -> None:
    """Make the recordings, run everything, print the tables."""
    arguments = _parser().parse_args()
    machine = _machine()
    if machine["load"] > QUIET_LOAD * machine["cores"]:
        _say(f"other programs keep {machine['load']:.1f} cores busy: seconds will differ from run to run")
    folder, samples = arguments.folder, arguments.samples
    recording = _generate(folder, arguments.frames)
    comparisons = [
        _compare(folder, recording, every, samples, arguments.loop_samples) for every in arguments.every
    ]
    sparse = max(comparisons, key=lambda item: item.every)
    short = _generate(folder, arguments.frames // MEMORY_PARTS)
    few = samples // MEMORY_PARTS if samples else 0
    lengths = [
        Length(_frame_count(short), _ours(folder, short, _frames(short, sparse.every, few), sparse.every)),
        Length(_frame_count(recording), sparse.ours),
    ]
    print(_report(recording, machine, comparisons, lengths))
    if arguments.json:
        figures = {
            "machine": machine,
            "recording": _facts(recording),
            "comparisons": [{**asdict(item), "ratio": item.ratio} for item in comparisons],
            "lengths": [asdict(item) for item in lengths],
        }
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("--frames", type=int, default=4500, help="Length of the recording; 4500.")
    parser.add_argument("--every", type=int, nargs="+", default=[1, 9], help="Densities to measure; 1 9.")
    parser.add_argument(
        "--samples", type=int, default=500, help="At most so many, the first ones; 500, 0 for all."
    )
    parser.add_argument("--loop-samples", type=int, default=24, help="Samples the obvious loop makes; 24.")
    parser.add_argument(
        "--folder", type=Path, default=Path("outputs/benchmark"), help="Keeps the recordings for next time."
    )
    parser.add_argument("--json", type=Path, help="Write all figures to this file too.")
    return parser


def _generate(folder: Path, frames: int) -> Path:
    """In its own process: rendering needs memory that children would be charged with."""
    command = [sys.executable, str(HERE / "generated_recording.py"), str(folder), "--frames", str(frames)]
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Path(made.stdout.strip())


def _compare(folder: Path, recording: Path, every: int, samples: int, loop_samples: int) -> Comparison:
    frames = _frames(recording, every, samples)
    chosen = evenly_placed(frames, loop_samples, _facts(recording)["gop"])
    before = _naive(folder, recording, chosen[::2])
    ours = _ours(folder, recording, frames, every)
    after = _naive(folder, recording, chosen[1::2])
    return Comparison(every, before.and_then(after), ours)


def evenly_placed(frames: Sequence[int], count: int, gop: int) -> list[int]:
    """Some of the frames, with all distances to the keyframe before them equally frequent.

    How long a seek takes depends on that distance alone, so equal steps in time would be no fair sample where
    the step and the distance of keyframes have a common divisor.
    """
    by_distance = sorted(frames, key=lambda frame: (frame % gop, frame))
    count = min(count, len(frames))
    return sorted(by_distance[(2 * i + 1) * len(frames) // (2 * count)] for i in range(count))


def _naive(folder: Path, recording: Path, frames: Sequence[int]) -> Usage:
    output = _fresh(folder / "naive")
    _say(f"obvious loop: {len(frames)} samples")
    script = str(HERE / "naive_preprocess.py")
    return _measure([script, str(recording), str(output), *map(str, frames)], output)


def _ours(folder: Path, recording: Path, frames: range, every: int) -> Usage:
    output = _fresh(folder / "ours")
    _say(f"mfl preprocess: {len(frames)} samples, every {every} frames of {_frame_count(recording)}")
    settings = [
        f"input.recording={recording}",
        f"output={output}",
        "selection.mode=interval",
        f"selection.step={every}",
        f"selection.stop={frames.stop}",
    ]
    usage = _measure(["-m", "mouse_facelift", "preprocess", *settings], output)
    if usage.samples != len(frames):
        sys.exit(f"{len(frames)} samples were asked for, {usage.samples} were written")
    return usage


def _measure(arguments: Sequence[str], output: Path) -> Usage:
    """Run a Python program and count the samples that it wrote; they are removed."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"failed with exit code {process.returncode}: {' '.join(arguments[:4])} ...")
    samples = len(list(output.glob("sample_*")))
    shutil.rmtree(output)
    unit = 1 if sys.platform == "darwin" else 1024
    usage = Usage(samples, seconds, used.ru_utime + used.ru_stime, 1e-6 * unit * used.ru_maxrss)
    _say(f"  {seconds:.1f} s, {1 / usage.rate:.3f} s a sample, {usage.peak_mb:.0f} MB")
    return usage


def _fresh(output: Path) -> Path:
    shutil.rmtree(output, ignore_errors=True)
    return output


def _frames(recording: Path, every: int, samples: int) -> range:
    """Every n-th frame from the first on, at most so many; 0 for all."""
    whole = range(0, _frame_count(recording), every)
    return whole[: samples or None]


def _facts(recording: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((recording / "recording.json").read_text())
    return facts


def _frame_count(recording: Path) -> int:
    facts = _facts(recording)
    return int(facts["repeats"] * facts["stretch"])


def _report(
    recording: Path, machine: dict[str, Any], comparisons: Sequence[Comparison], lengths: Sequence[Length]
) -> str:
    facts = _facts(recording)
    lines = [
        f"{facts['width']}x{facts['height']}, 6 cameras, {_frame_count(recording)} frames, "
        f"a keyframe every {facts['gop']}; {machine['cores']} cores of {machine['processor']}",
        "",
        "| frames | program | samples | seconds | samples/s | CPU s a sample | peak MB | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for item in comparisons:
        density = "all" if item.every == 1 else f"every {item.every}th"
        lines += [
            _row(density, "obvious loop", item.naive, "1"),
            _row(density, "mfl preprocess", item.ours, f"{item.ratio:.1f}"),
        ]
    lines += ["", "| frames of the recording | samples | peak MB of mfl preprocess |", "|---|---|---|"]
    lines += [f"| {item.frames} | {item.usage.samples} | {item.usage.peak_mb:.0f} |" for item in lengths]
    return "\n".join(lines)


def _row(density: str, program: str, usage: Usage, ratio: str) -> str:
    cells = (
        density,
        program,
        f"{usage.samples}",
        f"{usage.seconds:.1f}",
        f"{usage.rate:.2f}",
        f"{usage.cpu_seconds / usage.samples:.3f}",
        f"{usage.peak_mb:.0f}",
        ratio,
    )
    return f"| {' | '.join(cells)} |"


def _machine() -> dict[str, Any]:
    """Cores, processor, and how many cores were busy over the last minute."""
    return {"cores": os.cpu_count() or 1, "processor": _processor(), "load": os.getloadavg()[0]}


def _processor() -> str:
    """The processor's name, where the system tells it."""
    table = Path("/proc/cpuinfo")
    for line in table.read_text().splitlines() if table.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
