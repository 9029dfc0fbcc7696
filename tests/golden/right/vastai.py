"""Vastai."""

from tests.golden.right import INVALID, Cards, Denied, Family

COUNT = "spec.containers[0].resources.limits[vastaitech.com/va]"
EXACT = "dies of the card that has just enough, so that larger ones stay whole"

FAMILY = Family(
    file="vastai",
    right={
        "vastai-w-003": Denied(naming=COUNT),
        "vastai-w-004": Denied(naming=COUNT),
        "vastai-w-005": Denied(naming=COUNT),
        "vastai-f-018": Cards(rule=EXACT, uuids=("va-die-7", "va-die-5")),
        "vastai-f-019": Cards(rule=EXACT, uuids=("va-die-3", "va-die-2", "va-die-1")),
        "vastai-f-024": Cards(rule=EXACT, uuids=("va-die42-5", "va-die42-4")),
        "vastai-f-062": INVALID,
    },
)
