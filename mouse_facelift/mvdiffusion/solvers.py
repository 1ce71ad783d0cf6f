"""From noise to latents in N steps, with diffusers' DDIM, DPM-Solver++ or UniPC."""

from typing import Any

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

    Latents are moved in fp32. UniPC computes its coefficients where the latents are, so on a GPU it makes
    Python wait some times a step; the others never do.

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
        self._scheduler = _fresh(scheduler, sampling.solver)
        self._scheduler.set_timesteps(sampling.steps)
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
            latents: [B, V, 4, h, w]
            noise: Standard normal, only with `needs_noise`. [B, V, 4, h, w]

        Returns:
            Latents at the next timestep, fp32. [B, V, 4, h, w]
        """
        of_ddim = {} if self._eta is None else {"eta": self._eta, "variance_noise": noise}
        moved: Tensor = self._scheduler.step(
            velocity.float(), timestep, latents.float(), **of_ddim
        ).prev_sample
        return moved


def _fresh(scheduler: DDIMScheduler, solver: str) -> Any:
    """A scheduler of diffusers for one call."""
    if solver == "ddim":
        return DDIMScheduler.from_config(scheduler.config)
    choices = {
        "timestep_spacing": "trailing",
        "final_sigmas_type": "zero" if scheduler.config.set_alpha_to_one else "sigma_min",
    }
    if solver == "unipc":
        return UniPCMultistepScheduler.from_config(scheduler.config, **choices)
    return DPMSolverMultistepScheduler.from_config(scheduler.config, **choices, euler_at_final=True)
