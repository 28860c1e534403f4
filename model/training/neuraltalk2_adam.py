"""Adam as in neuraltalk2's misc/optim_updates.lua: epsilon is added before the second moment's bias is corrected."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch


class Neuraltalk2Adam(torch.optim.Optimizer):
    """Adam as neuraltalk2 implements it.

    m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², x ← x − lr √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + ε).

    PyTorch's Adam divides by √(v / (1 − β₂ᵗ)) + ε instead, which damps small gradients less in the first steps.

    Args:
        params: parameters or groups, as in `torch.optim.Optimizer`; a group's `weight_decay` is added to the gradient.
        lr, betas, eps: learning rate, (β₁, β₂), ε.
    """

    def __init__(self, params: Iterable[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates the parameters by their gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        gradient = parameter.grad
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])  # type: ignore[union-attr]
        state = self.state[parameter]
        if not state:
            state |= {"step": 0, "m": torch.zeros_like(parameter), "v": torch.zeros_like(parameter)}
        state["step"] += 1
        state["m"].lerp_(gradient, 1.0 - beta1)
        state["v"].mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
        size = group["lr"] * math.sqrt(1.0 - beta2 ** state["step"]) / (1.0 - beta1 ** state["step"])
        parameter.addcdiv_(state["m"], state["v"].sqrt().add_(group["eps"]), value=-size)
