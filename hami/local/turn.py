"""One program's way to its grant: an attempt, or a place in the queue until it is its turn and there is room."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache

from hami.local.directory import WAITING, Listing, leave_queue, listing, remember
from hami.local.entries import Entry
from hami.local.grants import prepare
from hami.local.holders import Held
from hami.local.lock import locked
from hami.local.machine import Machine
from hami.local.processes import wait_for_end
from hami.local.queue import CHECK_S, ahead_of, leaving_on_signals
from hami.model.claim import NodeRefusal


class Turn:
    """The program `me` on this machine. What is wrong with files of others is said once."""

    def __init__(self, me: Entry, machine: Machine) -> None:
        self._me = me
        self._machine = machine
        self._can_be_met = cache(machine.could_ever_run)
        self._told: set[str] = set()

    def take(self, *, queue: bool = False) -> Mapping[str, str] | Held:
        """One attempt: the environment of the granted program, or why not now. `queue`: wait in line in that case."""
        directory = self._machine.directory
        with locked(directory):
            found = self._look()
            before = self._ahead(found)
            verdict = None if before else self._machine.place(self._me.ask, found.running, self._me.name)
            if verdict is None or isinstance(verdict, NodeRefusal):
                if queue:
                    remember(directory, self._me, WAITING)
                return Held(refusal=verdict, before=before, running=found.running)
            granted = replace(self._me, shares=verdict.segments[self._machine.inventory.vendor][0])
            environment = prepare(granted, self._machine)
            remember(directory, granted)
            leave_queue(directory, granted)
            return environment

    def wait(self) -> Mapping[str, str]:
        """Queue until it is its turn and it fits. Raises KeyboardInterrupt or `queue.Left` when told to end."""
        said = ""
        with leaving_on_signals():
            try:
                outcome = self.take(queue=True)
                while isinstance(outcome, Held):
                    if said != outcome.reason:
                        said = outcome.reason
                        say(f"waiting: {said}")
                    wait_for_end([entry.pid for entry in (*outcome.running, *outcome.before)], CHECK_S)
                    outcome = self._look_again()
            finally:
                leave_queue(self._machine.directory, self._me)
        return outcome

    def _look_again(self) -> Mapping[str, str] | Held:
        """Only the first in line needs the lock: a queue of many must not keep those that come from asking."""
        found = self._look()
        if before := self._ahead(found):
            return Held(refusal=None, before=before, running=found.running)
        return self.take()

    def _look(self) -> Listing:
        found = listing(self._machine.directory)
        for problem in map(str, found.problems):
            if problem not in self._told:
                self._told.add(problem)
                say(f"ignored: {problem}")
        return found

    def _ahead(self, found: Listing) -> tuple[Entry, ...]:
        return ahead_of(self._me, found.waiting, lambda entry: self._can_be_met(entry.ask))


def say(text: str, details: Sequence[str] = ()) -> None:
    """A line for the user, and indented ones below it."""
    with suppress(BrokenPipeError):
        print(f"hami run: {text}", *(f"  {line}" for line in details), sep="\n", file=sys.stderr, flush=True)
