"""The harness itself: a pod runs on real components, and a crashed run leaves nothing once the next one has begun.

These run before the session's cluster is up (a machine carries one), see `conftest.py`.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.cluster.conftest import skip_unless_root
from tests.cluster.harness import sweep
from tests.cluster.harness.cluster import Cluster, claimed
from tests.cluster.harness.images import BUSYBOX
from tests.cluster.harness.layout import REPOSITORY, recorded, state_folder
from tests.cluster.harness.waiting import eventually
from tests.cluster.pods import Namespace, pod

# Started as a process of its own, so that it can be killed as a crash or the machine's memory killer would.
_CRASHING = """
import sys, time
from tests.cluster.test_harness import run_a_pod
from tests.cluster.harness.cluster import Cluster, claimed
with claimed() as layout, Cluster(layout) as cluster:
    cluster.up()
    run_a_pod(cluster)
    print("running", flush=True)
    time.sleep(600)
"""


def run_a_pod(cluster: Cluster) -> Namespace:
    """A busybox pod that runs and stays."""
    space = Namespace(cluster.api, "plain")
    space.open()
    busybox = {
        "name": "main",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", "echo up; sleep 600"],
    }
    space.run(pod("plain", busybox))
    return space


def test_a_crashed_run_is_cleared_away_by_the_next_and_leaves_nothing() -> None:
    skip_unless_root()
    folders = [path for path in ("/var/lib/kubelet", "/var/lib/cni", "/run/containerd") if not Path(path).exists()]
    with subprocess.Popen(
        [sys.executable, "-c", _CRASHING], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "running\n"
        os.kill(run.pid, signal.SIGKILL)
    abandoned = recorded(state_folder())
    assert abandoned is not None
    assert any(entry.startswith("shim ") for entry in sweep.remains(abandoned))
    with claimed() as layout, Cluster(layout) as cluster:
        assert sweep.remains(abandoned) == []
        cluster.up()
        space = run_a_pod(cluster)
        assert eventually("output", lambda: space.logs("plain"), 10) == "up\n"
    assert sweep.remains(layout) == []
    assert not layout.state.exists()
    assert [path for path in folders if Path(path).exists()] == []
