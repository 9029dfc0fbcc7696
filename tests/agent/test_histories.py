"""Random lives of a node: pods come in any order and end, the agent is replaced, sources fall silent.

After every step: a settled container has what its pod's annotation says, no device carries more than it has, and nobody
has what is another's. The seed is in the test's name.
"""

import random
from dataclasses import dataclass, field

import anyio
import pytest
from grpclib.exceptions import GRPCError

from hami.agent import grants
from hami.agent.answer import Strategy
from hami.alloc.ledger import Ledger
from hami.alloc.place import place_on
from hami.alloc.record import read_pod
from hami.alloc.request import read_request
from hami.model.claim import Assignment, PodRecord
from hami.model.device import NodeInventory, NodeRecord
from hami.model.names import PodUid
from hami.model.wire.pod import write_segments
from hami.node.grants import State
from hami.vendors import registry
from hami.vendors.nvidia import NVIDIA
from tests.agent.conftest import NODE, Rig, container, make_grants, pod
from tests.agent.fake_kubelet import Json

pytestmark = pytest.mark.anyio

STEPS = 50
MOST_PODS = 4


@dataclass
class History:
    """One node's life."""

    rig: Rig
    dice: random.Random
    strategy: Strategy
    living: list[Json] = field(default_factory=list)
    made: int = 0
    started: int = 0
    refusals: list[str] = field(default_factory=list)

    def document(self) -> Json:
        """A pod of random shape, without an assignment."""
        self.made += 1
        apps = tuple(
            container(
                f"c{i}",
                self.dice.choice((0, 1, 1, 2)),
                memory=self.dice.choice((200, 500, 3000, 7000)),
                cores=self.dice.choice((0, 5, 10, 30)),
            )
            for i in range(self.dice.choice((1, 1, 2)))
        )
        init: tuple[Json, ...] = ()
        if self.dice.random() < 0.3:
            init = (container("setup", memory=self.dice.choice((1000, 5000)), cores=5),)
        return pod(f"p{self.made}", *apps, init=init, bind_time=1000 + self.made)

    def assign(self, document: Json, ledger: Ledger) -> None:
        """What a scheduler with this picture does; a pod that does not fit there comes without an assignment."""
        request = read_request(document, registry())
        if not request.vendors:
            return
        found = place_on(ledger, request, NODE, card_policy=self.dice.choice(("binpack", "spread")))
        if isinstance(found, Assignment):
            document["metadata"]["annotations"] |= {
                "hami.io/vgpu-node": NODE,
                "hami.io/vgpu-devices-allocated": write_segments(found.segments[NVIDIA.name]),
                "hami.io/bind-time": str(1000 + self.made),
                "hami.io/bind-phase": "allocating",
            }

    def ledger(self, *, blind: bool) -> Ledger:
        """The picture a scheduler has: everything, or (a mistaken one) nothing but the devices."""
        ledger = Ledger(registry())
        inventory = NodeInventory(vendor=NVIDIA.name, devices=tuple(self.rig.inventory))
        ledger.put_node(NodeRecord(name=NODE, inventories=(inventory,)))
        for document in () if blind else self.living:
            held, _ = read_pod(document, registry())
            if held is not None:
                ledger.put_pod(held)
        return ledger

    async def come(self) -> None:
        """A few pods are bound together and admitted in any order."""
        while len(self.living) > MOST_PODS:  # the kubelet has twenty ids, and three more pods may come
            await self.end()
        batch = [self.document() for _ in range(self.dice.randint(1, 3))]
        for document in batch:
            if self.dice.random() < 0.8:
                self.assign(document, self.ledger(blind=self.dice.random() < 0.3))
            self.rig.api.add(document, shown=self.dice.random() < 0.8)
            self.living.append(document)
        self.dice.shuffle(batch)
        for document in batch:
            await self.rig.kubelet.admit(document)
            if self.dice.random() < 0.7:
                await self.start(document)

    async def start(self, document: Json) -> None:
        """Start every container of a pod, as far as it may."""
        name = document["metadata"]["name"]
        for each in [*document["spec"].get("initContainers", []), *document["spec"]["containers"]]:
            if (name, each["name"]) not in self.rig.kubelet.ids:
                continue
            try:
                await self.rig.kubelet.start_container(document, each["name"])
                self.started += 1
            except GRPCError as error:
                self.refusals.append(str(error.message))
                return

    async def end(self) -> None:
        """A pod ends; the watch shows it now or after the kubelet has forgotten it."""
        if self.living:
            document = self.living.pop(self.dice.randrange(len(self.living)))
            self.rig.kubelet.forget(document)
            self.rig.api.delete(document)

    async def retry(self) -> None:
        """The kubelet tries a pod's containers again."""
        if self.living:
            await self.start(self.dice.choice(self.living))

    async def doubt(self) -> None:
        """One of the two sources of owners falls silent, or both speak again."""
        self.rig.kubelet.writes_checkpoint = self.dice.random() < 0.7
        self.rig.kubelet.lists_pods = self.rig.kubelet.writes_checkpoint is False or self.dice.random() < 0.7

    async def replace_agent(self) -> None:
        """Another agent takes over from disk."""
        rig = self.rig
        successor, _ = make_grants(
            rig.root, rig.podlist, rig.kubelet, rig.api, rig.inventory, rig.regions, self.strategy, rig.now
        )
        rig.replace(successor)

    async def sweep(self) -> None:
        self.rig.now[0] += 40
        await self.rig.grants.sweep()

    def check(self) -> None:
        """Nobody has what is another's, and no device carries more than it has."""
        living = {PodUid(document["metadata"]["uid"]): document for document in self.living}
        records: dict[PodUid, PodRecord] = {}
        for grant in self.rig.grants.grants:
            if grant.state is not State.SETTLED or grant.holder is None or grant.holder.pod_uid not in living:
                continue
            document = living[grant.holder.pod_uid]
            held, problems = read_pod(document, registry())
            assert held is not None, f"{grant.holder.key} is granted {grant.shares} and holds nothing"
            assert problems == ()
            assert held.segments[NVIDIA.name][grant.holder.position] == grant.shares, grant.holder
            ids = self.rig.kubelet.ids[grant.holder.key.name, grant.holder.container]
            assert grant.device_ids == set(ids), "a grant is the container's whose ids it names"
            records[grant.holder.pod_uid] = held
            if self.strategy == "env":
                answer = self.rig.kubelet.answers[grant.holder.key.name, grant.holder.container]
                shown = answer.envs["NVIDIA_VISIBLE_DEVICES"].split(",")
                assert set(shown) == {share.uuid for share in grant.shares}
        ledger = self.ledger(blind=True)
        for held in records.values():
            ledger.put_pod(held)
        for usage in ledger.usage(NODE):
            assert usage.used_memory_mib <= usage.device.memory_mib, usage
            assert usage.used_cores <= usage.device.cores, usage
            assert usage.used_slots <= usage.device.slots, usage


@pytest.mark.parametrize("strategy", ["cdi", "env"])
@pytest.mark.parametrize("seed", range(6))
async def test_history(rig: Rig, seed: int, strategy: Strategy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants, "CONFIRM_S", 0.05)
    monkeypatch.setattr(grants, "NOTICE_S", 0.0)
    history = History(rig, random.Random(seed), strategy)
    moves = [history.come] * 3 + [history.end] * 4 + [history.retry] * 3
    moves += [history.doubt, history.replace_agent, history.sweep]
    with anyio.fail_after(60):
        for _ in range(STEPS):
            await history.dice.choice(moves)()
            history.check()
    assert not [text for text in history.refusals if not text or "Internal" in text], "a refusal has a reason"
    assert history.started > history.made / 2, "most pods do start"
    assert all(name for name, _, _ in rig.api.events)
    assert len({name for name, _, _ in rig.api.events}) == len(rig.api.events), "one event for each refused pod"
