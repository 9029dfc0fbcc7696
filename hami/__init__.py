"""hami: several pods share one accelerator, with hard limits."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hami")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0+source"
