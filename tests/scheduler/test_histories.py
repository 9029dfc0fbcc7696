"""Random histories against a cluster that misbehaves: whatever is lost, late or killed, no device is given twice.

The truth is what the API server has stored. Each history has a seed, which stands in the test's name.
"""

import contextlib
import random
from collections import Counter

import anyio
import pytest

from hami.alloc import record
from hami.alloc.ledger import Ledger
from hami.kube.client import Kube
from hami.model.names import NodeName
from hami.scheduler import binding
from hami.vendors import registry
from tests.fakes.apiserver import FakeApi
from tests.fakes.objects import Json, node, pod
from tests.scheduler.running import Running

pytestmark = pytest.mark.anyio
NODES = ("n1", "n2")
CARDS = 2
CARD_MIB = 16384


class History:
    """One random life of a small cluster."""

    def __init__(self, running: Running, seed: int) -> None:
        self.running = running
        self.pick = random.Random(seed)
        self.made = 0

    async def life(self, steps: int) -> None:
        for _ in range(steps):
            match self.pick.choice(("create", "create", "create", "delete", "end", "fault", "watches")):
                case "create":
                    async with anyio.create_task_group() as tasks:
                        for _ in range(self.pick.randint(1, 4)):
                            tasks.start_soon(self.schedule, self.create())
                case "delete":
                    if found := self.running.api.all("pods"):
                        self.running.api.remove("pods", self.pick.choice(found)["metadata"]["name"], "ns")
                case "end":
                    if found := [p for p in self.running.api.all("pods") if p["spec"].get("nodeName")]:
                        ended = self.pick.choice(found)
                        self.running.api.put("pods", {**ended, "status": {"phase": "Succeeded"}})
                case "fault":
                    how = self.pick.choice(({"drop": True}, {"after": True}, {"status": 500}, {"delay_s": 0.05}))
                    self.running.api.fail("POST", "binding", **how)
                case "watches":
                    self.running.api.end_watches()
                    if self.pick.random() < 0.3:
                        self.running.api.compact()
            self.check_truth()
            self.running.service.picture.ledger.check()

    def create(self) -> Json:
        self.made += 1
        memory = self.pick.choice((2000, 6000, 10000))
        return self.running.api.put("pods", pod(f"p{self.made}", memory=memory, count=self.pick.choice((1, 1, 2))))

    async def schedule(self, made: Json) -> None:
        answer = await self.running.filter(made, *NODES)
        if answer["NodeNames"] and self.pick.random() < 0.95:
            await anyio.sleep(self.pick.random() * 0.01)
            await self.running.bind(made, answer["NodeNames"][0])

    def check_truth(self) -> None:
        """From the stored objects alone: every bound pod has its devices, and none is given beyond its memory."""
        truth = Ledger(registry())
        for stored in self.running.api.all("nodes"):
            truth.put_node(record.read_node(stored, truth.registry)[0])
        for stored in self.running.api.all("pods"):
            held, problems = record.read_pod(stored, truth.registry)
            assert problems == ()
            running = stored["spec"].get("nodeName") and stored["status"]["phase"] != "Succeeded"
            assert bool(held) is bool(running), stored["metadata"]
            if held is not None:
                truth.put_pod(held)
        for name in NODES:
            for usage in truth.usage(NodeName(name)):
                assert usage.used_memory_mib <= CARD_MIB, (name, usage.device.uuid)

    async def settle(self) -> None:
        """Once the watch has caught up, the picture is the truth."""
        service = self.running.service

        def difference() -> object:
            stored = {
                p["metadata"]["uid"]: p["spec"]["nodeName"]
                for p in self.running.api.all("pods")
                if p["spec"].get("nodeName") and p["status"]["phase"] != "Succeeded"
            }
            unbound = {hold.record.uid for hold in service.holds}
            known = {uid: pod.node for uid, pod in service.picture.ledger.pods.items() if uid not in unbound}
            return sorted(stored.items() ^ known.items())

        with contextlib.suppress(TimeoutError):
            await self.running.until(lambda: not difference(), 3)
        assert not difference()
        service.picture.ledger.check()


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_is_given_twice(api: FakeApi, kube: Kube, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "SEND_S", 0.3)
    for name in NODES:
        api.put("nodes", node(name, CARDS))
    made = 0
    for life in range(3):
        # Each life ends as SIGKILL ends it: with holds in memory and binds under way, all forgotten.
        running = Running(api, kube)
        async with running.started():
            history = History(running, seed * 10 + life)
            history.made = made
            await history.life(12)
            await history.settle()
            made = history.made
        api.faults.clear()
    counts = Counter(bool(p["spec"].get("nodeName")) for p in api.all("pods"))
    assert counts[True] > 0
