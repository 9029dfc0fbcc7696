"""The host-pid broker: real clients on its socket, also from a pid namespace of their own."""

import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from hami.agent import hostpid
from hami.agent.hostpid import Broker, BrokerError
from tests.fakes.loop import guarded_loop

pytestmark = pytest.mark.anyio

REQUEST = b"HPID\x00\x01\x00\x01"
CLIENT = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as s:
    s.connect(sys.argv[1])
    s.sendall(b"HPID" + bytes([0, 1, 0, 1]))
    print(os.getpid(), s.recv(64).hex(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    made = Broker(tmp_path / "hostpid")
    async with guarded_loop(), made.serving():
        yield made


async def ask(broker: Broker, request: bytes = REQUEST) -> bytes:
    """The whole answer to one request, until the broker closes."""
    async with await anyio.connect_unix(broker.path) as stream:
        await stream.send(request)
        answer = b""
        with anyio.fail_after(5):
            while True:
                try:
                    answer += await stream.receive()
                except anyio.EndOfStream:
                    return answer


def pid_in(answer: bytes) -> int:
    magic, version, status, pid = struct.unpack("!4sHHI", answer)
    assert (magic, version, status) == (b"HPID", 1, 0)
    return int(pid)


async def test_a_program_is_told_its_own_pid(broker: Broker) -> None:
    assert pid_in(await ask(broker)) == os.getpid()


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare to make a pid namespace"
)
async def test_a_program_in_a_pid_namespace_of_its_own_is_told_the_nodes_pid(broker: Broker) -> None:
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", CLIENT, str(broker.path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(inside, stdin=pipe, stdout=pipe, text=True) as process:  # noqa: ASYNC220 - started once
        assert process.stdout is not None
        assert process.stdin is not None
        own, answer = (await anyio.to_thread.run_sync(process.stdout.readline)).split()
        assert own == "1"
        told = pid_in(bytes.fromhex(answer))
        status = Path(f"/proc/{told}/status").read_text()  # noqa: ASYNC240 - a test may wait for its disk
        assert f"\nPPid:\t{process.pid}\n" in status
        assert f"\nNSpid:\t{told}\t1\n" in status
        process.stdin.close()


@pytest.mark.parametrize(
    "request_",
    [b"HPIX\x00\x01\x00\x01", b"HPID\x00\x02\x00\x01", b"HPID\x00\x01\x00\x02", b"HPID\x01\x00\x01\x00", bytes(8)],
)
async def test_what_is_no_request_is_told_so_and_nothing_else(broker: Broker, request_: bytes) -> None:
    assert await ask(broker, request_) == struct.pack("!4sHHI", b"HPID", 1, 1, 0)


async def test_a_request_in_pieces_and_one_that_never_ends(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostpid, "DEADLINE_S", 0.2)
    async with await anyio.connect_unix(broker.path) as stream:
        for byte in REQUEST:
            await stream.send(bytes([byte]))
        assert pid_in(await stream.receive()) == os.getpid()
    assert await ask(broker, REQUEST[:5]) == b"", "closed at its deadline"


async def test_work_is_bounded(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent clients hold their places until the deadline; who comes meanwhile is closed unanswered."""
    monkeypatch.setattr(hostpid, "MOST", 3)
    monkeypatch.setattr(hostpid, "DEADLINE_S", 0.3)
    silent = [await anyio.connect_unix(broker.path) for _ in range(3)]
    await anyio.sleep(0.05)
    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
        async with await anyio.connect_unix(broker.path) as late:
            await late.receive()
    await anyio.sleep(0.4)
    assert pid_in(await ask(broker)) == os.getpid()
    for stream in silent:
        await stream.aclose()


async def test_four_hundred_at_once(broker: Broker) -> None:
    answers: list[bytes] = []

    async def one() -> None:
        answers.append(await ask(broker))

    async with anyio.create_task_group() as tasks:
        for _ in range(400):
            tasks.start_soon(one)
    told = [pid_in(answer) for answer in answers if answer]
    assert set(told) == {os.getpid()}
    assert len(told) >= hostpid.MOST


async def test_who_may_do_what_with_the_directory(broker: Broker) -> None:
    """Programs believe a socket that root made in a directory that nobody else can write."""
    assert stat.S_IMODE(broker.directory.stat().st_mode) == 0o711
    assert stat.S_IMODE(broker.path.stat().st_mode) == 0o666
    assert stat.S_IMODE((broker.directory / hostpid.LOCK).stat().st_mode) == 0o600


async def test_two_agents_do_not_take_each_others_socket(broker: Broker) -> None:
    with pytest.raises(BrokerError, match="another process"):
        async with Broker(broker.directory).serving():
            pass
    assert pid_in(await ask(broker)) == os.getpid()


async def test_a_killed_agents_socket_is_replaced_and_other_things_are_not(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "broker.sock"))
    left.close()
    async with Broker(tmp_path).serving():
        assert pid_in(await ask(Broker(tmp_path))) == os.getpid()
    assert not (tmp_path / "broker.sock").exists()
    (tmp_path / "broker.sock").write_text("mine")
    with pytest.raises(BrokerError, match="not a socket"):
        async with Broker(tmp_path).serving():
            pass


async def test_a_directory_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(BrokerError):
        async with Broker(tmp_path / "link").serving():
            pass
