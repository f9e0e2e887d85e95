"""Zones: all of a cluster's, as its services say; kept up to date one service at a time. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from kcore.dns import records
from kcore.dns.records import Network, Record
from kcore.dns.render import Group, Zone

Name = tuple[str, str]


class Zones:
    """Records by zone and service; `update` says which zones have changed."""

    def __init__(self, domain: str, address: str) -> None:
        """`address`: where the server itself is."""
        self._domain = domain
        self._address = address
        self._reverse: Sequence[str] = ()
        self._services: dict[Name, Sequence[Record]] = {}
        # By zone and service.
        self._groups: dict[str, dict[Name, Sequence[Record]]] = {domain: {}}

    @property
    def names(self) -> Sequence[str]:
        """All zones."""
        return (self._domain, *self._reverse)

    def serve(self, networks: Iterable[Network]) -> Sequence[str]:
        """Gives these networks reverse zones; the zones that have changed."""
        wanted = records.reverse_zones(networks)
        if wanted == self._reverse:
            return ()
        self._reverse = wanted
        self._groups = {zone: {} for zone in self.names}
        for name, found in self._services.items():
            self._place(name, found)
        return self.names

    def update(self, changed: Mapping[Name, Sequence[Record]]) -> Sequence[str]:
        """Takes on what services have now; the zones that have changed."""
        touched: dict[str, None] = {}
        for name, found in changed.items():
            before = self._services.pop(name, ())
            if found:
                self._services[name] = found
            if found == before:
                continue
            for zone in self.names:
                if self._groups[zone].pop(name, None) is not None:
                    touched[zone] = None
            touched |= dict.fromkeys(self._place(name, found))
        return tuple(touched)

    def zone(self, name: str) -> Zone:
        """One zone, as it is to be written."""
        groups: list[Group] = [
            (f"service {namespace}/{service}", self._groups[name][namespace, service])
            for namespace, service in sorted(self._groups[name])
        ]
        return Zone(name, tuple(groups), self._domain, self._address)

    def _place(self, name: Name, found: Sequence[Record]) -> Iterator[str]:
        placed = [
            (zone, group) for zone, group in records.by_zone(found, self.names).items() if group
        ]
        for zone, group in placed:
            self._groups[zone][name] = group
        return iter([zone for zone, _ in placed])
