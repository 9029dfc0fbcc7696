"""Whose figures count when: containers come and go, limits hold or rest, the driver names processes or does not."""

from dataclasses import dataclass, field

import pytest

from hami.agent.regions import DeviceView, RegionView
from hami.agent.shares import Shares, Verdict
from hami.model.names import DeviceUuid

UUID = DeviceUuid("GPU-a")
MS = 1_000_000


@dataclass
class Container:
    """One container on one device, second by second."""

    cores: int = 30
    charged_ns: int = 0
    sharing: bool = True
    pids: tuple[int, ...] = (7, 8)
    permille: int = 1000
    told: list[Verdict] = field(default_factory=list)
    shares: Shares = field(default_factory=Shares)
    now_s: float = 0.0

    def second(
        self, charged_ms: int = 0, percents: dict[int, int] | None = None, *, tenants: int = 2, span_s: float = 1.0
    ) -> Verdict | None:
        """A second passes; what was to be written, if anything."""
        self.now_s += span_s
        self.charged_ns += charged_ms * MS
        device = DeviceView(
            uuid=UUID, limit_bytes=0, cores=self.cores, used_bytes=0, context_bytes=0, module_bytes=0, launches=0,
            charged_ns=self.charged_ns, waited_ns=0, refused=0, correction=self.permille, tenants=tenants,
        )  # fmt: skip
        view = RegionView(
            devices=(device,), processes=len(self.pids), priority=1, blocked=False, idle_s=0.0,
            sharing=self.sharing, host_pids=self.pids,
        )  # fmt: skip
        told = self.shares.learn({"g": view}, {UUID: percents or {}}, {UUID: tenants}, self.now_s)
        self.permille = told[0].permille if told else self.permille
        self.told += told
        return told[0] if told else None

    def amended_ms(self) -> int:
        return sum(verdict.amend_ns for verdict in self.told) // MS


def test_what_was_charged_too_much_comes_back() -> None:
    one = Container()
    one.second()
    for _ in range(5):
        one.second(300, {7: 10, 8: 5, 99: 50})
    assert one.shares.percent("g", UUID) == 15
    assert one.amended_ms() == -5 * 140, "two processes may have had half a point more each"
    assert one.permille < 900


def test_a_container_with_processes_of_its_own_needs_no_neighbour() -> None:
    one = Container()
    for _ in range(4):
        one.second(300, {7: 10, 8: 5}, tenants=1)
    assert one.amended_ms() == -420


def test_nothing_is_learned_while_the_limit_rests() -> None:
    one = Container(sharing=False)
    for _ in range(4):
        one.second(0, {7: 90}, tenants=1)
    assert one.told == []
    assert one.shares.percent("g", UUID) == 90


def test_a_policy_that_forces_shows_by_charges() -> None:
    one = Container(sharing=False)
    for _ in range(5):
        one.second(300, {7: 15}, tenants=1)
    assert one.amended_ms() < -300


def test_the_second_in_which_a_neighbour_comes_takes_back_only() -> None:
    """Until then it ran without limit, so it obtained more than was charged."""
    one = Container(sharing=False)
    one.second(0, {7: 90}, tenants=1)
    one.sharing = True
    one.second(100, {7: 80})
    for _ in range(3):
        one.second(300, {7: 30})
    assert one.amended_ms() == 0


def test_a_burst_of_charges_when_the_limit_begins_is_taken_back() -> None:
    one = Container(sharing=False)
    one.second(0, {7: 0}, tenants=1)
    one.sharing = True
    one.second(2600, {7: 40})
    one.second(0, {})
    assert one.amended_ms() == -2195


def test_percents_of_many_processes_are_rounded() -> None:
    """Sixteen with 2.5 each: the driver says 2, or 3."""
    one = Container(pids=tuple(range(16)))
    for percent in (2, 2, 3, 3, 2, 2, 2):
        one.second(400, dict.fromkeys(range(16), percent))
    assert (one.amended_ms(), one.permille) == (0, 1000)


def test_one_without_limit_is_left_alone() -> None:
    for cores in (0, 100):
        one = Container(cores=cores)
        for _ in range(4):
            one.second(0, {7: 60})
        assert one.amended_ms() == 0


def test_processes_that_the_driver_never_names() -> None:
    """Their pids are not known, or an MPS server stands for them: nobody can tell what they obtained."""
    one = Container()
    for _ in range(4):
        one.second(300, {99: 80})
    assert one.amended_ms() == 0
    assert one.permille == 1000
    assert one.shares.percent("g", UUID) is None


def test_one_that_is_no_longer_named_did_nothing() -> None:
    one = Container()
    one.second(0, {7: 20})
    one.second(0, {})
    assert one.shares.percent("g", UUID) == 0


@pytest.mark.parametrize("span_s", [0.0, 60.0])
def test_looks_too_far_apart_say_nothing(span_s: float) -> None:
    one = Container()
    for _ in range(4):
        one.second(3000, {7: 15}, span_s=span_s)
    assert one.amended_ms() == 0


def test_tenants_are_told_when_they_change() -> None:
    one = Container()
    one.second(300, {7: 30}, tenants=3)
    assert one.second(300, {7: 30}, tenants=3) is None
