"""The text of a file in the directory of running programs: what is written is read, what is wrong is named."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.local.ask import Ask
from hami.local.entries import Entry, entry_document, read_entry, write_entry
from hami.model.claim import Memory, Mib, Percent, Share
from hami.model.names import DeviceUuid, WireError

SHARE = Share(uuid=DeviceUuid("GPU-a"), kind="NVIDIA", memory_mib=3000, cores=30)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
HALF = Percent(50)
MEMORY = Mib(3000)


def entry(memory: Memory = MEMORY, shares: tuple[Share, ...] = (SHARE,)) -> Entry:
    return Entry(
        pid=7,
        start_ticks=8,
        boot="b",
        uid=9,
        command="python",
        ask=Ask(gpus=1, memory=memory, cores=30, policy="spread"),
        devices=(DeviceUuid("GPU-a"), DeviceUuid("GPU-b")),
        shares=shares,
    )


@pytest.mark.parametrize("written", [entry(), entry(memory=HALF), entry(shares=())], ids=["MiB", "%", "waiting"])
def test_what_is_written_is_read(written: Entry) -> None:
    assert read_entry(write_entry(written), "x") == written


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"shares": 1}, "x.shares"),
        ({"pid": -1}, "x.pid"),
        ({"pid": 2**63}, "x.pid"),
        ({"start_ticks": True}, "x.start_ticks"),
        ({"boot": None}, "x.boot"),
        ({"devices": [5]}, "x.devices"),
        ({"simulated": 1}, "x.simulated"),
        ({"ask": []}, "x.ask"),
        ({"ask": {"gpus": 0, "memory_mib": 1, "cores": 0, "policy": "spread"}}, "x.ask.gpus"),
        ({"ask": {"gpus": 1, "cores": 0, "policy": "spread"}}, "x.ask.memory_percent"),
        ({"ask": {"gpus": 1, "memory_percent": 101, "cores": 0, "policy": "spread"}}, "x.ask.memory_percent"),
        ({"ask": {"gpus": 1, "memory_mib": 1, "cores": 101, "policy": "spread"}}, "x.ask.cores"),
        ({"ask": {"gpus": 1, "memory_mib": 1, "cores": 0, "policy": "sideways"}}, "x.ask.policy"),
        ({"shares": [{"uuid": 5}]}, "x.shares[0].uuid"),
        ({"shares": [{"uuid": "GPU-a", "kind": "NVIDIA", "memory_mib": 2**31, "cores": 0}]}, "x.shares[0].memory_mib"),
    ],
)
def test_a_wrong_value_is_named(changes: dict[str, object], field: str) -> None:
    with pytest.raises(WireError) as caught:
        read_entry(orjson.dumps({**entry_document(entry()), **changes}), "x")
    assert caught.value.field == field


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff" * 100])
def test_something_else_is_no_entry(text: bytes) -> None:
    with pytest.raises(WireError, match="x: expected a JSON object"):
        read_entry(text, "x")


@given(
    st.binary(max_size=200) | st.dictionaries(st.sampled_from(sorted(entry_document(entry()))), JSON).map(orjson.dumps)
)
def test_nothing_but_a_named_error_comes_of_any_text(text: bytes) -> None:
    with pytest.raises(WireError):
        read_entry(text, "x")
