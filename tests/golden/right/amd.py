"""AMD."""

from tests.golden.right import INVALID, Denied, Family, Nowhere, Placed

DONE = "hami.io/amd-devices-allocated"
MEMORY = "spec.containers[0].resources.limits[amd.com/gpumem]"

FAMILY = Family(
    file="amd",
    right={
        "amd-w-008": Denied(naming=MEMORY),
        "amd-w-009": Denied(naming=MEMORY),
        "amd-f-033": INVALID,
        # Memory alone means one device.
        "amd-f-034": Placed(node="amd-300", written={DONE: "amd-300-3,AMD-Instinct-MI300X,1000,304:;"}),
        # The annotation a card was registered in tells its family.
        "amd-f-045": Placed(node="amd-name", written={DONE: "amd-name-0,Instinct-MI250,65536,104:;"}),
        # One segment a container, whatever model is registered.
        "amd-f-063": Placed(node="amd-300", written={DONE: ";amd-300-3,AMD-Instinct-MI300X,1000,30:;"}),
        "amd-f-064": Placed(
            node="amd-300",
            written={DONE: "amd-300-3,AMD-Instinct-MI300X,196608,30:;;amd-300-2,AMD-Instinct-MI300X,196608,60:;"},
        ),
        "amd-f-066": Placed(node="amd-300", written={DONE: "amd-300-3,AMD-Instinct-MI300X,196608,91:;;"}),
        "amd-f-067": Placed(node="amd-300", written={DONE: ";amd-300-3,AMD-Instinct-MI300X,1000,30:;"}),
        # A short text is the container's that asks.
        "amd-f-069": Nowhere(reason="1/1 CardInsufficientMemory"),
    },
)
