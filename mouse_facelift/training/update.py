"""One optimizer update from the gradients at hand, or none where they are unfit; all processes agree."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from .config import OptimizerConfig
from .sharding import local, whole

CLEANED_INFINITY = 1e-3
"""What `clean_gradients` makes of an infinite gradient, with its sign (facelift_spec 4.5)."""


@dataclass(frozen=True)
class Pass:
    """One forward pass of this process: what the task's loss returned, on the device, and its samples."""

    terms: Mapping[str, Tensor]
    samples: Sequence[str] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a step, the same on all processes.

    Attributes:
        loss: Mean over forward passes and processes.
        grad_norm: Before clipping.
        skipped: Why there was no update; empty where there was one.
        by_loss: It was skipped because of the loss and not of the gradient.
        fault: The skip tells of a fault. An fp16 overflow does not: the scale is being found.
        stop: Some process was asked to stop: all must end after the same step.
        failed: Some process had no samples of its own: there was no update, and the step must not count.
    """

    loss: float
    grad_norm: float
    skipped: str = ""
    by_loss: bool = False
    fault: bool = False
    stop: bool = False
    failed: bool = False


class Updater:
    """Clips and applies gradients.

    Args:
        accelerator: Its processes agree; its scaler is kept in step.
        module: Its parameters hold the gradients.
        optimizer: Over these parameters.
        config: The rule: `max_grad_norm`, `skip_above`, `clean_gradients`.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        module: nn.Module,
        optimizer: Optimizer | AcceleratedOptimizer,
        config: OptimizerConfig,
    ) -> None:
        self.accelerator, self.module, self.config = accelerator, module, config
        # Accelerate's own step would ask the device once more whether fp16 gradients are finite.
        self.optimizer = getattr(optimizer, "optimizer", optimizer)

    def update(
        self, passes: Sequence[Pass], rate: float, stop: bool = False, failed: bool = False
    ) -> Outcome:
        """Update the parameters, if loss and gradient allow it, and forget the gradients.

        Args:
            passes: Those whose gradients, divided by their number, have been summed.
            rate: Learning rate.
            stop: This process was asked to stop.
            failed: This process's samples are not those of the step.
        """
        scaler = self.accelerator.scaler
        if self.config.clean_gradients and scaler is None:
            clean_gradients(self.module.parameters())
        norm = whole(self.accelerator.clip_grad_norm_(self.module.parameters(), self.config.max_grad_norm))
        losses = torch.stack([each.terms["loss"] for each in passes])
        loss, faults, stops, failures, grad_norm = self._agree(losses, norm, stop, failed)
        if failures:
            self.optimizer.zero_grad(set_to_none=True)
            return Outcome(loss, grad_norm, stop=bool(stops), failed=True)
        skipped = "the loss is not finite" if faults else self._unfit(grad_norm)
        overflow = scaler is not None and not faults and not math.isfinite(grad_norm)
        fault = bool(skipped) and not (overflow and scaler.get_scale() >= 1)
        if not skipped:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        if scaler is not None:
            scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return Outcome(loss, grad_norm, skipped, bool(faults), fault, bool(stops))

    def _agree(self, losses: Tensor, norm: Tensor, *flags: bool) -> list[float]:
        """Mean loss, processes with a loss that is not finite, processes with each flag, gradient norm."""
        loss = losses.detach().float().mean()
        # A fill, and no copy: a copy from the host would wait for the device.
        raised = [torch.full_like(loss, float(flag)) for flag in flags]
        facts = torch.stack([loss, (~loss.isfinite()).float(), *raised])
        if self.accelerator.num_processes > 1:
            # The one small reduction of a step. The norm needs none: gradients have been reduced.
            facts = self.accelerator.reduce(facts, "sum")
        # The one time in a step that the host waits for the device.
        total, *counts, grad_norm = torch.cat([facts, norm.detach().float().reshape(1)]).tolist()
        return [total / self.accelerator.num_processes, *counts, grad_norm]

    def _unfit(self, grad_norm: float) -> str:
        if not math.isfinite(grad_norm):
            return "the gradient is not finite"
        longest = math.inf
        if self.config.skip_above is not None:
            longest = self.config.skip_above * self.config.max_grad_norm
        if grad_norm > longest:
            return f"the gradient's norm is {grad_norm:.4g}, more than {longest:g} (optimizer.skip_above)"
        return ""


def mean_terms(accelerator: Accelerator, passes: Sequence[Pass]) -> dict[str, float]:
    """Each term's mean over forward passes and processes; all processes ask together."""
    names = list(passes[0].terms)
    means = torch.stack([torch.stack([each.terms[name] for each in passes]).mean() for name in names])
    if accelerator.num_processes > 1:
        means = accelerator.reduce(means, "mean")
    return dict(zip(names, means.tolist(), strict=True))


def clean_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace NaN by 0 and infinities by +-1e-3 in all gradients, in place (facelift_spec 4.5)."""
    for parameter in parameters:
        if parameter.grad is not None:
            local(parameter.grad).nan_to_num_(nan=0.0, posinf=CLEANED_INFINITY, neginf=-CLEANED_INFINITY)
