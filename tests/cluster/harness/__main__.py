"""`python -m tests.cluster.harness prepare|up|down|status`: the cluster without a test, for people.

`prepare` brings the programs and packages, `up` leaves a cluster with hami in it running, `down` ends it and leaves
nothing behind, `status` says what runs.
"""

import argparse
import os
import sys

from tests.cluster.harness import binaries, sweep
from tests.cluster.harness.binaries import Missing
from tests.cluster.harness.cluster import Cluster, claimed
from tests.cluster.harness.images import PROBE
from tests.cluster.harness.layout import recorded, state_folder
from tests.cluster.harness.processes import Processes
from tests.cluster.harness.services import Services, kube_scheduler_configuration


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.harness", description=__doc__)
    parser.add_argument("verb", choices=["prepare", "up", "down", "status"])
    verb = parser.parse_args().verb
    try:
        return {"prepare": prepare, "up": up, "down": down, "status": status}[verb]()
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 1


def prepare() -> int:
    """Packages and programs. Without root nothing is done, and the tests will say that they did not run."""
    if os.geteuid() != 0:
        print("cluster tests need root and will be skipped: run `sudo make test-cluster` for them", file=sys.stderr)
        return 0
    binaries.debian_tools()
    for name, path in binaries.ensure().items():
        print(f"cluster: {name} is {path}")
    return 0


def up() -> int:
    with claimed() as layout:
        cluster = Cluster(layout)
        cluster.up(kube_scheduler_configuration(layout, cluster.pki.ca))
        try:
            Services(cluster).start()
        except BaseException:
            cluster.down()
            raise
        cluster.leave_standing()
    example = layout.state / "try.yaml"
    example.write_text(_EXAMPLE, encoding="ascii")
    print(f"""
A one-node Kubernetes with hami is running; its six devices are simulated, everything else is real.

  export KUBECONFIG={layout.kubeconfig("admin")}
  alias kubectl={cluster.kubectl}

  kubectl get nodes -o wide
  kubectl apply -f {example}        # 3,000 MiB and 30 % of a device
  kubectl logs try                  # what CUDA and NVML show inside, and an allocation of 4,000 MiB
  kubectl exec try -- gpuprobe burn 5 1000000
  kubectl describe pod try

There is no registry here: the image in that file is the one to use. More requests to try: examples/nvidia
Logs: {layout.logs}
End it: {sys.executable} -m tests.cluster.harness down
""")
    return 0


_EXAMPLE = f"""\
apiVersion: v1
kind: Pod
metadata:
  name: try
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: {PROBE}
      imagePullPolicy: Never
      command: ["sh", "-c", "gpuprobe info alloc 4000; exec sleep 1000000"]
      resources:
        limits:
          nvidia.com/gpu: 1
          nvidia.com/gpumem: 3000
          nvidia.com/gpucores: 30
"""


def down() -> int:
    layout = recorded(state_folder())
    if layout is None:
        print("no cluster is running")
        return 0
    Cluster(layout).down()
    left = sweep.remains(layout)
    print("\n".join(["left behind:", *left]) if left else "the cluster is gone, nothing is left of it")
    return 1 if left else 0


def status() -> int:
    layout = recorded(state_folder())
    running = Processes(layout).running() if layout else ()
    for record in running:
        print(f"{record.name:26} pid {record.pid}")
    if not running:
        print("no cluster is running")
    return 0 if running else 1


sys.exit(main())
