"""Programs of Debian packages that some tests need: found, or installed as root; else the test is skipped, with why."""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest


def needed(package: str, place: str) -> str:
    """`place` (a program's name, or a path) once `package` is there."""
    ensure(package, lambda: _there(place))
    return place


def ensure(package: str, there: Callable[[], bool]) -> None:
    """Install `package` unless it is `there` already."""
    if there():
        return
    if failure := _installed(package):
        pytest.skip(failure)
    assert there(), f"{package} does not bring what is needed of it"


def _there(place: str) -> bool:
    return Path(place).exists() if "/" in place else shutil.which(place) is not None


@cache
def _installed(package: str) -> str:
    """Why it could not be installed; empty if it was."""
    install = ["apt-get", "install", "-y", "--no-install-recommends", package]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return f"{package} is missing; as root: {' '.join(install)}"
    for command in (["apt-get", "update"], install):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            return f"{package} is missing; {' '.join(command)} failed: {done.stderr.strip()[-500:]}"
    return ""
