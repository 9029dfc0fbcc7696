"""MetaX."""

from tests.golden.right import INVALID, Cards, Family, Nowhere, OnlyAsked, Placed

LINKS = "the most links kept among the cards taken and among those left; an unlinked card costs none"
QOS = Nowhere(reason="1/1 CardQosPolicyMismatch")


def cards(node: str, *numbers: int) -> Cards:
    return Cards(rule=LINKS, uuids=tuple(f"GPU-{node}-{number}" for number in numbers))


FAMILY = Family(
    file="metax",
    right={
        "mx-f-054": Nowhere(reason="1/1 CardInsufficientMemory"),
        "mx-f-059": INVALID,
        "mx-f-065": INVALID,
        "mx-f-084": OnlyAsked(),
        "mx-f-089": cards("mxs-8", 3, 2, 1, 0, 7),
        "mx-f-093": cards("mxs-321", 4, 3, 2, 1, 0),
        "mx-f-135": Placed(
            node="mxs-one",
            written={
                "hami.io/metax-sgpu-devices-allocated": "GPU-mxs-one-0,Metax-SGPU,4096,0:;" * 2,
                "metax-tech.com/gpu-devices-allocated": '[[{"uuid":"GPU-mxs-one-0","vRam":4096}],'
                '[{"uuid":"GPU-mxs-one-0","vRam":4096}]]',
            },
        ),
    },
    steps={
        "mx-s-143": {7: QOS},
        "mx-s-147": {step: cards("mxs-q16", card) for step, card in enumerate((5, 4, 3, 2, 1, 0))},
    },
)
