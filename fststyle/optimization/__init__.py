"""The slow baseline: pixels as parameters, judged by the same loss as training."""

from fststyle.optimization.optimize import NonFiniteError, Optimization, Progress, optimize

__all__ = ["NonFiniteError", "Optimization", "Progress", "optimize"]
