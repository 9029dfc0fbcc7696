"""Random histories of several clients, some of them killed, against the obvious model of who holds what."""

import mmap
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hami.node.simulated import state_view
from tests.interpose.cuda_client import MIB, OUT_OF_MEMORY, Client
from tests.interpose.simulation import Simulation

TOTAL, CONTEXT, CHUNK = 4096 * MIB, 100 * MIB, 32 * MIB


@dataclass
class Holder:
    """One client as the model sees it."""

    client: Client
    blocks: dict[int, int] = field(default_factory=dict)
    """Address to bytes charged."""
    pooled: dict[int, int] = field(default_factory=dict)
    """Address to bytes used of the pool."""
    reserved: int = 0
    """Bytes of the pool's chunks."""

    @property
    def bytes(self) -> int:
        return CONTEXT + sum(self.blocks.values()) + self.reserved


def chunks(size: int) -> int:
    return -(-size // CHUNK) * CHUNK


def rounded(size: int) -> int:
    return -(-size // 512) * 512


class World:
    """The clients, and the state file they share."""

    def __init__(self, machine: Simulation, rng: random.Random) -> None:
        self.machine, self.rng = machine, rng
        self.holders: list[Holder] = []
        with machine.state.open("r+b") as file:
            self.state = state_view(mmap.mmap(file.fileno(), 0))

    @property
    def room(self) -> int:
        return TOTAL - sum(holder.bytes for holder in self.holders)

    def join(self) -> None:
        client = self.machine.client()
        fits = self.room >= CONTEXT
        assert client.use() == (0 if fits else OUT_OF_MEMORY)
        if fits:
            self.holders.append(Holder(client))
        else:
            client.__exit__(None, None, None)

    def leave(self) -> None:
        holder = self.holders.pop(self.rng.randrange(len(self.holders)))
        holder.client.__exit__(None, None, None)

    def take(self, holder: Holder) -> None:
        size = self.rng.choice((1, 5000, 3 * MIB, 700 * MIB, self.rng.randrange(1, 64 * MIB)))
        fits = self.room >= rounded(size)
        rc, address = holder.client.alloc(size)
        assert rc == (0 if fits else OUT_OF_MEMORY)
        if fits:
            holder.blocks[address] = rounded(size)

    def take_pooled(self, holder: Holder) -> None:
        size = self.rng.randrange(1, 50 * MIB)
        wanted = max(holder.reserved, chunks(sum(holder.pooled.values()) + rounded(size)))
        fits = wanted - holder.reserved <= self.room
        rc, address = holder.client.alloc_async(size)
        assert rc == (0 if fits else OUT_OF_MEMORY)
        if fits:
            holder.pooled[address] = rounded(size)
            holder.reserved = wanted

    def give(self, holder: Holder) -> None:
        held = holder.pooled if self.rng.random() < 0.5 and holder.pooled else holder.blocks
        if held:
            address = self.rng.choice(sorted(held))
            assert holder.client.free(address) == 0
            del held[address]

    def settle(self, holder: Holder) -> None:
        assert holder.client.sync() == 0
        holder.reserved = chunks(sum(holder.pooled.values()))

    def step(self) -> None:
        if not self.holders or (len(self.holders) < 4 and self.rng.random() < 0.2):
            self.join()
        elif self.rng.random() < 0.08:
            self.leave()
        else:
            holder = self.rng.choice(self.holders)
            self.rng.choice((self.take, self.take, self.take_pooled, self.give, self.give, self.settle))(holder)

    def check(self) -> None:
        """What the driver tells, what the rows say and what the sum says: all as the model has it."""
        expected = sum(holder.bytes for holder in self.holders)
        if self.holders:
            rc, free, total = self.rng.choice(self.holders).client.info()
            assert (rc, total - free) == (0, expected)
            assert self.state.used[0] == expected, "asking dropped the dead"
            rows = [process for process in self.state.processes[: self.state.process_high] if process.live]
            assert sorted(sum(row.memory[:6]) for row in rows) == sorted(holder.bytes for holder in self.holders)


@pytest.mark.parametrize("seed", range(4))
def test_the_ledger_agrees_with_the_model_after_every_step(tmp_path: Path, seed: int) -> None:
    world = World(Simulation(tmp_path), random.Random(seed))
    try:
        for step in range(150):
            world.step()
            try:
                world.check()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, step {step}") from error
    finally:
        while world.holders:
            world.leave()
