"""Sharers side by side: whom MPS is told to hold, with both ways of handing devices out, and without it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest

from hami.agent import sharers
from hami.agent.answer import Strategy, Wording
from hami.agent.sharers import Sharers
from hami.model.claim import Share
from hami.model.settings import NvidiaConfig
from hami.node.grants import Grant, GrantStore
from hami.node.installed import hook_tree
from hami.node.mps import MpsError, MpsPaths
from hami.vendors.nvidia import NVIDIA
from tests.agent.conftest import UUIDS, Rig, card, pod

pytestmark = pytest.mark.anyio

PATHS = MpsPaths(pipe=Path("/node/pipe"), log=Path("/node/log"), shm=None)
NAMED = replace(PATHS, server="hami")


@pytest.fixture(params=["cdi", "env"])
def strategy(request: pytest.FixtureRequest) -> Strategy:
    word: Strategy = request.param
    return word


@pytest.fixture
def mps() -> list[MpsPaths | None]:
    """The daemon's directories, while it answers."""
    return [PATHS]


@dataclass
class Places:
    """What the daemon has for single containers."""

    there: dict[str, tuple[int, int]] = field(default_factory=dict)
    full: bool = False

    def admit(self, place: str, percent: int, pinned_mib: int) -> None:
        if self.full:
            raise MpsError("there is no room")
        self.there[place] = percent, pinned_mib

    def dismiss(self, place: str) -> None:
        del self.there[place]

    def places(self) -> frozenset[str]:
        return frozenset(self.there)


@pytest.fixture
def places() -> Places:
    return Places()


@pytest.fixture
def wording(mps: list[MpsPaths | None], places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wording of the rig asks this daemon."""
    made = Wording.__init__

    def init(self: Wording, **values: Any) -> None:
        made(self, **values, mps=lambda: mps[0], places=places)

    monkeypatch.setattr(Wording, "__init__", init)


def told(rig: Rig, strategy: Strategy, name: str) -> tuple[dict[str, str], set[str]]:
    """The variables and mounts that the container starts with."""
    answer = rig.kubelet.answers[name, "main"]
    env, mounts = dict(answer.envs), {mount.container_path for mount in answer.mounts}
    if strategy == "cdi":
        [device] = answer.cdi_devices
        path = rig.root / "cdi" / f"hami.io-grant-{device.name.partition('=')[2]}.json"
        edits = orjson.loads(path.read_bytes())["devices"][0]["containerEdits"]
        env |= dict(entry.split("=", 1) for entry in edits["env"])
        mounts |= {mount["containerPath"] for mount in edits["mounts"]}
    return env, mounts


def source(rig: Rig, strategy: Strategy, name: str, target: str) -> str:
    """What the node mounts at a path of the container."""
    answer = rig.kubelet.answers[name, "main"]
    found = {mount.container_path: mount.host_path for mount in answer.mounts}
    if strategy == "cdi":
        [device] = answer.cdi_devices
        path = rig.root / "cdi" / f"hami.io-grant-{device.name.partition('=')[2]}.json"
        mounts = orjson.loads(path.read_bytes())["devices"][0]["containerEdits"]["mounts"]
        found |= {mount["containerPath"]: mount["hostPath"] for mount in mounts}
    return str(found[target])


def enforcer(rig: Rig, name: str) -> str:
    found = rig.granted(name)
    assert found is not None
    return found.devices[0].enforced_by


@pytest.mark.usefixtures("wording")
async def test_a_container_is_sent_to_the_daemon_with_its_share(rig: Rig, strategy: Strategy) -> None:
    document = pod("a", assigned=f"{card(0, 3000, 30)};")
    rig.api.add(document)
    await rig.run(document)
    env, mounts = told(rig, strategy, "a")
    assert env["CUDA_MPS_PIPE_DIRECTORY"] == "/run/hami/mps/pipe"
    assert env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "30"
    assert env["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == f"{UUIDS[0]}=3600M", "contexts are beside the limit"
    assert {"/run/hami/mps/pipe", "/run/hami/mps/log"} <= mounts
    assert enforcer(rig, "a") == "mps"


@pytest.mark.usefixtures("wording")
async def test_while_the_daemon_does_not_answer_containers_take_turns(
    rig: Rig, strategy: Strategy, mps: list[MpsPaths | None]
) -> None:
    mps[0] = None
    document = pod("a", assigned=f"{card(0)};")
    rig.api.add(document)
    await rig.run(document)
    env, mounts = told(rig, strategy, "a")
    assert not any(name.startswith("CUDA_MPS") for name in env)
    assert "/run/hami/mps/pipe" not in mounts
    assert enforcer(rig, "a") == "library"


@pytest.mark.usefixtures("wording")
async def test_a_daemon_that_is_gone_when_a_container_starts_anew(
    rig: Rig, strategy: Strategy, mps: list[MpsPaths | None]
) -> None:
    """Its programs run without MPS then, and the library must hold them."""
    document = pod("a", assigned=f"{card(0)};")
    rig.api.add(document)
    await rig.run(document)
    mps[0] = None
    await rig.kubelet.start_container(document, "main")
    assert enforcer(rig, "a") == "library"
    mps[0] = PATHS
    await rig.kubelet.start_container(document, "main")
    assert enforcer(rig, "a") == ("mps" if strategy == "cdi" else "library")


@pytest.mark.usefixtures("wording")
async def test_a_container_has_a_place_of_its_own_where_there_are_such(
    rig: Rig, strategy: Strategy, mps: list[MpsPaths | None], places: Places
) -> None:
    mps[0] = NAMED
    documents = [pod("a", assigned=f"{card(0, 3000, 30)};"), pod("b", assigned=f"{card(0, 1000, 50)};")]
    for document in documents:
        rig.api.add(document)
        await rig.run(document)
    shown = [source(rig, strategy, name, "/run/hami/mps/pipe") for name in ("a", "b")]
    assert {Path(path).name: path for path in shown} == {place: f"/node/pipe/hami/{place}" for place in places.there}
    assert [places.there[Path(path).name] for path in shown] == [(30, 3600), (50, 1600)]
    assert "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT" not in told(rig, strategy, "a")[0], "a word too many"


@pytest.mark.usefixtures("wording")
async def test_a_place_ends_with_its_container_and_strangers_at_once(
    rig: Rig, mps: list[MpsPaths | None], places: Places
) -> None:
    mps[0] = NAMED
    document = pod("a", assigned=f"{card(0)};")
    rig.api.add(document)
    await rig.run(document)
    [own] = places.there
    places.there |= {"e" * 32: (1, 1), "f" * 32: (1, 1)}
    rig.regions.living.add("f" * 32)
    await rig.grants.sweep_places()
    assert set(places.there) == {own, "f" * 32}, "where programs still run"
    rig.api.delete(document)
    rig.kubelet.forget(document)
    rig.now[0] += 31
    await rig.grants.sweep()
    await rig.grants.sweep_places()
    assert set(places.there) == {"f" * 32}


@pytest.mark.usefixtures("wording")
async def test_a_container_without_a_place_takes_turns(
    rig: Rig, strategy: Strategy, mps: list[MpsPaths | None], places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong directory would let it run without any limit, and silently."""
    mps[0] = NAMED
    places.full = True
    document = pod("a", assigned=f"{card(0)};")
    rig.api.add(document)
    await rig.run(document)
    env, mounts = told(rig, strategy, "a")
    assert not any(name.startswith("CUDA_MPS") for name in env)
    assert "/run/hami/mps/pipe" not in mounts
    assert enforcer(rig, "a") == "library"
    assert any("is not sent to MPS: there is no room" in record.getMessage() for record in caplog.records)
    places.full = False
    await rig.kubelet.start_container(document, "main")
    assert enforcer(rig, "a") == ("mps" if strategy == "cdi" else "library")


class Caps:
    def can_hold(self, shares: Any) -> bool:
        return True


@pytest.mark.parametrize(
    ("caps", "accounting", "pinned"),
    [
        pytest.param(Caps(), "", None, id="the driver caps the container"),
        pytest.param(None, "", f"{UUIDS[0]}=700M", id="contexts are beside the limit"),
        pytest.param(None, "requested", f"{UUIDS[0]}=700M", id="and not shown"),
        pytest.param(None, "strict", f"{UUIDS[0]}=100M", id="contexts are part of the limit"),
    ],
)
def test_how_much_memory_mps_leaves_a_program(
    tmp_path: Path, caps: Caps | None, accounting: str, pinned: str | None
) -> None:
    wording = Wording(
        store=GrantStore(hook_tree(str(tmp_path)), tmp_path / "cdi"),
        vendor=NVIDIA,
        nvidia=NvidiaConfig(memory_accounting=accounting),
        library=tmp_path / "lib.so",
        strategy="cdi",
        caps=caps,
        mps=lambda: PATHS,
    )
    shares = (Share(uuid=UUIDS[0], kind="NVIDIA", memory_mib=100, cores=10),)
    grant = Grant(id="0" * 32, device_ids=frozenset(), made_unix=0, shares=shares, enforced_by="mps")
    env = dict(entry.split("=", 1) for entry in wording.edits(grant, None).edits["env"])
    assert env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "10"
    assert env.get("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT") == pinned


@dataclass
class Daemon(Places):
    """A daemon that the test kills and breaks."""

    paths: MpsPaths = PATHS
    up: bool = False
    broken: bool = False
    stuck: str = ""
    started: list[bool] = field(default_factory=list)

    def start(self) -> None:
        if self.broken:
            raise MpsError("it is broken")
        self.started.append(True)
        self.up = True

    def alive(self) -> bool:
        return self.up

    def fault(self) -> str:
        return self.stuck


async def test_the_daemon_is_had_again_after_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharers, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(sharers, "AGAIN_S", 0.01)
    daemon = Daemon(broken=True)
    kept = Sharers(daemon)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kept.run)
        await anyio.sleep(0.05)
        assert kept.ready() is None
        daemon.broken = False
        await anyio.sleep(0.05)
        assert kept.ready() == PATHS
        daemon.up = False
        await anyio.sleep(0.05)
        assert (kept.ready(), len(daemon.started)) == (PATHS, 2)
        tasks.cancel_scope.cancel()


async def test_nobody_is_sent_to_a_server_that_takes_no_programs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would refuse them; once the program that failed has ended it serves again, so the daemon is left alone."""
    monkeypatch.setattr(sharers, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(sharers, "AGAIN_S", 0.01)
    daemon = Daemon(up=True, stuck="server 7 is stuck")
    kept = Sharers(daemon)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kept.run)
        await anyio.sleep(0.05)
        assert kept.ready() is None
        daemon.stuck = ""
        await anyio.sleep(0.05)
        assert (kept.ready(), daemon.started) == (PATHS, [])
        daemon.stuck = "server 8 is stuck"
        await anyio.sleep(0.05)
        assert kept.ready() is None
        tasks.cancel_scope.cancel()
    told = [record.getMessage() for record in caplog.records if record.name == "hami.agent.sharers"]
    assert told == [f"sharers take turns: server {n} is stuck" for n in (7, 8)]
