"""AMD's GPUs over random histories: pods of several containers come and go, the agent and the kubelet start again.

Whatever happens, a container gets what its pod's annotation says, no two that run side by side have a compute unit in
common, and nothing is left over. The GPUs are a stand-in for AMD's binding.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from hami.alloc.place import place
from hami.alloc.record import read_pod
from hami.alloc.request import read_request
from hami.model.claim import Placed
from hami.model.wire import pod as keys
from hami.vendors.amd import AMD
from tests.agent.conftest import NODE
from tests.agent.fake_kubelet import Json
from tests.agent.test_amd import KNOWN, Node, asking, node, nodes, pod, units
from tests.node.amd_stand_in import gpu

pytestmark = pytest.mark.anyio
__all__ = ["node"]
GPUS = 3


def some_pod(rng: random.Random, name: str) -> Json:
    """Of one to three containers, and now and then an init container or a sidecar before them."""

    def some(name: str) -> Json:
        if rng.random() < 0.2:
            return {"name": name, "image": "x"}
        share = {"memory": rng.randrange(1000, 40000), "cores": rng.randint(1, 40)}
        return asking(name, rng.choice((1, 1, 1, 2)), **share)

    init = []
    if rng.random() < 0.3:
        init.append(some("first"))
    if rng.random() < 0.2:
        init.append({**some("beside"), "restartPolicy": "Always"})
    return pod(name, *(some(f"main{i}") for i in range(rng.randint(1, 3))), init=init)


def asks(document: Json) -> bool:
    every = [*document["spec"].get("initContainers", []), *document["spec"]["containers"]]
    return any(container.get("resources") for container in every)


def side_by_side(document: Json) -> Iterator[str]:
    """The containers of a pod that run for as long as it does."""
    for container in [*document["spec"].get("initContainers", []), *document["spec"]["containers"]]:
        if container["name"] != "first":
            yield container["name"]


def taken(answer: Any) -> Mapping[str, set[int]]:
    """The units of each GPU that a container was given."""
    return {uuid: units(answer, i) for i, uuid in enumerate(answer.envs["ROCR_VISIBLE_DEVICES"].split(","))}


def check_answers(whole: Node, name: str, answers: Mapping[str, Any]) -> None:
    """Each container has what stands in the pod's annotation for it."""
    document = whole.api.get("pods", name, "default")
    held, problems = read_pod(document, KNOWN)
    assert held is not None
    assert not problems
    every = [*document["spec"].get("initContainers", []), *document["spec"]["containers"]]
    segments = dict(zip((c["name"] for c in every), held.segments[AMD.name], strict=True))
    assert answers.keys() == {container for container, segment in segments.items() if segment}
    for container, answer in answers.items():
        shares = segments[container]
        assert answer.envs["ROCR_VISIBLE_DEVICES"] == ",".join(share.uuid for share in shares)
        assert [len(found) for found in taken(answer).values()] == [share.cores for share in shares]
        assert len(nodes(answer)) == 1 + 2 * len(shares)
        if "first" not in answers:
            # A kubelet insists on the ids of an init container that has ended, whatever GPU they count.
            granted = {one.rpartition("-")[0] for one in whole.kubelet.ids[name, container]}
            assert granted == {share.uuid for share in shares}


def check_units(whole: Node, running: Mapping[str, Json]) -> None:
    seen: set[tuple[str, int]] = set()
    for name, document in running.items():
        for container in side_by_side(document):
            answer = whole.kubelet.answers.get((name, container))
            for uuid, found in taken(answer).items() if answer is not None else ():
                mine = {(uuid, unit) for unit in found}
                assert not mine & seen, f"{name}/{container} shares {sorted(mine & seen)[:3]}"
                seen |= mine


@pytest.mark.parametrize("seed", range(6))
async def test_a_history(node: Node, seed: int) -> None:
    rng = random.Random(seed)
    node.library.gpus = tuple(gpu(i) for i in range(GPUS))
    running: dict[str, Json] = {}
    async with AsyncExitStack() as agent:
        await agent.enter_async_context(node.agent())
        await node.registered(10 * GPUS)
        for step in range(40):
            match rng.choices(("come", "go", "agent", "kubelet"), (6, 4, 0.5, 0.5))[0]:
                case "come":
                    document = some_pod(rng, f"p{step}")
                    asked = read_request(document, KNOWN)
                    room = place(node.ledger, asked, [NODE], node_policy="binpack", card_policy="binpack")
                    if not asks(document) or not isinstance(room, Placed):
                        continue
                    running[f"p{step}"] = document
                    check_answers(node, f"p{step}", await node.run(document))
                    assert node.notes(f"p{step}")[keys.BIND_PHASE] == keys.SUCCESS
                    assert keys.NODE_LOCK not in node.notes()
                case "go" if running:
                    name = rng.choice(list(running))
                    del running[name]
                    node.end(name)
                case "agent":
                    await agent.aclose()
                    node.kubelet.devices = {}
                    await agent.enter_async_context(node.agent())
                    await node.registered(10 * GPUS)
                case "kubelet":
                    await node.kubelet.restart()
                    node.kubelet.devices = {}
                    await node.registered(10 * GPUS)
            check_units(node, running)
        for name in running:
            node.end(name)
        await node.run(pod("last"))
        assert [path.name for path in (node.root / "amd").iterdir()] == ["units.json"]
        assert units(node.kubelet.answers["last", "main"]) == set(range(76))
