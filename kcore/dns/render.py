"""Zone files and the Corefile, as text: by jinja2, from records that have been looked at. Pure."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jinja2

from kcore.dns.records import Record

SPECIFICATION: Final = "1.1.0"
# Seconds that an answer may be kept elsewhere.
TTL_SECONDS: Final = 5
RELOAD: Final = "200ms"

# Records of one thing, under its name.
Group = tuple[str, Sequence[Record]]


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone: `groups` in the order of the file. `domain` is the cluster's."""

    name: str
    groups: tuple[Group, ...]
    domain: str
    # Where the server itself is.
    address: str

    def text(self, serial: int) -> str:
        """The file."""
        said: str = _template("zone.j2").render(
            zone=self.name,
            domain=self.domain,
            server=f"ns.dns.{self.domain}",
            address=self.address,
            version=SPECIFICATION,
            ttl=TTL_SECONDS,
            serial=serial,
            groups=self.groups,
            relative=_relative_to(self.name),
        )
        return said


def corefile(zones: Iterable[str], directory: str, upstream: Sequence[str]) -> str:
    """CoreDNS's configuration: our zones from files, everything else from upstream."""
    said: str = _template("Corefile.j2").render(
        zones=list(zones), directory=directory, upstream=upstream, reload=RELOAD
    )
    return said


def _relative_to(zone: str) -> Callable[[str], str]:
    ending = f".{zone}"

    def relative(name: str) -> str:
        return "@" if name == zone else name.removesuffix(ending)

    return relative


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("kcore.dns"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )


@functools.cache
def _template(name: str) -> Any:
    return _environment().get_template(name)
