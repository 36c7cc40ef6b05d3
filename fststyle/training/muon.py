"""An optimizer for convolutions: momentum whose steps are orthogonalised, with Adam for all that is no matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam


def orthogonalized(matrices: Tensor) -> Tensor:
    """The nearest matrices with all singular values near 1, by five Newton-Schulz steps (Jordan et al. 2024, "Muon").

    Args:
        matrices: (B, N, M), any scale.

    Returns:
        (B, N, M), singular values between about 0.7 and 1.2 where the input's were not tiny.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)
    for _ in range(5):
        square = x @ x.transpose(1, 2)
        x = 3.4445 * x + (2.0315 * square @ square - 4.7750 * square) @ x
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for the convolutions between features, Adam for the first and last one, biases and norms.

    A convolution's weight is taken as a matrix, output channels by the rest. Its step is the orthogonalised Nesterov
    momentum, scaled to the size that Adam's steps have (Liu et al. 2025, eq. 4), so that one learning rate serves
    both. ``torch.optim.Muon`` takes matrices only, and two optimizers would take the loop out of Lightning's hands.

    Args:
        parameters: of the network.
        lr: learning rate.
        momentum: Muon's.
        betas, eps: Adam's.
    """

    #: Set by the training step: 1 where a gradient is not finite and the step must be left out, else 0.
    found_inf: Tensor | None = None

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 2e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        chosen = list(parameters)
        between = [weight for weight in chosen if weight.dim() == 4 and min(weight.shape[:2]) > 3]
        others = [weight for weight in chosen if not any(weight is matrix for matrix in between)]
        groups = [{"params": between, "matrices": True}, {"params": others, "matrices": False}]
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "fused": True}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; ``closure``, where given, computes loss and gradients first and its value is returned."""
        with torch.enable_grad():
            loss = closure() if closure is not None else None
        for group in self.param_groups:
            pairs = [(weight, weight.grad) for weight in group["params"] if weight.grad is not None]
            (self._muon if group["matrices"] else self._adam)(pairs, group)
        return loss

    def _muon(self, pairs: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for weight, gradient in pairs:
            alike.setdefault((len(weight), weight[0].numel()), []).append((weight, gradient))
        for shape, same in alike.items():
            weights, gradients = map(list, zip(*same, strict=True))
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
            momenta = [self.state[weight]["momentum"] for weight in weights]
            renewed = torch._foreach_lerp(momenta, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, renewed, group["momentum"])
            steps = orthogonalized(torch.stack([step.reshape(shape) for step in ahead]))
            size = 0.2 * max(shape) ** 0.5 * group["lr"]
            stepped = [w - size * step.view(w.shape) for w, step in zip(weights, steps, strict=True)]
            old, new = [*momenta, *weights], [*renewed, *stepped]
            if self.found_inf is not None:
                skip = self.found_inf.to(old[0].device) > 0
                new = [torch.where(skip, before, after) for before, after in zip(old, new, strict=True)]
            torch._foreach_copy_(old, new)

    def _adam(self, pairs: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        weights, gradients = map(list, zip(*pairs, strict=True))
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["step"] = torch.zeros((), device=weight.device)
                self.state[weight]["mean"] = torch.zeros_like(weight)
                self.state[weight]["square"] = torch.zeros_like(weight)
        means, squares, steps = ([self.state[w][key] for w in weights] for key in ("mean", "square", "step"))
        beta1, beta2 = group["betas"]
        adam(
            *(weights, gradients, means, squares, [], steps),
            fused=True,  # one kernel
            found_inf=self.found_inf,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )
