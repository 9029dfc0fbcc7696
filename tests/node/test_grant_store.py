"""Grants on disk: they survive the process, fail closed, and leave nothing behind."""

from dataclasses import replace
from pathlib import Path

import pytest

from hami.model.claim import Share
from hami.model.names import DeviceUuid, PodKey, PodUid
from hami.node.grants import CdiDevice, Grant, GrantStore, Holder, State, new_id
from hami.node.installed import hook_tree


@pytest.fixture
def store(tmp_path: Path) -> GrantStore:
    tree = hook_tree(str(tmp_path / "hook"))
    for directory in (tree.grants, tree.containers):
        directory.mkdir(parents=True)
    return GrantStore(tree, tmp_path / "cdi")


def grant(**changes: object) -> Grant:
    whole = Grant(
        id=new_id(),
        device_ids=frozenset({"GPU-a-0", "GPU-b-1"}),
        made_unix=17,
        visible=(DeviceUuid("GPU-a"),),
        state=State.SETTLED,
        holder=Holder(pod_uid=PodUid("u"), key=PodKey("ns", "pod"), container="main", position=1, containers=3),
        shares=(Share(uuid=DeviceUuid("GPU-a"), kind="NVIDIA", memory_mib=100, cores=5),),
        reason="because",
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{}, {"holder": None, "shares": (), "state": State.TENTATIVE, "visible": ()}])
def test_a_grant_survives_the_process(store: GrantStore, changes: dict[str, object]) -> None:
    made = grant(**changes)
    store.create(made)
    assert store.load() == {made.id: made}
    assert store.problems == []


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"device_ids": [], "made": "x"}', "\xff"])
def test_a_broken_record_is_reported_and_is_a_stray(store: GrantStore, text: str) -> None:
    made, broken = grant(), grant()
    store.create(made)
    store.create(broken)
    (store.tree.grants / broken.id / "record.json").write_text(text, encoding="latin-1")
    found = store.load()
    assert set(found) == {made.id}
    assert broken.id in store.problems[0]
    assert list(store.strays(found)) == [broken.id]


def test_a_region_directory_is_open_to_every_user(store: GrantStore) -> None:
    made = grant()
    store.create(made)
    assert store.region_dir(made.id).stat().st_mode & 0o777 == 0o777
    assert (store.tree.grants / made.id / "record.json").stat().st_mode & 0o077 == 0


def test_opening_and_closing(store: GrantStore) -> None:
    made = grant()
    store.create(made)
    assert list(store.etc(made.id).iterdir()) == []
    store.open_up(made.id, "hami-grant=1\n")
    assert [path.name for path in store.etc(made.id).iterdir()] == ["grant"]
    store.close_down(made.id)
    store.close_down(made.id)
    assert list(store.etc(made.id).iterdir()) == []


def test_a_device_file_is_written_only_when_it_differs(store: GrantStore) -> None:
    made = grant()
    assert store.write_device(made.id, CdiDevice(edits={"env": ["A=1"]}))
    assert not store.write_device(made.id, CdiDevice(edits={"env": ["A=1"]}))
    assert store.write_device(made.id, CdiDevice(edits={"env": ["A=2"]}))
    assert not replace(store, cdi_dir=None).write_device(made.id, CdiDevice(edits={"env": ["A=3"]}))


def test_the_link_follows_the_newest_grant_and_goes_with_it(store: GrantStore) -> None:
    first, second = grant(), grant()
    link = store.tree.containers / "u_main"
    for made in (first, second):
        store.create(made)
        store.link(made)
        assert link.resolve() == store.region_dir(made.id)
    store.remove(first.id)
    assert link.is_symlink(), "the second grant's link is not the first one's"
    store.remove(second.id)
    assert not link.is_symlink()
    assert list(store.tree.grants.iterdir()) == []


def test_strays_are_what_no_grant_explains(store: GrantStore) -> None:
    made, gone = grant(), grant()
    for each in (made, gone):
        store.create(each)
        store.write_device(each.id, CdiDevice(edits={"env": []}))
    (store.tree.grants / "something-else").mkdir()
    assert store.cdi_dir is not None
    (store.cdi_dir / "nvidia.yaml").write_text("")
    assert list(store.strays({made.id: made})) == [gone.id]
    store.remove(gone.id)
    assert list(store.strays({made.id: made})) == []
