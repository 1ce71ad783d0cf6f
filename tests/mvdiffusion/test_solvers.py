"""Solvers against closed-form solutions, as we set them up; the arithmetic is diffusers' own."""

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UniPCMultistepScheduler
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mouse_facelift.errors import ConfigError
from mouse_facelift.mvdiffusion.config import SamplingConfig
from mouse_facelift.mvdiffusion.solvers import Solver

SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "steps_offset": 1,
}
SCHEDULER = DDIMScheduler(**SCHEDULE, set_alpha_to_one=False, clip_sample=False)
MEANS, WIDTHS, SHARES = (
    torch.tensor([-1.2, 0.3, 1.1]),
    torch.tensor([0.05, 0.3, 0.12]),
    torch.tensor([0.3, 0.4, 0.3]),
)

Model = Callable[[Tensor, int], Tensor]


def gaussian(mean: float, width: float) -> Model:
    """The exact v of data N(mean, width^2)."""
    return lambda latents, timestep: mixture_velocity(
        latents, timestep, torch.tensor([mean]), torch.tensor([width]), torch.tensor([1.0])
    )


def mixture(latents: Tensor, timestep: int) -> Tensor:
    """The exact v of a mixture with narrow and wide modes."""
    return mixture_velocity(latents, timestep, MEANS, WIDTHS, SHARES)


def mixture_velocity(latents: Tensor, timestep: int, means: Tensor, widths: Tensor, shares: Tensor) -> Tensor:
    kept = float(SCHEDULER.alphas_cumprod[timestep])
    signal, noise = math.sqrt(kept), math.sqrt(1 - kept)
    variance = kept * widths**2 + noise**2
    away = latents[..., None] - signal * means
    of_mode = (shares.log() - 0.5 * variance.log() - 0.5 * away**2 / variance).softmax(-1)
    clean = (of_mode * (means + signal * widths**2 / variance * away)).sum(-1)
    return (signal * latents - clean) / noise


def start(count: int = 4000) -> Tensor:
    """[count, 1]"""
    return torch.randn(count, 1, generator=torch.Generator().manual_seed(0))


def solve(model: Model, sampling: SamplingConfig, latents: Tensor) -> Tensor:
    solver = Solver(SCHEDULER, sampling)
    for timestep in solver.timesteps:
        latents = solver.step(model(latents, int(timestep)), timestep, latents, None)
    return latents


@functools.cache
def exact() -> Tensor:
    """Where the deterministic path of the mixture ends."""
    return solve(mixture, config("unipc", 500), start())


def config(solver: str, steps: int) -> SamplingConfig:
    return SamplingConfig(solver=solver, steps=steps, eta=0 if solver == "ddim" else 1)


def rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


@pytest.mark.parametrize(("solver", "bound"), [("ddim", 0.02), ("unipc", 2e-3), ("dpmpp", 2e-3)])
def test_many_steps_reach_the_exact_solution_for_gaussian_data(solver: str, bound: float) -> None:
    mean, width, latents = 0.7, 0.4, start()
    first = int(Solver(SCHEDULER, config(solver, 400)).timesteps[0])
    begin, end = (float(SCHEDULER.alphas_cumprod[t]) for t in (first, 0))
    spread = [math.sqrt(kept * width**2 + 1 - kept) for kept in (begin, end)]
    # The path keeps its place in the distribution.
    expected = math.sqrt(end) * mean + spread[1] / spread[0] * (latents - math.sqrt(begin) * mean)
    assert rms(solve(gaussian(mean, width), config(solver, 400), latents) - expected) < bound


@pytest.mark.parametrize("solver", ["ddim", "unipc", "dpmpp"])
def test_error_falls_with_the_number_of_steps(solver: str) -> None:
    errors = [rms(solve(mixture, config(solver, steps), start()) - exact()) for steps in (10, 20, 40, 80)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < errors[0] / 3


@pytest.mark.parametrize("steps", [10, 20, 25])
def test_second_order_solvers_beat_ddim_in_as_many_steps(steps: int) -> None:
    ddim, unipc, dpmpp = (
        rms(solve(mixture, config(solver, steps), start()) - exact()) for solver in ("ddim", "unipc", "dpmpp")
    )
    assert unipc < 0.65 * ddim
    assert dpmpp < 0.65 * ddim


def test_ddim_is_the_published_one_and_leaves_the_folders_scheduler_alone() -> None:
    reference = DDIMScheduler.from_config(SCHEDULER.config)
    reference.set_timesteps(3)
    solver = Solver(SCHEDULER, SamplingConfig(steps=3))
    assert solver.timesteps.tolist() == [667, 334, 1]
    assert solver.needs_noise
    assert SCHEDULER.num_inference_steps is None
    latents, noise = start(10), start(20)[10:]
    for timestep in solver.timesteps:
        velocity = mixture(latents, int(timestep))
        expected = reference.step(velocity, timestep, latents, eta=1.0, variance_noise=noise).prev_sample
        latents = solver.step(velocity, timestep, latents, noise)
        assert torch.equal(latents, expected)


@pytest.mark.parametrize("steps", [1, 2, 10, 25])
@pytest.mark.parametrize("schedule_end", [False, True])
def test_unipc_is_that_of_diffusers(steps: int, schedule_end: bool) -> None:
    scheduler = DDIMScheduler(**SCHEDULE, set_alpha_to_one=schedule_end)
    solver = Solver(scheduler, config("unipc", steps))
    reference = UniPCMultistepScheduler.from_config(
        scheduler.config,
        timestep_spacing="trailing",
        final_sigmas_type="zero" if schedule_end else "sigma_min",
    )
    reference.set_timesteps(steps)
    assert torch.equal(solver.timesteps, reference.timesteps)
    expected = found = start(50)
    for timestep in solver.timesteps:
        expected = reference.step(mixture(expected, int(timestep)), timestep, expected).prev_sample
        found = solver.step(mixture(found, int(timestep)), timestep, found, None)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", ["unipc", "dpmpp"])
def test_a_model_may_answer_in_the_same_memory_every_time(solver: str) -> None:
    found, latents = Solver(SCHEDULER, config(solver, 6)), start(20)
    expected = solve(mixture, config(solver, 6), latents.clone())
    buffer = torch.empty_like(latents)
    for timestep in found.timesteps:
        latents = found.step(buffer.copy_(mixture(latents, int(timestep))), timestep, latents, None)
    assert torch.equal(latents, expected)


@pytest.mark.parametrize("solver", ["ddim", "unipc", "dpmpp"])
def test_a_batch_gives_what_its_members_give_alone(solver: str) -> None:
    latents = start(6).view(2, 3, 1)
    together = solve(mixture, config(solver, 7), latents)
    alone = torch.cat([solve(mixture, config(solver, 7), row[None]) for row in latents])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("solver", ["ddim", "unipc", "dpmpp"])
def test_half_precision_velocities_are_summed_in_full_precision(solver: str) -> None:
    found = Solver(SCHEDULER, config(solver, 3))
    velocity, latents = torch.ones(1, 1, dtype=torch.float16), torch.full((1, 1), 1 / 3)
    moved = found.step(velocity, found.timesteps[0], latents, None)
    assert moved.dtype == torch.float32
    again = Solver(SCHEDULER, config(solver, 3))
    assert torch.equal(moved, again.step(velocity.float(), again.timesteps[0], latents, None))


class OnlyLatents(TorchDispatchMode):
    """Refuses tensors on the meta device, which stands for a GPU, that are not as large as the latents."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        assert all(value.device.type == "cpu" or value.shape == (1, 6, 4, 8, 8) for value in made), func
        return result


@pytest.mark.parametrize("solver", ["ddim", "unipc", "dpmpp"])
def test_coefficients_are_not_computed_on_the_gpu(solver: str) -> None:
    found = Solver(SCHEDULER, SamplingConfig(solver=solver, steps=4))
    latents = torch.empty(1, 6, 4, 8, 8, device="meta")
    with OnlyLatents():
        for timestep in found.timesteps:
            latents = found.step(latents, timestep, latents, latents)
    assert latents.device.type == "meta"


@pytest.mark.parametrize("solver", ["unipc", "dpmpp"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 1000])
def test_steps_go_from_the_last_timestep_down(solver: str, steps: int) -> None:
    timesteps = Solver(SCHEDULER, SamplingConfig(solver=solver, steps=steps)).timesteps
    assert len(timesteps) == steps and timesteps[0] == 999 and (timesteps.diff() < 0).all()
    assert solve(mixture, SamplingConfig(solver=solver, steps=steps), start(5)).isfinite().all()


@pytest.mark.parametrize("solver", ["unipc", "dpmpp"])
def test_a_schedule_that_ends_without_noise_ends_at_the_clean_latents(solver: str) -> None:
    scheduler = DDIMScheduler(**SCHEDULE, set_alpha_to_one=True)
    found = Solver(scheduler, SamplingConfig(solver=solver, steps=4))
    latents = start(5)
    for timestep in found.timesteps:
        velocity, before = mixture(latents, int(timestep)), latents
        latents = found.step(velocity, timestep, latents, None)
    kept = scheduler.alphas_cumprod[found.timesteps[-1]]
    torch.testing.assert_close(latents, kept.sqrt() * before - (1 - kept).sqrt() * velocity)


@pytest.mark.parametrize(
    ("solver", "steps", "asked"),
    [("ddim", 1000, "1 to 1000"), ("unipc", 61, "-1 to 999"), ("dpmpp", 61, "-1 to 999")],
)
def test_steps_that_the_schedule_has_no_timesteps_for_are_refused(
    solver: str, steps: int, asked: str
) -> None:
    with pytest.raises(ConfigError, match=f"{steps} steps of {solver} ask for timesteps {asked}"):
        Solver(SCHEDULER, SamplingConfig(solver=solver, steps=steps))


def test_eta_of_a_solver_without_noise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"solver unipc adds no noise; remove eta 0\.5"):
        SamplingConfig(solver="unipc", eta=0.5)
