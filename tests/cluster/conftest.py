"""One cluster with hami in it for all tests of this folder, and a namespace for each."""

import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.cluster.audit import Audit
from tests.cluster.harness.api import Api
from tests.cluster.harness.cluster import Cluster, claimed
from tests.cluster.harness.services import AGENT, SCHEDULER, Services, kube_scheduler_configuration
from tests.cluster.pods import Namespace, unique

_FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)
    # A machine carries one cluster: those with one of their own go before the one that lasts the session.
    items.sort(key=lambda item: item.path.name != "test_harness.py" and here in item.path.parents)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The bare cluster, with kube-scheduler set up to ask the extender; gone afterwards without a trace.

    Without root the tests are skipped; whatever else is missing is an error, so that no run passes by not running.
    """
    skip_unless_root()
    # A terminated run is to clean up as an interrupted one does.
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with claimed() as layout, Cluster(layout) as running:
            running.up(kube_scheduler_configuration(layout, running.pki.ca))
            yield running
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def services(cluster: Cluster) -> Iterator[Services]:
    """hami running in the cluster."""
    running = Services(cluster)
    try:
        running.start()
    except BaseException:
        for name in (SCHEDULER, AGENT):
            print(f"===== end of the log of {name}\n{cluster.processes.tail(name, 60)}", file=sys.stderr)
        raise
    yield running
    running.stop()


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Api:
    return cluster.api


@pytest.fixture
def audit(cluster: Cluster) -> Audit:
    """What is written to the API server from now on."""
    return Audit(cluster.layout.audit_log)


@pytest.fixture
def space(cluster: Cluster, services: Services, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """An empty namespace on a cluster whose devices are all free; a failed test shows what happened in it.

    A service that has ended unasked fails the test in which it did, and runs again for the next.
    """
    namespace = Namespace(cluster.api, unique("t"))
    namespace.open()
    yield namespace
    ended = services.revive()
    if ended or request.node.stash.get(_FAILED, False):
        print(namespace.report())
        for name in (SCHEDULER, AGENT):
            print(f"===== end of the log of {name}\n{cluster.processes.tail(name, 60)}")
    namespace.close()
    assert not ended, f"{' and '.join(ended)} ended during the test"


def skip_unless_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("starts a kubelet and containers, which takes root: run `sudo make test-cluster`")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
