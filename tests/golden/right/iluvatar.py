"""Iluvatar, every chip."""

from tests.golden.right import Admitted, Denied, Family, OnlyAsked, Placed

FAMILY = Family(
    file="iluvatar",
    right={
        # The total of two cards is 200, not 200 for each.
        "ilu-w-017": Admitted(
            patch=(
                {
                    "op": "add",
                    "path": "/spec/containers/0/env",
                    "value": [{"name": "SOL_CONTINER_NAME", "value": "c"}],
                },
                {
                    "op": "add",
                    "path": "/spec/containers/0/resources/limits/iluvatar.ai~1MR-V100.vCore",
                    "value": "200",
                },
            )
        ),
        "ilu-w-019": Denied(naming="spec.containers[0].resources.limits[iluvatar.ai/MR-V100.vMem]"),
        "ilu-f-067": Placed(
            node="ilu-150s", written={"hami.io/BI-V150-devices-allocated": ";GPU-d0,BI-V150,16384,50:;"}
        ),
    },
    steps={"ilu-s-076": dict.fromkeys((0, 1, 5), OnlyAsked())},
)
