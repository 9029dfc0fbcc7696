"""Pair scores: PCIe and NVLink points added, contradictions scored as nothing."""

import pytest

from hami.model.names import DeviceUuid
from hami.node.links import Neighborhood, score_links

A, B = DeviceUuid("GPU-a"), DeviceUuid("GPU-b")


def card(uuid: DeviceUuid, other: DeviceUuid, level: int | None, direct: int = 0, to_switch: int = 0) -> Neighborhood:
    return Neighborhood(
        uuid=uuid,
        ancestors={} if level is None else {other: level},
        direct={other: direct} if direct else {},
        to_switch=to_switch,
    )


@pytest.mark.parametrize(
    ("here", "there", "want"),
    [
        ((50,), (50,), 10),
        ((40,), (40,), 20),
        ((30,), (30,), 30),
        ((20,), (20,), 40),
        ((10,), (10,), 50),
        ((0,), (0,), 60),
        ((50, 1), (50, 1), 110),
        ((10, 18), (10, 18), 1850),
        ((10, 19), (10, 19), 50),
        ((40, 0, 18), (40, 0, 12), 1220),
        ((40, 2, 12), (40, 2, 12), 220),
        ((None,), (None,), 0),
    ],
    ids=str,
)
def test_a_pairs_score(here: tuple[int], there: tuple[int], want: int) -> None:
    links, asymmetric = score_links([card(A, B, *here), card(B, A, *there)])
    assert (links.score(A, B), links.score(B, A)) == (want, want)
    assert asymmetric == ()


def test_a_link_seen_from_one_side_only() -> None:
    links, asymmetric = score_links([card(A, B, 20, 4), card(B, A, 20)])
    assert (links.score(A, B), links.score(B, A)) == (0, 0)
    assert asymmetric == ((A, B),)


def test_every_card_has_a_row_without_itself() -> None:
    links, _ = score_links([Neighborhood(uuid=A, ancestors={})])
    assert links.scores == ((A, ()),)
