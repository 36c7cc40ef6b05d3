"""What a loss gives: its terms, unweighted, and their weighted total."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class LossTerms:
    """What an image costs.

    ``content`` and ``style`` hold one scalar per layer, ``color``, ``tv`` and ``pixel`` one each, all of them
    before any weight (and after the normalisers, where the loss has some); ``total`` is weighted.
    """

    total: Tensor
    content: dict[str, Tensor] = field(default_factory=dict)
    style: dict[str, Tensor] = field(default_factory=dict)
    color: Tensor | None = None
    tv: Tensor | None = None
    pixel: Tensor | None = None

    def scalars(self) -> dict[str, Tensor]:
        """Every term by name: ``total``, ``content/relu2_2``, ``style/relu1_2``, …, ``color``, ``tv``, ``pixel``."""
        named = {"total": self.total}
        named |= {f"content/{layer}": value for layer, value in self.content.items()}
        named |= {f"style/{layer}": value for layer, value in self.style.items()}
        single = {"color": self.color, "tv": self.tv, "pixel": self.pixel}
        named |= {name: value for name, value in single.items() if value is not None}
        return named


def mean_term(terms: Mapping[str, float], kind: str) -> float:
    """The mean over layers of the ``content`` or ``style`` terms; NaN without any."""
    values = [value for name, value in terms.items() if name.startswith(f"{kind}/")]
    return sum(values) / len(values) if values else float("nan")
