"""Moore Threads."""

from tests.golden.right import INVALID, Admitted, Booked, Family, Nowhere, Placed, Untouched

DONE, INDEX = "hami.io/mthreads-vgpu-devices-allocated", "mthreads.com/gpu-index"
LIMITS = "/spec/containers/0/resources/limits"
REQUESTS = "/spec/containers/0/resources/requests"
CORE, MEMORY = "mthreads.com~1sgpu-core", "mthreads.com~1sgpu-memory"
IN_REQUESTS = "a count that is no limit asks for nothing; no API server lets such a pod through"


def add(where: str, name: str, value: str) -> dict[str, str]:
    return {"op": "add", "path": f"{where}/{name}", "value": value}


FAMILY = Family(
    file="mthreads",
    right={
        # Cores that were written stay.
        "mt-w-004": Admitted(patch=(add(LIMITS, MEMORY, "96"),)),
        "mt-w-010": Admitted(patch=(add(LIMITS, MEMORY, "96"), add(REQUESTS, MEMORY, "96"))),
        # Requests follow their limits.
        "mt-w-011": Admitted(
            patch=(
                add(LIMITS, CORE, "32"),
                add(LIMITS, MEMORY, "192"),
                add(REQUESTS, CORE, "32"),
                add(REQUESTS, MEMORY, "192"),
                {"op": "add", "path": "/metadata/annotations", "value": {"mthreads.com/request-gpu-num": "2"}},
            )
        ),
        "mt-w-016": Untouched(rule=IN_REQUESTS),
        "mt-w-017": Untouched(rule=IN_REQUESTS),
        "mt-f-036": INVALID,
        # What is left of the capacity makes a smaller card.
        "mt-f-042": Nowhere(reason="1/3 CardInsufficientCore, 2/3 AllocatedCardsInsufficientRequest"),
        "mt-f-043": Booked(
            rule="all memory of the smaller last card is half of another's", text="mt-odd-mthreads-2,Mthreads,20480,0:;"
        ),
        # One card where it serves all containers, else others; the index names them all.
        "mt-f-062": Placed(
            node="mt-a",
            written={DONE: "mt-a-mthreads-3,Mthreads,32768,8:;mt-a-mthreads-2,Mthreads,32768,8:;", INDEX: "3,2"},
        ),
        "mt-f-063": Placed(
            node="mt-a",
            written={DONE: "mt-a-mthreads-3,Mthreads,49152,16:;mt-a-mthreads-2,Mthreads,49152,16:;", INDEX: "3,2"},
        ),
        "mt-f-065": Placed(
            node="mt-a",
            written={
                DONE: "mt-a-mthreads-3,Mthreads,1024,0:;"
                "mt-a-mthreads-2,Mthreads,49152,16:mt-a-mthreads-1,Mthreads,49152,16:;",
                INDEX: "3,2,1",
            },
        ),
        "mt-f-069": Placed(
            node="mt-a",
            written={
                DONE: "mt-a-mthreads-3,Mthreads,49152,16:mt-a-mthreads-2,Mthreads,49152,16:;"
                "mt-a-mthreads-3,Mthreads,8192,4:;",
                INDEX: "3,2",
            },
        ),
    },
)
