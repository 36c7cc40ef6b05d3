"""Apply a checkpoint in one pass. What is here carries nothing that trains one."""

from fststyle.inference.stylizer import DeviceError, Stylizer

__all__ = ["DeviceError", "Stylizer"]
