"""From noise to latents in N steps, with diffusers' DDIM, DPM-Solver++ or UniPC."""

import functools
import json
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor

from ..errors import ConfigError
from .config import SamplingConfig


class Solver:
    """One way from noise to latents; it remembers earlier predictions, so every call needs a new one.

    `ddim` has the folder's own settings (Song et al. 2021, arXiv 2010.02502; facelift_spec.md 6.3, 6.5).
    `dpmpp` (Lu et al. 2022, arXiv 2211.01095, algorithm 2) and `unipc` (Zhao et al. 2023, arXiv 2302.04867,
    order 2, B(h) = e^h - 1) follow the deterministic path, to second order in the clean latents. They start
    at the last timestep of training, go in even steps and end where the published DDIM ends. Their last step
    is of first order: extrapolating over its large change in log-SNR does harm.

    Latents are moved in fp32, and Python never waits for a GPU. diffusers' UniPC would have it wait
    some times a step, computing coefficients where the latents are; but what it does is linear, so
    `Combination` learns beforehand, on the CPU, of how much of what each step's latents are.

    Args:
        scheduler: Tells the noise schedule and stays as it is.
        sampling: Which solver, and how many steps.

    Attributes:
        timesteps: At which the model is asked, in this order, int64 on the CPU. [N]
        needs_noise: Whether `step` wants fresh noise.

    Raises:
        ConfigError: the schedule has no timesteps for so many steps.
    """

    def __init__(self, scheduler: DDIMScheduler, sampling: SamplingConfig) -> None:
        self._scheduler = _fresh(scheduler, sampling.solver, sampling.steps)
        self._combination = Combination(self._scheduler) if sampling.solver == "unipc" else None
        self._eta = sampling.eta if sampling.solver == "ddim" else None
        self.timesteps: Tensor = self._scheduler.timesteps
        self.needs_noise = bool(self._eta)
        first, last = int(self.timesteps.max()), int(self.timesteps.min())
        longest = scheduler.config.num_train_timesteps
        if first >= longest or last < 0:
            raise ConfigError(
                f"{sampling.steps} steps of {sampling.solver} ask for timesteps {last} to {first}, the "
                f"schedule has 0 to {longest - 1}. Use another number of steps."
            )

    def step(self, velocity: Tensor, timestep: Tensor, latents: Tensor, noise: Tensor | None) -> Tensor:
        """Go on to the next timestep.

        Args:
            velocity: The model's v at `latents`. [B, V, 4, h, w]
            timestep: The next one of `timesteps`.
            latents: What the last call returned, at first pure noise. [B, V, 4, h, w]
            noise: Standard normal, only with `needs_noise`. [B, V, 4, h, w]

        Returns:
            Latents at the next timestep, fp32. [B, V, 4, h, w]
        """
        if self._combination is not None:
            return self._combination.step(velocity, latents)
        of_ddim = {} if self._eta is None else {"eta": self._eta, "variance_noise": noise}
        moved: Tensor = self._scheduler.step(
            velocity.float(), timestep, latents.float(), **of_ddim
        ).prev_sample
        return moved


class Combination:
    """Steps of UniPC as sums of the first latents and all velocities so far.

    Args:
        scheduler: With its timesteps set.
    """

    def __init__(self, scheduler: UniPCMultistepScheduler) -> None:
        config = json.dumps(dict(scheduler.config), sort_keys=True, default=list)
        self._shares = _shares(config, len(scheduler.timesteps))
        self._parts: list[Tensor] = []

    def step(self, velocity: Tensor, latents: Tensor) -> Tensor:
        """As `Solver.step`."""
        # Copies: a CUDA graph's next replay would overwrite its last result.
        if not self._parts:
            self._parts.append(latents.to(torch.float32, copy=True))
        self._parts.append(velocity.to(torch.float32, copy=True))
        shares = self._shares[len(self._parts) - 2]
        moved = self._parts[0] * shares[0]
        for part, share in zip(self._parts[1:], shares[1:], strict=True):
            moved.add_(part, alpha=share)
        return moved


@functools.lru_cache(maxsize=8)
def _shares(config: str, steps: int) -> list[list[float]]:
    """Of the first latents and of each velocity in the latents after each step: a row grows by one a step."""
    scheduler = UniPCMultistepScheduler.from_config(json.loads(config))
    scheduler.set_timesteps(steps)
    parts = torch.eye(1 + steps, dtype=torch.float64)
    latents, rows = parts[:1], []
    for number, timestep in enumerate(scheduler.timesteps):
        velocity = parts[number + 1 : number + 2]
        latents = scheduler.step(velocity, timestep, latents).prev_sample
        rows.append(latents[0, : number + 2].tolist())
    return rows


def _fresh(scheduler: DDIMScheduler, solver: str, steps: int) -> Any:
    """A scheduler of diffusers for one call."""
    fresh = _of_kind(scheduler, solver)
    fresh.set_timesteps(steps)
    return fresh


def _of_kind(scheduler: DDIMScheduler, solver: str) -> Any:
    if solver == "ddim":
        return DDIMScheduler.from_config(scheduler.config)
    choices = {
        "timestep_spacing": "trailing",
        "final_sigmas_type": "zero" if scheduler.config.set_alpha_to_one else "sigma_min",
    }
    if solver == "unipc":
        return UniPCMultistepScheduler.from_config(scheduler.config, **choices)
    return DPMSolverMultistepScheduler.from_config(scheduler.config, **choices, euler_at_final=True)
