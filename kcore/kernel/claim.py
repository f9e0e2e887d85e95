"""Claims: values of which each may be held by one object only, given or drawn from a pool.

A `Pool` object says what values there are: addresses of a network, blocks of one, or numbers. What
is held follows from the objects that hold it, and is released with them. A value is drawn next
after the one that was claimed last, so that none comes back sooner than it must.

Pools are the kernel's own mechanism, so this file, and no other, knows the kind that they are.
"""

import functools
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

from kcore.kernel import path
from kcore.kernel.constraint import Found
from kcore.kernel.record import Key
from kcore.kernel.schema import Claim, Kind
from kcore.kernel.view import View
from kcore.wire.errors import ApiError, Reason

POOL: Final = "kcore.core.v1.Pool"


@dataclass(frozen=True, slots=True)
class Values:
    """What a pool holds: `count` values, each at an index."""

    count: int
    # Of numbers: the first. Of addresses and blocks: the first one's address as a number.
    first: int
    # 0: numbers; else the IP version.
    version: int = 0
    # Prefix length of a block; 0: single addresses.
    block: int = 0
    # Values that are never drawn.
    reserved: frozenset[str] = frozenset()

    def at(self, index: int) -> str:
        """The value at an index."""
        if not self.version:
            return str(self.first + index)
        bits = 32 if self.version == 4 else 128
        step = 1 << (bits - self.block) if self.block else 1
        address = self.first + index * step
        made = ipaddress.IPv4Address(address) if bits == 32 else ipaddress.IPv6Address(address)
        return f"{made}/{self.block}" if self.block else str(made)

    def index(self, value: str) -> int | None:
        """The index of a value; None where it is not one of these."""
        try:
            if not self.version:
                found, step = int(value), 1
            elif self.block:
                network = ipaddress.ip_network(value)
                if network.version != self.version or network.prefixlen != self.block:
                    return None
                found, step = int(network.network_address), network.num_addresses
            else:
                address = ipaddress.ip_address(value)
                if address.version != self.version:
                    return None
                found, step = int(address), 1
        except ValueError:
            return None
        index, rest = divmod(found - self.first, step)
        return index if not rest and 0 <= index < self.count else None


def claimed(kind: Kind, message: Any) -> tuple[tuple[str, str], ...]:
    """The (pool, value) pairs that an object claims, in order, each once."""
    found: dict[tuple[str, str], None] = {}
    for one in kind.claims:
        if not _applies(kind, one, message):
            continue
        for _, value in _held_values(message, one.at):
            found[one.pool, value] = None
    return tuple(found)


def settle(view: View, kind: Kind, key: Key, message: Any, old: Any, found: Found) -> None:
    """Draws the values that an object lacks, and checks those that it was given.

    What `old` holds and the new object doesn't name, it keeps.
    """
    taken: set[tuple[str, str]] = set()
    for one in kind.claims:
        if not _applies(kind, one, message):
            continue
        given = dict(_held_values(message, one.at))
        for where, value in given.items():
            holder = view.holder(one.pool, value)
            if holder is not None and holder != key:
                found.append((where, f'Invalid value: "{value}": is already held by {holder}'))
            elif holder is None and _values(view, one.pool).index(value) is None:
                said = f'Invalid value: "{value}": is not in the pool "{one.pool}"'
                found.append((where, said))
            taken.add((one.pool, value))
        held = dict(_held_values(old, one.at)) if old is not None else {}
        for where, holds in path.holders(message, one.at, absent=True):
            if where in given:
                continue
            value = held.get(where, "")
            if not value or (one.pool, value) in taken:
                if one.given_only:
                    continue
                value = _draw(_values(view, one.pool), view, one.pool, taken)
            taken.add((one.pool, value))
            _set(one.at.last, holds, value)
        if one.also is not None:
            _fill(message, one.at, one.also)


def _applies(kind: Kind, one: Claim, message: Any) -> bool:
    if one.when is None:
        return True
    return one.when.holds(one.when.bind(message)) is True


def _held_values(message: Any, at: path.Path) -> Iterator[tuple[str, str]]:
    for where, holder in path.holders(message, at):
        value = _text(at.last, holder)
        if value:
            yield where, value


def _text(field: FieldDescriptor, holder: Any) -> str:
    value = getattr(holder, field.name)
    if isinstance(value, str) and ":" in value:
        # One IPv6 address has many spellings.
        try:
            return str(ipaddress.ip_network(value) if "/" in value else ipaddress.ip_address(value))
        except ValueError:
            return value
    return str(value) if value else ""


def _set(field: FieldDescriptor, holder: Any, value: str) -> None:
    is_text = field.cpp_type == FieldDescriptor.CPPTYPE_STRING
    setattr(holder, field.name, value if is_text else int(value))


def _fill(message: Any, at: path.Path, also: path.Path) -> None:
    """Puts the value into the list beside it, where that is empty."""
    held = [value for _, value in _held_values(message, at)]
    for _, holder in path.holders(message, also, absent=bool(held)):
        into = getattr(holder, also.last.name)
        if not into:
            into.extend(held)


def _draw(values: Values, view: View, pool: str, taken: set[tuple[str, str]]) -> str:
    last = view.last_drawn(pool)
    start = values.index(last) if last else None
    start = 0 if start is None else start + 1
    # Nobody holds more than there is: among so many in a row one must be free, or none is.
    for step in range(min(values.count, view.held(pool) + len(taken) + len(values.reserved) + 1)):
        value = values.at((start + step) % values.count)
        if (
            value not in values.reserved
            and (pool, value) not in taken
            and view.holder(pool, value) is None
        ):
            return value
    raise ApiError(Reason.EXHAUSTED, f'pool "{pool}" is exhausted: all its values are held')


def _values(view: View, pool: str) -> Values:
    stored = view.get(Key(POOL, "", pool))
    if stored is None:
        said = f'there is no pool "{pool}" to claim a value from: create it first'
        raise ApiError(Reason.REFUSED, said)
    return _read(view.schema.kind(POOL), stored.body)


@functools.lru_cache(maxsize=64)
def _read(kind: Kind, body: bytes) -> Values:
    spec = kind.parse(body).spec
    reserved = frozenset(spec.reserved)
    if not spec.cidr:
        return Values(max(spec.last - spec.first + 1, 0), spec.first, reserved=reserved)
    network = ipaddress.ip_network(spec.cidr, strict=False)
    base = int(network.network_address)
    bits = network.max_prefixlen
    if spec.HasField("block_size"):
        count = 1 << max(spec.block_size - network.prefixlen, 0)
        return Values(count, base, network.version, spec.block_size, reserved)
    # A network's own address is never handed out, nor IPv4's broadcast.
    count = 1 << (bits - network.prefixlen)
    if count > 2:
        base, count = base + 1, count - (2 if network.version == 4 else 1)
    return Values(count, base, network.version, 0, reserved)
