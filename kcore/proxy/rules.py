"""Rules: all services of a cluster as this node serves them, beside what the kernel has.

    rules = Rules(services="10.96.0.0/12")
    changes = rules.update({name: served, …})     # small: of what has changed only
    changes = rules.repair(table)                 # all of it, against what was read of the kernel
    rules.table.carry_out(changes)                # once it is done

What the kernel remembers of clients may lead nowhere after that: `moved`, `strays`.

Where two services claim one frontend (an external address) the first by name has it. It knows no
objects and no kernel; a value with a memory, nothing else.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kcore.proxy import ruleset
from kcore.proxy.frontend import NOTHING, Backend, Behind, Frontend, Served
from kcore.proxy.ruleset import Changes, Key, Table

# Namespace and name of a service.
Name = tuple[str, str]


@dataclass(slots=True)
class Rules:
    """What is wanted, by service and by frontend; and what there is."""

    services: str
    table: Table = field(default_factory=Table)
    _served: dict[Name, Served] = field(default_factory=dict)
    _claims: dict[Frontend, dict[Name, Behind]] = field(default_factory=dict)
    # Services for whose sake an address is one of the node's endpoints.
    _hairpins: dict[str, set[Name]] = field(default_factory=dict)

    def update(self, changed: Mapping[Name, Served]) -> Changes:
        """Takes on what is wanted of some services; the difference that it makes."""
        fronts: set[Frontend] = set()
        addresses: set[str] = set()
        for name, new in changed.items():
            old = self._served.get(name, NOTHING)
            fronts |= {one for one in old.frontends if old.frontends[one] != new.frontends.get(one)}
            fronts |= {one for one in new.frontends if one not in old.frontends}
            addresses |= old.hairpin ^ new.hairpin
            self._take(name, old, new)
        wanted: dict[Key, str] = {}
        gone: list[Key] = []
        for front in sorted(fronts):
            gone += ruleset.keys_of(self.table, front)
            wanted |= self._elements(self.table, front)
        for address in sorted(addresses):
            gone.append(ruleset.hairpin(address))
            if address in self._hairpins:
                wanted[ruleset.hairpin(address)] = ruleset.MEMBER
        return ruleset.difference(self.table, wanted, gone)

    def repair(self, table: Table) -> Changes:
        """What the kernel's table lacks or has too much, slots left where they are."""
        self.table = table
        wanted: dict[Key, str] = {}
        for front in sorted(self._claims):
            wanted |= self._elements(table, front)
        for address in sorted(self._hairpins):
            wanted[ruleset.hairpin(address)] = ruleset.MEMBER
        return ruleset.repair(table, self.services, wanted)

    def moved(self, changes: Changes) -> dict[Frontend, frozenset[Backend]]:
        """The frontends that lose an endpoint by these changes, or that had none; with all."""
        found = {}
        for name, key in changes.removed:
            front = ruleset.front_of(name, key)
            if front is not None:
                claims = self._claims.get(front)
                found[front] = claims[min(claims)].backends if claims else frozenset()
        return found

    def strays(self, clients: Iterable[tuple[Key, Frontend, Backend]]) -> list[Key]:
        """Of the clients that the kernel remembers, those whose endpoint is no more theirs."""
        found = []
        for key, front, backend in clients:
            claims = self._claims.get(front)
            behind = claims[min(claims)] if claims else None
            if behind is None or not behind.affinity_seconds or backend not in behind.backends:
                found.append(key)
        return found

    def clashes(self) -> Iterable[tuple[Frontend, list[Name]]]:
        """Frontends that several services claim, with these; the first has it."""
        for front, claims in sorted(self._claims.items()):
            if len(claims) > 1:
                yield front, sorted(claims)

    def _take(self, name: Name, old: Served, new: Served) -> None:
        for front in old.frontends:
            claims = self._claims[front]
            del claims[name]
            if not claims:
                del self._claims[front]
        for front, behind in new.frontends.items():
            self._claims.setdefault(front, {})[name] = behind
        for address in old.hairpin:
            held = self._hairpins[address]
            held.discard(name)
            if not held:
                del self._hairpins[address]
        for address in new.hairpin:
            self._hairpins.setdefault(address, set()).add(name)
        if new.frontends or new.hairpin:
            self._served[name] = new
        else:
            self._served.pop(name, None)

    def _elements(self, table: Table, front: Frontend) -> dict[Key, str]:
        claims = self._claims.get(front)
        if not claims:
            return {}
        behind = claims[min(claims)]
        slots = ruleset.place(ruleset.slots_of(table, front), behind.backends)
        return ruleset.elements(front, slots, behind)
