"""The slow baseline: pixels as parameters, with the same loss as training."""

from fststyle.optimization.optimize import NonFiniteError, Optimization, Progress, optimize

__all__ = ["NonFiniteError", "Optimization", "Progress", "optimize"]
