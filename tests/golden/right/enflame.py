"""Enflame, whole cards and slices."""

from tests.golden.right import INVALID, Cards, Denied, Family, Nowhere, OnlyAsked, Placed

WHOLE, SLICES = "hami.io/enflame-gcu-devices-allocated", "hami.io/enflame-vgpu-devices-allocated"
LIMITS = "spec.containers[0].resources.limits"
FULL = Nowhere(reason="1/1 CardInsufficientCore")

FAMILY = Family(
    file="enflame",
    right={
        "enflame-w-002": Denied(naming=f"{LIMITS}[enflame.com/gcu]"),
        "enflame-w-009": Denied(naming=f"{LIMITS}[enflame.com/drs-gcu]"),
        "enflame-w-017": Denied(naming=f"{LIMITS}[enflame.com/gcu-memory]", code=500),
        # Whole cards are chosen by UUID as slices are.
        "enflame-f-029": Placed(node="enf-gcu", written={WHOLE: "enf-gcu-GCU-0,GCU,100,100:;"}),
        "enflame-f-044": INVALID,
        "enflame-f-055": INVALID,
        "enflame-f-062": INVALID,
        "enflame-f-065": Cards(
            rule="of equal cards the one with the highest index, in whichever order they are listed",
            uuids=("enf-text-enflame-drs-3",),
        ),
        # Slices are counted.
        "enflame-f-070": FULL,
        # What two of three were given by rounding is the third one's loss.
        "enflame-f-079": Placed(node="enf-p12", written={SLICES: "enf-p12-enflame-drs-0,Enflame,16384,32:;"}),
        "enflameboth-f-002": OnlyAsked(),
        "enflameboth-f-005": OnlyAsked(),
    },
    steps={"enflame-s-098": {1: FULL, 2: FULL}},
)
