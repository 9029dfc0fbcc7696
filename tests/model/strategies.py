"""Random values that a correct system may hold, for round trips through the codecs."""

from hypothesis import strategies as st

from hami.model.claim import Share
from hami.model.device import Device, MigPlacement, MigProfile
from hami.model.names import INT32_MAX, DeviceUuid

amounts = st.integers(0, INT32_MAX)
# What can be written inside the separators of the two text formats.
words = st.text(st.characters(codec="utf-8", exclude_characters=",:;", categories=("L", "N", "S", "P")), min_size=1)
any_text = st.text(st.characters(codec="utf-8"))

shares = st.builds(Share, uuid=words.map(DeviceUuid), kind=words, memory_mib=amounts, cores=st.integers(0, INT32_MAX))
segments = st.lists(st.lists(shares, max_size=4).map(tuple), min_size=1, max_size=6).map(tuple)

profiles = st.builds(
    MigProfile,
    name=any_text.filter(bool),
    memory_mib=amounts,
    cores=amounts,
    slice_count=amounts,
    placements=st.lists(st.builds(MigPlacement, start=amounts, size=st.integers(1, INT32_MAX)), max_size=3).map(tuple),
)


def devices(uuid: st.SearchStrategy[str], model: st.SearchStrategy[str], mig: bool) -> st.SearchStrategy[list[Device]]:
    """Lists of cards with distinct UUIDs; `mig` gives some of them profiles."""
    one = st.builds(
        Device,
        uuid=uuid.map(DeviceUuid),
        index=amounts,
        slots=amounts,
        memory_mib=amounts,
        cores=amounts,
        model=model,
        numa=st.integers(-1, INT32_MAX),
        mode=st.sampled_from(["hami-core", "mig", "mps"]),
        healthy=st.booleans(),
        mig_profiles=st.lists(profiles, max_size=2).map(tuple) if mig else st.just(()),
    )
    return st.lists(one, max_size=5, unique_by=lambda device: device.uuid)
