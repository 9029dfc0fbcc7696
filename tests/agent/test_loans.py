"""What of regions decides a loan: whose figures are known, who is at work, and what is written when."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from hami.agent.loans import Loan, Loans
from hami.agent.regions import DeviceView, Policy, RegionView
from hami.model.names import DeviceUuid

LOOK_S = 0.05
ONE, TWO = DeviceUuid("GPU-1"), DeviceUuid("GPU-2")


@dataclass
class Container:
    """One container on the devices `cores` names, look by look."""

    cores: Mapping[DeviceUuid, int]
    policy: Policy = Policy.DEFAULT
    sharing: bool = True
    charged_ns: int = 0
    waited_ns: int = 0
    launches: int = 0
    stamp_ns: int = 0
    lent: dict[DeviceUuid, int] = field(default_factory=dict)

    def work(self, percent: float, *, waits: bool) -> None:
        self.charged_ns += round(percent * LOOK_S * 1e7)
        self.launches += 1
        self.stamp_ns += 1
        self.waited_ns += 10_000_000 if waits else 0

    @property
    def view(self) -> RegionView:
        return RegionView(
            devices=tuple(
                DeviceView(
                    uuid=uuid, limit_bytes=0, cores=cores, used_bytes=0, context_bytes=0, module_bytes=0,
                    launches=self.launches, charged_ns=self.charged_ns, waited_ns=self.waited_ns, refused=0,
                    stamp_ns=self.stamp_ns, lent=self.lent.get(uuid, 0),
                )
                for uuid, cores in self.cores.items()
            ),
            processes=1, priority=1, blocked=False, idle_s=0.0, sharing=self.sharing, policy=self.policy,
        )  # fmt: skip


@dataclass
class Node:
    """Containers by name, and who of them is at work."""

    containers: dict[str, Container]
    loans: Loans = field(default_factory=Loans)
    now_s: float = 100.0

    def look(self, *idle: str, after_s: float = LOOK_S) -> list[Loan]:
        """A look; all but those named are active. What it tells is in the regions at the next."""
        self.now_s += after_s
        views = {name: container.view for name, container in self.containers.items()}
        told = self.loans.learn(views, self.containers.keys() - set(idle), self.now_s)
        for loan in told:
            container = self.containers[loan.grant_id]
            container.lent[list(container.cores)[loan.device]] = loan.percent
        return told

    def looks(self, count: int, *idle: str, **percents: float) -> list[Loan]:
        """That many, in each of which containers obtain these percents, as much as their limits allow."""
        told: list[Loan] = []
        for _ in range(count):
            for name, percent in percents.items():
                self.containers[name].work(percent, waits=True)
            told = self.look(*idle)
        return told


def _pair(**more: Container) -> Node:
    return Node({"a": Container({ONE: 30}), "b": Container({ONE: 20}), **more})


def test_idle_share_goes_to_those_held_back() -> None:
    node = _pair()
    assert node.looks(40, a=30, b=20) == [
        Loan(grant_id="a", device=0, percent=57),
        Loan(grant_id="b", device=0, percent=38),
    ]
    assert node.loans.standing


def test_loans_are_said_again_at_every_look() -> None:
    node = _pair()
    told = node.looks(40, a=30, b=20)
    assert node.look() == told


def test_a_launch_that_waits_counts_before_it_has_waited() -> None:
    """It goes on only when it may; until then its process alone shows that it is there, by the stamp."""
    node = _pair()
    node.look()
    for _ in range(40):
        node.containers["a"].stamp_ns += 1
        told = node.look()
    assert [loan.grant_id for loan in told] == ["a"]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Container({ONE: 0}), id="no limit"),
        pytest.param(Container({ONE: 100}), id="all of it"),
        pytest.param(Container({ONE: 10}, policy=Policy.DISABLE), id="policy disable"),
        pytest.param(Container({ONE: 10}, policy=Policy.UNKNOWN), id="an older library"),
    ],
)
def test_beside_one_of_whom_nothing_is_known(other: Container) -> None:
    node = _pair(other=other)
    assert node.looks(40, a=30, b=20) == []
    assert not node.loans.standing
    assert node.looks(40, "other", a=30, b=20), "it is at rest"
    assert [loan.percent for loan in node.looks(1, a=30, b=20)] == [0, 0], "it is back"
    assert node.looks(1, a=30, b=20) == []


def test_beside_programs_that_nobody_charges() -> None:
    """Clients of an MPS server that holds them: they launch, and the library lets them."""
    node = _pair(other=Container({ONE: 40}))
    for _ in range(60):
        node.containers["other"].launches += 1
        told = node.looks(1, a=30, b=20)
        assert all(loan.percent < 45 for loan in told)
    assert told == []
    assert node.looks(39, a=30, b=20) == []
    assert node.looks(40, a=30, b=20), "two seconds after its last"


def test_force_is_lent_nothing_and_leaves_its_share_to_others() -> None:
    node = _pair(forced=Container({ONE: 40}, policy=Policy.FORCE))
    assert node.looks(40, a=30, b=20, forced=1) == [
        Loan(grant_id="a", device=0, percent=33),
        Loan(grant_id="b", device=0, percent=22),
    ], "it waits, so it keeps its 40"
    told = node.looks(60, a=30, b=20)
    assert {loan.grant_id: loan.percent for loan in told} == {"a": 57, "b": 38}


def test_devices_are_apart() -> None:
    node = Node({"a": Container({ONE: 30, TWO: 50}), "b": Container({TWO: 50})})
    assert node.looks(60, a=30, b=30) == [Loan(grant_id="a", device=0, percent=96)]


def test_while_the_limit_rests_nothing_is_lent_and_nothing_learned() -> None:
    node = Node({"a": Container({ONE: 30}, sharing=False)})
    assert node.looks(40, a=90) == []
    node.containers["a"].sharing = True
    assert node.looks(2, a=30) == [Loan(grant_id="a", device=0, percent=34)], "from nothing on"


def test_another_limit_or_a_long_pause_begins_anew() -> None:
    for change in ("limit", "pause"):
        node = _pair()
        node.looks(40, a=30, b=20)
        if change == "limit":
            node.containers["a"].cores = {ONE: 40}
            told = node.look()
            assert next(loan.percent for loan in told if loan.grant_id == "a") == 0
        else:
            assert [loan.percent for loan in node.look(after_s=1.5)] == [0, 0]


def test_a_container_that_is_gone() -> None:
    node = _pair()
    node.looks(40, a=30, b=20)
    del node.containers["b"]
    assert {loan.grant_id for loan in node.looks(1, a=30)} == {"a"}
