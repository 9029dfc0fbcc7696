"""Node annotations: inventory in both forms, link scores, cordon, handshake, agent protocol."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hami.model.device import Device, Links, MigPlacement, MigProfile
from hami.model.names import DeviceUuid, VendorWord, WireError
from hami.model.wire import node
from hami.model.wire.node import AgentProtocol, Handshake, HandshakeState, read_inventory, write_inventory

from . import strategies

FIELD = "metadata.annotations[hami.io/node-nvidia-register]"

T4 = Device(
    uuid=DeviceUuid("GPU-a"), index=0, slots=10, memory_mib=15360, cores=100, model="NVIDIA-Tesla T4", mode="hami-core"
)
SICK_T4 = Device(
    uuid=DeviceUuid("GPU-b"),
    index=1,
    slots=10,
    memory_mib=15360,
    cores=100,
    model="NVIDIA-Tesla T4",
    numa=1,
    healthy=False,
)
A100 = Device(
    uuid=DeviceUuid("GPU-c"),
    index=0,
    slots=7,
    memory_mib=40960,
    cores=100,
    model="NVIDIA A100-SXM4-40GB",
    mode="mig",
    mig_profiles=(
        MigProfile(
            name="1g.5gb",
            memory_mib=4864,
            cores=15,
            slice_count=1,
            placements=(MigPlacement(start=0, size=1), MigPlacement(start=1, size=1)),
        ),
    ),
)

COLON = "GPU-a,10,15360,100,NVIDIA-Tesla T4,0,true,0,hami-core:GPU-b,10,15360,100,NVIDIA-Tesla T4,1,false,1,hami-core:"
JSON = (
    '[{"id":"GPU-a","count":10,"devmem":15360,"devcore":100,"type":"NVIDIA-Tesla T4","mode":"hami-core","health":true},'
    '{"id":"GPU-b","index":1,"count":10,"devmem":15360,"devcore":100,"type":"NVIDIA-Tesla T4","numa":1,'
    '"mode":"hami-core"}]'
)
MIG_JSON = (
    '[{"id":"GPU-c","count":7,"devmem":40960,"devcore":100,"type":"NVIDIA A100-SXM4-40GB","mode":"mig",'
    '"migProfiles":[{"name":"1g.5gb","memoryMB":4864,"core":15,"sliceCount":1,'
    '"placements":[{"start":0,"size":1},{"start":1,"size":1}]}],"health":true}]'
)


def test_both_forms_say_the_same() -> None:
    assert read_inventory(COLON, FIELD) == read_inventory(JSON, FIELD) == (T4, SICK_T4)
    assert write_inventory((SICK_T4, T4), "colon") == COLON
    assert write_inventory((SICK_T4, T4), "json") == JSON


def test_mig_profiles() -> None:
    assert read_inventory(MIG_JSON, FIELD) == (A100,)
    assert write_inventory((A100,), "json") == MIG_JSON


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("[]", ()),
        ("null", ()),
        (" [ ] ", ()),
        ("GPU-a,10,15360,100,NVIDIA-Tesla T4,0,true:", (T4,)),
        ("GPU-a,10,15360,100,NVIDIA-Tesla T4,0,T,0,:", (T4,)),
        ('[{"ID":"GPU-a","Count":10,"DevMem":15360,"DEVCORE":100,"Type":"NVIDIA-Tesla T4","HEALTH":true}]', (T4,)),
        (JSON.replace('"index":1,', '"index":1,"custominfo":{"a":[1]},"migtemplate":null,"later":"x",'), (T4, SICK_T4)),
        (MIG_JSON.replace('"mode":"mig"', '"mode":"mig","numa":null'), (A100,)),
    ],
    ids=["empty", "null", "blanks", "seven fields", "no mode", "capitals", "unknown keys", "null key"],
)  # fmt: skip
def test_tolerated(text: str, devices: tuple[Device, ...]) -> None:
    assert read_inventory(text, FIELD) == devices


def test_html_is_escaped_as_the_reference_does() -> None:
    odd = Device(uuid=DeviceUuid("G<&>\u2028\u2029é"), index=0, slots=1, memory_mib=1, cores=1, model="M")
    text = write_inventory((odd,), "json")
    assert '"id":"G\\u003c\\u0026\\u003e\\u2028\\u2029é"' in text
    assert read_inventory(text, FIELD) == (odd,)


# (case, text, path behind the annotation's)
BROKEN = [
    ("empty", "", ""),
    ("a word", "garbage", ""),
    ("cut JSON", JSON[:-5], ""),
    ("an object", '{"id":"GPU-a"}', "[0]"),
    ("a list of words", '["GPU-a"]', "[0]"),
    ("null card", "[null]", "[0]"),
    ("no UUID", '[{"index":1}]', "[0].id"),
    ("UUID a number", '[{"id":5}]', "[0].id"),
    ("memory text", '[{"id":"a"},{"id":"b","devmem":"15360"}]', "[1].devmem"),
    ("memory fraction", '[{"id":"a","devmem":1.5}]', "[0].devmem"),
    ("memory exponent", '[{"id":"a","devmem":1e3}]', "[0].devmem"),
    ("memory beyond 32 bit", '[{"id":"a","devmem":2147483648}]', "[0].devmem"),
    ("memory negative", '[{"id":"a","devmem":-1}]', "[0].devmem"),
    ("memory giant", f'[{{"id":"a","devmem":{"9" * 30}}}]', "[0].devmem"),
    ("memory beyond any number", f'[{{"id":"a","devmem":{"9" * 1000}}}]', ""),
    ("count true", '[{"id":"a","count":true}]', "[0].count"),
    ("index negative", '[{"id":"a","index":-1}]', "[0].index"),
    ("numa below -1", '[{"id":"a","numa":-2}]', "[0].numa"),
    ("health text", '[{"id":"a","health":"true"}]', "[0].health"),
    ("model a list", '[{"id":"a","type":[]}]', "[0].type"),
    ("mode a number", '[{"id":"a","mode":1}]', "[0].mode"),
    ("profiles an object", '[{"id":"a","migProfiles":{}}]', "[0].migProfiles"),
    ("profile unnamed", '[{"id":"a","migProfiles":[{"core":1}]}]', "[0].migProfiles[0].name"),
    ("no size", '[{"id":"a","migProfiles":[{"name":"x","placements":[{}]}]}]', "[0].migProfiles[0].placements[0].size"),
    ("twice the same card", '[{"id":"a"},{"id":"a","index":1}]', ""),
    ("nested without end", "[" * 100_000, ""),
    ("colon: too few fields", "GPU-a,10,15360:", "[0]"),
    ("colon: eight fields", "GPU-a,10,15360,100,T4,0,true,0:", "[0]"),
    ("colon: no comma", "GPU-a:", "[0]"),
    ("colon: no UUID", ",10,15360,100,T4,0,true:", "[0].id"),
    ("colon: memory", "GPU-a,10,lots,100,T4,0,true:", "[0].devmem"),
    ("colon: memory negative", "GPU-a,10,-1,100,T4,0,true:", "[0].devmem"),
    ("colon: health", "GPU-a,10,15360,100,T4,0,yes:", "[0].health"),
    ("colon: index", "GPU-a,10,15360,100,T4,0,true,-1,mig:", "[0].index"),
    ("colon: model with a comma", "GPU-a,10,15360,100,T4, big,0,true:", "[0]"),
    ("colon: twice the same card", "GPU-a,10,15360,100,T4,0,true:" * 2, ""),
    ("longer than any annotation", "GPU-a,10,15360,100,T4,0,true:" * 10_000, ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_broken_inventory_names_the_part(text: str, path: str) -> None:
    start = time.perf_counter()
    with pytest.raises(WireError) as caught:
        read_inventory(text, FIELD)
    assert caught.value.field == FIELD + path
    assert len(str(caught.value)) < 600
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("text", "left", "path"),
    [
        ('[{"id":"a"},{"id":"b","devmem":"15360"},{"id":"c"}]', "ac", "[1].devmem"),
        ('[{"id":"b","index":2},{"id":"a"},{"id":"b","index":1}]', "ab", ""),
        ("a,1,1,1,T4,0,true:b,1,lots,1,T4,0,true:c,1,1,1,T4,0,true:", "ac", "[1].devmem"),
        ("a,1,1,1,T4,0,true:a,1,2,1,T4,0,true:", "a", ""),
    ],
)
def test_a_broken_card_costs_itself_where_problems_are_told(text: str, left: str, path: str) -> None:
    problems: list[WireError] = []
    found = read_inventory(text, FIELD, problems)
    assert "".join(device.uuid for device in found) == left
    assert [problem.field for problem in problems] == [FIELD + path]
    assert [device.index for device in found] == sorted(device.index for device in found)


@pytest.mark.parametrize("word", ["T4,big", "T4:big"])
def test_colon_form_cannot_say_everything(word: str) -> None:
    with pytest.raises(WireError, match="without , and :"):
        write_inventory((Device(uuid=DeviceUuid("a"), index=0, slots=1, memory_mib=1, cores=1, model=word),), "colon")


@given(strategies.devices(strategies.any_text.filter(bool), strategies.any_text, mig=True))
@settings(deadline=None)
def test_json_round_trip(devices: list[Device]) -> None:
    text = write_inventory(devices, "json")
    assert read_inventory(text, FIELD) == tuple(sorted(devices, key=lambda device: (device.index, device.uuid)))
    assert write_inventory(devices[::-1], "json") == text


@given(strategies.devices(strategies.words.map("GPU-{}".format), strategies.words, mig=False).filter(bool))
@settings(deadline=None)
def test_colon_round_trip(devices: list[Device]) -> None:
    text = write_inventory(devices, "colon")
    assert read_inventory(text, FIELD) == tuple(sorted(devices, key=lambda device: (device.index, device.uuid)))


@given(st.text(alphabet='[]{}"":,.-019idtruenmod ', max_size=80))
@settings(deadline=None)
def test_any_text_is_an_inventory_or_a_wire_error(text: str) -> None:
    try:
        path = f"{FIELD}{len(read_inventory(text, FIELD))}"
    except WireError as error:
        path = error.field
    assert path.startswith(FIELD)


LINKS = '[{"uuid":"GPU-a","score":{"GPU-b":460}},{"uuid":"GPU-b","score":{"GPU-a":460}}]'


def test_links() -> None:
    links = node.read_links(LINKS, "links")
    assert node.write_links(links) == LINKS
    assert links.score(DeviceUuid("GPU-a"), DeviceUuid("GPU-b")) == 460
    assert links.score(DeviceUuid("GPU-a"), DeviceUuid("GPU-x")) == 0
    assert node.read_links('[{"score":null,"uuid":"GPU-a"}]', "links").scores == ((DeviceUuid("GPU-a"), ()),)
    assert node.write_links(Links(scores=((DeviceUuid("GPU-a"), ()),))) == '[{"uuid":"GPU-a","score":{}}]'


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", "links"),
        ("{}", "links"),
        ("[1]", "links[0]"),
        ('[{"score":{}}]', "links[0].uuid"),
        ('[{"uuid":"a","score":[1]}]', "links[0].score"),
        ('[{"uuid":"a","score":{"b":"1"}}]', "links[0].score[b]"),
        ('[{"uuid":"a","score":{"b":4294967296}}]', "links[0].score[b]"),
    ],
)
def test_broken_links(text: str, path: str) -> None:
    with pytest.raises(WireError) as caught:
        node.read_links(text, "links")
    assert caught.value.field == path


@pytest.mark.parametrize(
    ("text", "uuids"),
    [("", set()), (" , ,", set()), ("GPU-a, GPU-b", {"GPU-a", "GPU-b"}), (" GPU-a ,GPU-a", {"GPU-a"})],
)
def test_cordon(text: str, uuids: set[str]) -> None:
    assert node.read_cordon(text) == uuids


EIGHT = 1787299200


@pytest.mark.parametrize(
    ("text", "handshake"),
    [
        ("Requesting_2026-08-21 08:00:00", Handshake(state=HandshakeState.REQUESTING, wall=EIGHT)),
        ("Requesting_2026.08.21 08:00:00", Handshake(state=HandshakeState.REQUESTING, wall=EIGHT)),
        ("Deleted_2026-08-21 08:00:00", Handshake(state=HandshakeState.DELETED, wall=EIGHT)),
        ("Reported 2026-08-21 08:00:00.123 +0000 UTC m=+1.5", Handshake(state=HandshakeState.REPORTED, wall=EIGHT)),
        ("Reported_2026-08-21 08:00:00.123456 +0800 CST", Handshake(state=HandshakeState.REPORTED, wall=EIGHT)),
        ("Requesting_", Handshake(state=HandshakeState.REQUESTING)),
        ("Requesting", Handshake(state=HandshakeState.REQUESTING)),
        ("Requesting_0000-99-99 99:99:99", Handshake(state=HandshakeState.REQUESTING)),
        ("Reported_tomorrow", Handshake(state=HandshakeState.REPORTED)),
        ("", Handshake(state=HandshakeState.UNKNOWN)),
        ("hello", Handshake(state=HandshakeState.UNKNOWN)),
    ],
)
def test_handshake(text: str, handshake: Handshake) -> None:
    assert node.read_handshake(text) == handshake


def test_handshake_is_written_as_it_is_read() -> None:
    assert node.write_handshake(HandshakeState.REPORTED, EIGHT + 0.9) == "Reported_2026-08-21 08:00:00"
    assert node.read_handshake(node.write_handshake(HandshakeState.REQUESTING, EIGHT)).wall == EIGHT


@pytest.mark.parametrize(
    ("text", "families", "devices"),
    [
        ("1;families=NVIDIA;devices=cdi", {"NVIDIA"}, "cdi"),
        ("1;families=NVIDIA,DCU;devices=env", {"NVIDIA", "DCU"}, "env"),
        ("1; families = NVIDIA ; devices = cdi ; later=x", {"NVIDIA"}, "cdi"),
        ("1", set(), "env"),
    ],
)
def test_agent_protocol(text: str, families: set[str], devices: str) -> None:
    protocol = node.read_agent_protocol(text)
    assert protocol.families == families
    assert protocol.devices == devices


def test_agent_protocol_is_written_in_order() -> None:
    protocol = AgentProtocol(families=frozenset({VendorWord("NVIDIA"), VendorWord("DCU")}), devices="cdi")
    assert node.write_agent_protocol(protocol) == "1;families=DCU,NVIDIA;devices=cdi"
    assert node.read_agent_protocol(node.write_agent_protocol(protocol)) == protocol


@pytest.mark.parametrize(
    ("text", "path"),
    [("", ""), ("2;families=NVIDIA", ""), ("families=NVIDIA", ""), ("1;devices=fpga", ".devices")],
)
def test_broken_agent_protocol(text: str, path: str) -> None:
    with pytest.raises(WireError) as caught:
        node.read_agent_protocol(text)
    assert caught.value.field == "metadata.annotations[hami.io/agent-protocol]" + path
