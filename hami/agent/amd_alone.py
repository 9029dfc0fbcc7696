"""A node without NVIDIA's driver, but with AMD's GPUs: what of the agent runs there."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from prometheus_async.aio.web import start_http_server

from hami.agent import amd
from hami.agent.announce import Announcer
from hami.agent.podresources import PodResources
from hami.agent.settings import AgentSettings
from hami.agent.writes import PodWriter
from hami.kube.client import Kube
from hami.node.probe import ProbeError
from hami.node.probe_amd import AmdProbe
from hami.vendors.amd import AMD

log = logging.getLogger(__name__)


async def work(settings: AgentSettings, without: ProbeError, stack: AsyncExitStack) -> list[amd.Task]:
    """The tasks of an agent `without` NVIDIA's driver; what they need is entered into `stack`.

    Raises ProbeError, which then names both drivers, unless there are AMD's GPUs to serve.
    """
    make = amd.maker(settings)
    if make is None:
        raise without
    serving: list[amd.Task] = []
    if settings.role != "monitor" or not settings.amd:
        # A monitor that is told of AMD's GPUs need not be able to open them.
        try:
            probe = amd.opened(make)
        except ProbeError as error:
            raise ProbeError(f"{without}; {error}") from without
        stack.callback(probe.close)
        serving = [] if settings.role == "monitor" else await _plugin(settings, probe, stack)
    log.warning("%s: only AMD's GPUs are served", without)
    if settings.role != "plugin" and settings.metrics_bind is not None:
        # There are no regions to look at: AMD's GPUs are shared by the runtime's own means.
        await stack.enter_async_context(_metrics(settings.metrics_bind))
    return serving


async def _plugin(settings: AgentSettings, probe: AmdProbe, stack: AsyncExitStack) -> list[amd.Task]:
    kube = await stack.enter_async_context(Kube.connect(settings.kubeconfig))
    podlist = PodResources(settings.pod_resources_socket, AMD.resources.count)
    stack.callback(podlist.close)
    writer = PodWriter(kube, settings.node, time.time)
    announcer = Announcer(kube, settings.node, time.time)
    serving = amd.tasks(settings, lambda: probe, kube, announcer, podlist, writer)
    return [("node", announcer.follow), ("announce", announcer.run), ("writes", writer.run), *serving]


@asynccontextmanager
async def _metrics(address: tuple[str, int]) -> AsyncIterator[None]:
    """Answer `GET /metrics` about the process. Raises OSError when the port is taken."""
    host, port = address
    server = await start_http_server(addr=host, port=port)
    try:
        yield
    finally:
        await server.close()
