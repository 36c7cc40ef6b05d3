"""What the benchmark compares with: the machine's speed at matrix products, and the operations that a run takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from measuring import in_turn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Row = dict[str, Any]
#: Title to rows.
Tables = dict[str, list[Row]]


def matmul_peak(dtype: torch.dtype, device: str, side: int = 4096) -> float:
    """Operations per second of a matrix product, the best of several; of smaller ones where it would take minutes."""

    def best(side: int) -> float:
        a = torch.randn(side, side, device=device).to(dtype)
        return 2 * side**3 / min(in_turn({str(n): lambda: a @ a for n in range(3)}, 3).values())

    small = best(side // 8)  # a processor without instructions for a type is a hundred times slower in it
    return small if 2 * side**3 / small > 5 else best(side)


def peaks(device: str) -> dict[str, float]:
    """The machine's limit by precision."""
    kinds = ("float32", "bfloat16", *(["float16"] if device == "cuda" else []))
    return {kind: matmul_peak(getattr(torch, kind), device) for kind in kinds}


def operations(run: Callable[[], object]) -> int:
    """Multiplications and additions of convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def rows(
    medians: Mapping[str, float], work: Mapping[str, int], peaks: Mapping[str, float], images: int = 1
) -> list[Row]:
    """What each took, by name; its operations, or those of ``reference``; the peak is that of the precision named."""
    found = []
    for name, seconds in medians.items():
        speed = work.get(name, work["reference"]) / seconds
        peak = next(peaks[kind] for kind in ("bfloat16", "float16", "float32") if kind in f"{name} float32")
        row = {"what": name, "seconds": round(seconds, 4), "times": round(medians["reference"] / seconds, 2)}
        found.append({**row, "images/s": round(images / seconds, 2), "of peak": round(speed / peak, 3)})
    return found
