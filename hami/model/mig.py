"""MIG as the hardware has it: profiles by card model, and which allowlist entry means which card.

A running node takes memory and SM counts from its driver, because they vary with the driver's version; these tables
serve simulation, tests and the matching of names. The hard thing is the names: a driver says `NVIDIA H100 80GB HBM3`
where an allowlist says `H100-SXM5-80GB`, and `GB200` is no `B200`. So names are compared word by word, and a card is
known by its chip's word together with its memory.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hami.model.device import MigPlacement, MigProfile
from hami.model.names import WireError
from hami.model.settings import MigAllow


@dataclass(frozen=True, slots=True, order=True)
class ProfileName:
    """`1g.5gb+me` in parts. `gigabytes` is a label that rounds the real memory."""

    slices: int
    gigabytes: int
    suffix: str = ""

    def __str__(self) -> str:
        return f"{self.slices}g.{self.gigabytes}gb{self.suffix}"

    @property
    def media(self) -> bool:
        """Whether an instance holds the card's one media engine set, of which there is one a card."""
        return self.suffix.startswith("+me")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One profile of a family of cards: where it may lie, in memory slices, and how the driver numbers it."""

    slices: int
    starts: tuple[int, ...]
    size: int
    instances: int
    """How many the driver allows at a time."""
    profile_id: int
    nvml_index: int
    """Number by which NVML is asked for the profile."""
    suffix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownProfile:
    """One profile of one model."""

    name: ProfileName
    shape: Shape
    memory_mib: int
    sm_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MigModel:
    """A card model that can be cut, by the words that every spelling of its name has."""

    words: frozenset[str]
    memory_mib: int
    """As the driver reports it for the whole card."""
    profiles: tuple[KnownProfile, ...]

    def offered(self) -> tuple[MigProfile, ...]:
        """The profiles as a node registers them."""
        largest = max(profile.sm_count for profile in self.profiles)
        return tuple(
            MigProfile(
                name=str(profile.name),
                memory_mib=profile.memory_mib,
                cores=-(-100 * profile.sm_count // largest),
                slice_count=profile.shape.slices,
                placements=tuple(MigPlacement(start=start, size=profile.shape.size) for start in profile.shape.starts),
            )
            for profile in self.profiles
        )


def _shape(
    slices: int, starts: Iterable[int], size: int, instances: int, profile_id: int, nvml_index: int, suffix: str = ""
) -> Shape:
    return Shape(
        slices=slices,
        starts=tuple(starts),
        size=size,
        instances=instances,
        profile_id=profile_id,
        nvml_index=nvml_index,
        suffix=suffix,
    )


SEVEN: Final = (
    # Eight memory slices for seven compute slices: only profiles with fewer compute than memory slices reach the last.
    _shape(1, range(7), 1, 7, 19, 0),
    _shape(1, range(7), 1, 1, 20, 7, "+me"),
    _shape(1, (0, 2, 4, 6), 2, 4, 15, 9),
    _shape(2, (0, 2, 4), 2, 3, 14, 1),
    _shape(3, (0, 4), 4, 2, 9, 2),
    _shape(4, (0,), 4, 1, 5, 3),
    _shape(7, (0,), 8, 1, 0, 4),
)
"""A100, H100, H200, B200 and their siblings."""

FOUR: Final = (
    _shape(1, range(4), 1, 4, 14, 0),
    _shape(1, range(4), 1, 1, 21, 7, "+me"),
    _shape(2, (0, 2), 2, 2, 5, 1),
    _shape(2, (0, 2), 2, 1, 6, 8, "+me"),
    _shape(4, (0,), 4, 1, 0, 3),
)
"""A30."""

TWELVE: Final = (
    _shape(1, (0, 3, 6, 9), 3, 4, 14, 0),
    _shape(1, (0, 3, 6, 9), 3, 1, 21, 7, "+me"),
    _shape(1, (0, 3, 6, 9), 3, 4, 47, 10, "+gfx"),
    _shape(1, (0, 3, 6, 9), 3, 1, 65, 15, "+me.all"),
    _shape(1, (0, 3, 6, 9), 3, 4, 67, 13, "-me"),
    _shape(2, (0, 6), 6, 2, 5, 1),
    _shape(2, (0, 6), 6, 2, 35, 11, "+gfx"),
    _shape(2, (0, 6), 6, 1, 64, 16, "+me.all"),
    _shape(2, (0, 6), 6, 2, 66, 14, "-me"),
    _shape(4, (0,), 12, 1, 0, 3),
    _shape(4, (0,), 12, 1, 32, 12, "+gfx"),
)
"""RTX PRO 6000 Blackwell."""


def _model(words: str, memory_mib: int, shapes: tuple[Shape, ...], rows: str) -> MigModel:
    """`rows`: `GB:MiB:SM` for every pair of slices and size in the order of `shapes`; suffixes share their row."""
    kinds = list(dict.fromkeys((shape.slices, shape.size) for shape in shapes))
    numbers = dict(zip(kinds, (tuple(map(int, row.split(":"))) for row in rows.split()), strict=True))
    profiles = []
    for shape in shapes:
        gigabytes, profile_mib, sm_count = numbers[shape.slices, shape.size]
        name = ProfileName(shape.slices, gigabytes, shape.suffix)
        profiles.append(KnownProfile(name=name, shape=shape, memory_mib=profile_mib, sm_count=sm_count))
    return MigModel(words=frozenset(words.split()), memory_mib=memory_mib, profiles=tuple(profiles))


_A100_40: Final = "5:4864:14 10:9984:14 10:9984:28 20:20096:42 20:20096:56 40:40320:98"
_A100_80: Final = "10:9728:14 20:19968:14 20:19968:28 40:40192:42 40:40192:56 80:80896:98"
_H100_80: Final = "10:9984:16 20:20096:26 20:20096:32 40:40448:60 40:40448:64 80:81152:132"
_H100_94: Final = "12:11776:16 24:23680:26 24:23680:32 47:47488:60 47:47488:64 94:95360:132"
_H100_96: Final = "12:12032:16 24:24192:26 24:24192:32 48:48640:60 48:48640:64 96:97280:132"
_H20_96: Final = "12:12032:8 24:24192:14 24:24192:18 48:48640:34 48:48640:38 96:97280:78"
_H20_141: Final = "18:16384:8 35:33280:14 35:33280:18 71:71552:34 71:71552:38 141:143360:78"
_H200: Final = "18:16384:16 35:33280:26 35:33280:32 71:71552:60 71:71552:64 141:143360:132"
_GH200_144: Final = "18:18048:16 36:36224:26 36:36224:32 72:72704:60 72:72704:64 144:145664:132"
_B200: Final = "23:20992:18 45:45312:30 45:45312:36 90:91136:70 90:91136:72 180:182784:148"
_GB200: Final = "23:23040:18 47:47104:30 47:47104:36 93:94208:70 93:94208:72 186:188416:152"
_B300: Final = "34:33792:18 67:67584:30 67:67584:36 135:135168:70 135:135168:72 269:272384:148"
_GB300: Final = "35:34816:18 70:70656:30 70:70656:36 139:141312:70 139:141312:72 278:281600:152"

MODELS: Final = (
    # A30, A100, H100 80 GB, B200 and RTX PRO 6000 as captured from drivers; the others from published profile names,
    # their MiB and SM in the proportions of the measured sibling.
    _model("a30", 24576, FOUR, "6:5952:14 12:11968:28 24:24064:56"),
    _model("a100", 40960, SEVEN, _A100_40),
    _model("a100", 81920, SEVEN, _A100_80),
    _model("a800", 40960, SEVEN, _A100_40),
    _model("a800", 81920, SEVEN, _A100_80),
    _model("h100", 81559, SEVEN, _H100_80),
    _model("h100", 95830, SEVEN, _H100_94),
    _model("h800", 81559, SEVEN, _H100_80),
    _model("gh200", 97871, SEVEN, _H100_96),
    _model("gh200 hbm3e", 146831, SEVEN, _GH200_144),
    _model("h20", 97871, SEVEN, _H20_96),
    _model("h20 3e", 143771, SEVEN, _H20_141),
    _model("h200", 143771, SEVEN, _H200),
    _model("b200", 183359, SEVEN, _B200),
    _model("gb200", 189471, SEVEN, _GB200),
    _model("b300", 275040, SEVEN, _B300),
    _model("gb300", 284208, SEVEN, _GB300),
    _model("pro 6000", 97887, TWELVE, "24:24192:46 48:48512:94 96:97280:188"),
)

_NAME: Final = re.compile(r"(\d{1,2})g\.(\d{1,4})gb((?:[+-][a-z0-9.]+)*)", re.ASCII)
_GIGABYTES: Final = re.compile(r"(\d{2,3})gb?", re.ASCII)
_NEAR: Final = 0.1
"""Part by which a card's memory may differ from its model's: drivers reserve more or less of it."""


def read_profile_name(text: str, field: str) -> ProfileName:
    """`1g.5gb`, with any of the drivers' suffixes."""
    shape = _NAME.fullmatch(text) if len(text) <= 64 else None
    if shape is None or not int(shape[1]):
        raise WireError(field, "a MIG profile name such as 1g.5gb", text)
    return ProfileName(int(shape[1]), int(shape[2]), shape[3])


def profile_name(slices: int, memory_mib: int, card_mib: int, suffix: str = "") -> ProfileName:
    """The name NVIDIA's own tools give a profile: its eighths of the card, rounded up, in whole GB of the card."""
    eighths = -(-8 * memory_mib // card_mib)
    gigabytes = -(-card_mib // 1024)
    return ProfileName(slices, (2 * eighths * gigabytes + 8) // 16, suffix)


def identify(product: str, memory_mib: int) -> MigModel | None:
    """The model of a card by the driver's product name and its memory; None for one that no table describes."""
    words = _words(product)
    near = [
        model
        for model in MODELS
        if model.words <= words and abs(model.memory_mib - memory_mib) <= _NEAR * model.memory_mib
    ]
    return min(near, key=lambda m: (-len(m.words), abs(m.memory_mib - memory_mib)), default=None)


def covers(entry: str, product: str, memory_mib: int) -> bool:
    """Whether one model text of an allowlist means this card.

    Capitals, dashes and the order of words do not matter, words count as wholes, and where text and card are both in
    the tables they must be the same model; the memory a text names must be the card's.
    """
    wanted, words = _words(entry), _words(product)
    if (_form(wanted), _form(words)) in (("sxm", "pcie"), ("pcie", "sxm")):
        return False
    meant = [model for model in MODELS if model.words <= wanted]
    if "gh200" in wanted:
        # `H100 on GH200` is one chip, by two names.
        meant = [model for model in meant if "gh200" in model.words]
    most = max((len(model.words) for model in meant), default=0)
    meant = [model for model in meant if len(model.words) == most and _is_size(model, wanted)]
    card = identify(product, memory_mib)
    if card is None or not meant:
        return bool(wanted) and wanted <= words
    return card in meant


def allowlisted(allowlist: Sequence[MigAllow], product: str, memory_mib: int) -> tuple[str, ...] | None:
    """The profile names of the first entry that means this card; None when none does."""
    for allow in allowlist:
        if any(covers(entry, product, memory_mib) for entry in allow.models):
            return allow.profiles
    return None


def select_profiles(offered: Sequence[MigProfile], names: Sequence[str], field: str) -> tuple[MigProfile, ...]:
    """The profiles that a list of names allows, in the order in which the driver offers them.

    A name means the profile of exactly this name; else, because drivers round the gigabytes differently, the one of
    as many slices and the same suffix whose gigabytes are nearest. A name nothing answers to allows nothing.
    """
    known = {read_profile_name(profile.name, field): profile for profile in offered}
    chosen: set[ProfileName] = set()
    for position, text in enumerate(names):
        name = read_profile_name(text, f"{field}[{position}]")
        alike = [other for other in known if (other.slices, other.suffix) == (name.slices, name.suffix)]
        if alike:
            chosen.add(min(alike, key=lambda other: (abs(other.gigabytes - name.gigabytes), other.gigabytes)))
    return tuple(profile for name, profile in known.items() if name in chosen)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.split(r"[^a-z0-9.]+", text.lower())) - {"", "nvidia"}


def _form(words: frozenset[str]) -> str:
    """How a card is built in, where its name says so: stacked memory is named only on modules."""
    if any(word.startswith(("sxm", "hbm")) for word in words):
        return "sxm"
    return "pcie" if words & {"pcie", "nvl"} else ""


def _is_size(model: MigModel, words: frozenset[str]) -> bool:
    sizes = [int(shape[1]) * 1024 for word in words if (shape := _GIGABYTES.fullmatch(word))]
    # A Grace Hopper's name counts the memory of its processor.
    return not sizes or "gh200" in model.words or any(abs(size - model.memory_mib) <= _NEAR * size for size in sizes)
