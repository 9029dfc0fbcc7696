"""Every asynchronous test here runs on asyncio, against a scripted API server, under the loop's guards."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hami.kube.client import Kube
from tests.fakes.apiserver import FakeApi
from tests.fakes.loop import guarded_loop
from tests.scheduler.running import Running


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def guard() -> AsyncIterator[None]:
    async with guarded_loop():
        yield


@pytest.fixture
async def api(guard: None) -> AsyncIterator[FakeApi]:
    async with FakeApi.serving() as api:
        yield api


@pytest.fixture
async def kube(api: FakeApi, tmp_path: Path) -> AsyncIterator[Kube]:
    async with Kube.connect(api.kubeconfig(tmp_path)) as kube:
        yield kube


@pytest.fixture
def running(api: FakeApi, kube: Kube) -> Running:
    """A scheduler not started yet: `async with running.started(...)`."""
    return Running(api, kube)
