"""A scheduler service in the test's own event loop, and the few calls that kube-scheduler makes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import anyio

from hami.kube.client import Kube
from hami.model.settings import DEFAULT_DEVICE_CONFIG, DeviceConfig, SchedulerSettings
from hami.scheduler.http import Address
from hami.scheduler.service import Bound, Options, Scheduler
from hami.vendors import registry
from tests.fakes.apiserver import FakeApi, Json
from tests.fakes.loop import eventually

LOOPBACK = Address("127.0.0.1", 0)


class Running:
    """The service, its HTTP address, and the cluster behind it."""

    service: Scheduler
    bound: Bound
    http: aiohttp.ClientSession

    def __init__(self, api: FakeApi, kube: Kube) -> None:
        self.api = api
        self.kube = kube

    @asynccontextmanager
    async def started(
        self,
        *,
        wait: bool = True,
        options: Options | None = None,
        config: DeviceConfig = DEFAULT_DEVICE_CONFIG,
        **settings: Any,
    ) -> AsyncIterator["Running"]:
        """Run the service with these settings; `wait` until it is ready."""
        made = SchedulerSettings(scheduler_name="hami-scheduler", **settings)
        options = options or Options(http=LOOPBACK, metrics=LOOPBACK)
        self.service = Scheduler(self.kube, registry(config), made, options, username=self.api.username)
        # The session is outside: closing it inside would meet the cancellation, which would hide a failed assertion.
        async with aiohttp.ClientSession() as self.http, anyio.create_task_group() as tasks:
            self.bound = await tasks.start(self.service.run)
            if wait:
                await self.until(lambda: self.service.picture.listed)
            try:
                yield self
            finally:
                tasks.cancel_scope.cancel()

    async def until(self, true: Callable[[], bool], within_s: float = 5.0) -> None:
        """Wait until something about the service is true."""
        await eventually(true, within_s)

    async def ask(self, path: str, body: Json, address: Address | None = None) -> Json:
        """POST to the service and decode the answer."""
        url = f"http://{address or self.bound.http}{path}"
        async with self.http.post(url, json=body) as answer:
            assert answer.status == 200, await answer.text()
            decoded = await answer.json()
        assert isinstance(decoded, dict)
        return decoded

    async def filter(self, pod: Json, *nodes: str) -> Json:
        """kube-scheduler's filter call with node names."""
        return await self.ask("/filter", {"Pod": pod, "Nodes": None, "NodeNames": list(nodes)})

    async def bind(self, pod: Json, node: str) -> str:
        """kube-scheduler's bind call; the error text, empty when bound."""
        metadata = pod["metadata"]
        names = {"PodName": metadata["name"], "PodNamespace": metadata["namespace"], "PodUID": metadata["uid"]}
        return str((await self.ask("/bind", {**names, "Node": node}))["Error"])

    async def place(self, pod: Json, *nodes: str) -> str:
        """Create the pod, filter and bind it; the node."""
        created = self.api.put("pods", pod)
        answer = await self.filter(created, *nodes)
        assert answer["Error"] == "", answer
        assert answer["NodeNames"], answer
        node = str(answer["NodeNames"][0])
        assert await self.bind(created, node) == ""
        return node

    async def events(self, reason: str, count: int = 1) -> list[Json]:
        """The events of a reason, once there are `count`."""
        await self.until(lambda: len(self._events(reason)) >= count)
        return self._events(reason)

    def _events(self, reason: str) -> list[Json]:
        return [event for event in self.api.all("events") if event["reason"] == reason]
