"""MIG by model: which allowlist entry means which card, which profiles a list of names means, and names themselves."""

import pytest

from hami.model import mig
from hami.model.mig import ProfileName, allowlisted, covers, identify, profile_name, read_profile_name, select_profiles
from hami.model.names import WireError
from hami.model.settings import DEFAULT_MIG_ALLOWLIST


@pytest.mark.parametrize(
    ("product", "memory_mib", "want"),
    [
        ("NVIDIA A30", 24576, "1g.6gb"),
        ("NVIDIA A100-SXM4-40GB", 40960, "1g.5gb"),
        ("NVIDIA A100-PCIE-40GB", 40536, "1g.5gb"),
        ("NVIDIA A100 80GB PCIe", 81920, "1g.10gb"),
        ("NVIDIA-NVIDIA A100-SXM4-80GB", 81920, "1g.10gb"),
        ("NVIDIA H100 80GB HBM3", 81559, "1g.10gb"),
        ("NVIDIA H100 PCIe", 81559, "1g.10gb"),
        ("NVIDIA H100 NVL", 95830, "1g.12gb"),
        ("NVIDIA GH200 480GB", 97871, "1g.12gb"),
        ("NVIDIA H20", 97871, "1g.12gb"),
        ("NVIDIA H200", 143771, "1g.18gb"),
        ("NVIDIA H200 NVL", 143771, "1g.18gb"),
        ("NVIDIA B200", 183359, "1g.23gb"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887, "1g.24gb"),
        # Names that only look like a listed one.
        ("NVIDIA GB200", 189471, None),
        ("NVIDIA H20-3e", 143771, None),
        ("NVIDIA A800 80GB PCIe", 81920, None),
        ("NVIDIA GH200 144G HBM3e", 146831, None),
        ("NVIDIA GB300", 284208, None),
        ("Tesla T4", 15360, None),
        ("", 0, None),
    ],
)
def test_allowlist_entry_of_a_card(product: str, memory_mib: int, want: str | None) -> None:
    found = allowlisted(DEFAULT_MIG_ALLOWLIST, product, memory_mib)
    assert (found and found[0]) == want


@pytest.mark.parametrize(
    ("entry", "product", "memory_mib", "want"),
    [
        pytest.param("a100 40gb pcie", "NVIDIA A100-PCIE-40GB", 40960, True, id="capitals and order"),
        pytest.param("A100-PCIE-40GB", "NVIDIA A100-SXM4-40GB", 40960, False, id="another form of the card"),
        pytest.param("A100", "NVIDIA A100 80GB PCIe", 81920, True, id="one word means every size"),
        pytest.param("A100-80GB", "NVIDIA A100-SXM4-40GB", 40960, False, id="another size"),
        pytest.param("A800-80GB", "NVIDIA A800 80GB PCIe", 81920, True, id="a model HAMi does not list"),
        pytest.param("H20-3e", "NVIDIA H20-3e", 143771, True, id="the longer name"),
        pytest.param("H20-3e", "NVIDIA H20", 97871, False, id="but not the shorter card"),
        pytest.param("Thor", "NVIDIA Thor iGPU", 1000, True, id="unknown models by whole words"),
        pytest.param("Tho", "NVIDIA Thor iGPU", 1000, False, id="never by a part of a word"),
        pytest.param("NVIDIA", "NVIDIA Thor iGPU", 1000, False, id="the maker alone is no model"),
    ],
)
def test_entry_covers(entry: str, product: str, memory_mib: int, want: bool) -> None:
    assert covers(entry, product, memory_mib) is want


def names(product: str, memory_mib: int, wanted: str) -> str:
    model = identify(product, memory_mib)
    assert model is not None
    return " ".join(profile.name for profile in select_profiles(model.offered(), wanted.split(), "profiles"))


def test_profiles_by_name() -> None:
    a100 = "NVIDIA A100-SXM4-40GB", 40960
    assert names(*a100, "7g.40gb 1g.5gb") == "1g.5gb 7g.40gb", "the driver's order"
    assert names(*a100, "1g.10gb") == "1g.10gb", "double memory is a profile of its own"
    assert names(*a100, "1g.5gb+me") == "1g.5gb+me"
    assert names(*a100, "1g.6gb 3g.24gb") == "1g.5gb 3g.20gb", "the nearest of as many slices"
    assert names(*a100, "6g.30gb 1g.5gb+gfx") == ""
    assert names("NVIDIA A100-SXM4-80GB", 81920, "1g.10gb 7g.79gb") == "1g.10gb 7g.80gb"
    with pytest.raises(WireError, match=r"profiles\[0\]"):
        names(*a100, "big")


@pytest.mark.parametrize("model", mig.MODELS, ids=lambda model: f"{'-'.join(sorted(model.words))}-{model.memory_mib}")
def test_names_follow_the_vendors_rule(model: mig.MigModel) -> None:
    for profile in model.profiles:
        expected = profile_name(profile.shape.slices, profile.memory_mib, model.memory_mib, profile.shape.suffix)
        assert read_profile_name(str(profile.name), "name") == profile.name
        # Published names of some cards count gigabytes less the driver's reserve.
        assert abs(expected.gigabytes - profile.name.gigabytes) <= 0.05 * profile.name.gigabytes
        assert (expected.slices, expected.suffix) == (profile.name.slices, profile.name.suffix)


def test_offered_as_nodes_register_it() -> None:
    model = identify("NVIDIA A100-SXM4-40GB", 40960)
    assert model is not None
    first = model.offered()[0]
    assert (first.name, first.memory_mib, first.cores, first.slice_count) == ("1g.5gb", 4864, 15, 1)
    assert [place.start for place in first.placements] == list(range(7))
    assert [(p.name, p.cores) for p in model.offered() if p.slice_count > 1] == [
        ("2g.10gb", 29),
        ("3g.20gb", 43),
        ("4g.20gb", 58),
        ("7g.40gb", 100),
    ]


@pytest.mark.parametrize(
    "text", ["", "1g", "g.5gb", "0g.5gb", "1g.5", "1g.5gb+", "-1g.5gb", "1g.5gb ", "1" * 99, "1g.5GB"]
)
def test_bad_profile_names(text: str) -> None:
    with pytest.raises(WireError, match="somewhere"):
        read_profile_name(text, "somewhere")


def test_profile_name_parts() -> None:
    assert read_profile_name("1g.24gb+me.all", "name") == ProfileName(1, 24, "+me.all")
    assert ProfileName(1, 24, "+me.all").media
    assert ProfileName(1, 5, "+me").media
    assert not ProfileName(1, 24, "-me").media
    assert not ProfileName(1, 24, "+gfx").media
