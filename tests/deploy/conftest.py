"""Helm, as the cluster tests find or build it."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.harness.binaries import Missing, ensure

CHART = Path(__file__).parents[2] / "deploy" / "charts" / "hami"
Render = Callable[..., list[dict[str, Any]]]


class RenderError(Exception):
    """Helm refused; the text is its own."""


@pytest.fixture(scope="session")
def helm() -> Path:
    try:
        return ensure(["helm"])["helm"]
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    """`render("a.b=c", ..., kube="1.30.0")`: the chart's objects with these values set."""

    def with_values(*values: str, kube: str = "1.36.3") -> list[dict[str, Any]]:
        words = [str(helm), "template", "hami", str(CHART), "--namespace", "kube-system", "--kube-version", kube]
        for value in values:
            words += ["--set", value]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise RenderError(done.stderr)
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return with_values
