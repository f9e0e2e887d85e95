"""The ruleset: table `kcore` of family ip, as data; what it says, and how little changes it.

All that depends on services is elements of maps and sets; the chains are the same for all. A new
connection is looked up once, however many services there are:

    tcp-services     address . port        -> goto tcp-to-3     it has three endpoints
    tcp-endpoints    address . port . n    -> address . port    n is drawn among them

so that an endpoint more or less is two or three elements, in a table of any size: the last slot
moves into the gap. `tcp-node-…` is the same for ports of the node itself; each protocol has its
own. A client that is to stay with its endpoint is remembered by the packet path, in `…affinity`,
for as long as its service wants; how long travels in the packet's mark, from hook to hook.

    elements(front, slots, behind)      what a frontend puts where
    place(old slots, backends)          which slot an endpoint gets: who stays keeps his
    difference(table, wanted, gone)     what makes the kernel's table so: elements, and chains
    script(changes)                     that as text for nft, one transaction
    parse(listing)                      what the kernel has: nft's JSON as a `Table`

Every rule carries the digest of its text, so that one that somebody has taken away or changed is
seen. Pure. Only numbers and addresses get here, never a name (see `frontend`).
"""

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kcore.proxy.frontend import NODE, Backend, Behind, Frontend

TABLE = "kcore"
# Family and name.
WHERE = f"ip {TABLE}"
# A map or set, and a key in it.
Key = tuple[str, str]
# What a set's element has for a value.
MEMBER = ""

# Bits of a packet's mark between the hooks: hide the client; it was sent to a port of the node; and
# above these the seconds for which the client stays.
_HIDE, _TO_NODE, _SECONDS_SHIFT = 0x4000, 0x2000, 15
_STAYS = 0xFFFF8000 | _TO_NODE

PROTOCOLS = ("tcp", "udp", "sctp")
_VERDICT = "verdict"
# Clients that are remembered at most.
_MOST_CLIENTS = 1 << 18
# nft's names for the types of these.
_TYPES = {
    "ip saddr": "ipv4_addr",
    "ip daddr": "ipv4_addr",
    "numgen random mod 65536": "integer",
    "meta mark": "mark",
    _VERDICT: _VERDICT,
    **{f"{protocol} dport": "inet_service" for protocol in PROTOCOLS},
}


@dataclass(frozen=True, slots=True)
class Collection:
    """A map, or (without values) a set; `clients`: filled by the packet path."""

    keys: str
    values: str = ""
    clients: bool = False

    @property
    def type(self) -> str:
        """As `parse` tells it."""
        return ": ".join(
            " . ".join(_TYPES[one] for one in part.split(" . "))
            for part in (self.keys, self.values)
            if part
        )


def _front(protocol: str, is_node: bool) -> str:
    """What of a packet says which frontend it is for."""
    return f"{protocol} dport" if is_node else f"ip daddr . {protocol} dport"


def _prefix(protocol: str, is_node: bool) -> str:
    """Of the names of what belongs to such frontends."""
    return f"{protocol}-node-" if is_node else f"{protocol}-"


def _collections() -> Iterator[tuple[str, Collection]]:
    yield "hairpin", Collection("ip saddr . ip daddr")
    yield "remember", Collection("meta mark", _VERDICT)
    for protocol in PROTOCOLS:
        # With `th dport` for all of them, nft 1.0.6 refuses rules about maps that it has not made
        # itself.
        backend = f"ip daddr . {protocol} dport"
        for is_node in (False, True):
            front, prefix = _front(protocol, is_node), _prefix(protocol, is_node)
            yield f"{prefix}services", Collection(front, _VERDICT)
            yield (
                f"{prefix}endpoints",
                Collection(f"{front} . numgen random mod 65536", backend),
            )
            yield f"{prefix}hidden", Collection(front)
            yield f"{prefix}affine", Collection(front, _VERDICT)
            yield f"{prefix}unserved", Collection(front)
            yield f"{prefix}affinity", Collection(f"ip saddr . {front}", backend, clients=True)


COLLECTIONS = dict(_collections())
# Those that remember clients.
AFFINITY = tuple(name for name, collection in COLLECTIONS.items() if collection.clients)


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules; with `hook`, where packets enter."""

    rules: tuple[str, ...]
    hook: str = ""


def _dispatch(protocol: str, is_node: bool) -> tuple[str, ...]:
    """How a new connection finds its endpoint."""
    front, prefix = _front(protocol, is_node), _prefix(protocol, is_node)
    return (
        f"{front} @{prefix}hidden meta mark set meta mark | {_HIDE:#x}",
        f"{front} vmap @{prefix}affine",
        f"dnat ip to ip saddr . {front} map @{prefix}affinity",
        f"{front} vmap @{prefix}services",
    )


def chains(services: str) -> dict[str, Chain]:
    """The chains that are always there; `services` is the network of services' addresses."""
    network = ipaddress.IPv4Network(services)
    by_protocol = ", ".join(f"{one} : jump {one}-new" for one in PROTOCOLS)
    stays = f"ct state new ct status dnat meta mark & {_STAYS:#x} vmap @remember"
    unanswered = "ct state new jump unanswered"
    found = {
        "refuse": Chain(
            ("meta l4proto tcp reject with tcp reset", "reject with icmp port-unreachable")
        ),
        "hide": Chain((f"meta mark set meta mark ^ {_HIDE:#x}", "masquerade")),
        "unanswered": Chain(
            (
                *(f"{_front(one, False)} @{one}-unserved goto refuse" for one in PROTOCOLS),
                f"ip daddr {network} goto refuse",
            )
        ),
    }
    for one in PROTOCOLS:
        found[f"{one}-node-new"] = Chain(_dispatch(one, True))
        # Who sends to the node's loopback means what listens there.
        to_node = f"ip daddr != 127.0.0.0/8 fib daddr type local jump {one}-node-new"
        found[f"{one}-new"] = Chain((*_dispatch(one, False), to_node))
    return found | {
        "dispatch": Chain((f"meta l4proto vmap {{ {by_protocol} }}",)),
        "prerouting": Chain(("jump dispatch",), "type nat hook prerouting priority dstnat"),
        "output": Chain(("jump dispatch",), "type nat hook output priority -100"),
        "stay-out": Chain((stays,), "type filter hook postrouting priority mangle"),
        "stay-in": Chain((stays,), "type filter hook input priority mangle"),
        "postrouting": Chain(
            (
                "ct status dnat ip saddr . ip daddr @hairpin masquerade",
                f"ct status dnat meta mark & {_HIDE:#x} == {_HIDE:#x} goto hide",
            ),
            "type nat hook postrouting priority srcnat",
        ),
        "refuse-forward": Chain((unanswered,), "type filter hook forward priority filter"),
        "refuse-output": Chain((unanswered,), "type filter hook output priority filter"),
        "refuse-input": Chain(
            (
                unanswered,
                *(
                    "ct state new ip daddr != 127.0.0.0/8 "
                    f"{_front(one, True)} @{one}-node-unserved goto refuse"
                    for one in PROTOCOLS
                ),
            ),
            "type filter hook input priority filter",
        ),
    }


_MADE = re.compile(r"(?:(tcp|udp|sctp)-)?(node-)?(to|stay|remember)-([1-9][0-9]{0,5})")


def chain(name: str) -> Chain | None:
    """The chain of a verdict: its name says it all. None: it is none of these."""
    found = _MADE.fullmatch(name)
    if found is None:
        return None
    protocol, is_node, what, number = found[1] or "", bool(found[2]), found[3], int(found[4])
    if what == "to" and protocol:
        slot = f"{_front(protocol, is_node)} . numgen random mod {number}"
        return Chain((f"dnat ip to {slot} map @{_prefix(protocol, is_node)}endpoints",))
    if what == "stay" and not protocol:
        kept = 0xFFFFFFFF ^ _STAYS
        return Chain((f"meta mark set meta mark & {kept:#x} | {_mark(is_node, number):#x}",))
    if what == "remember" and not protocol:
        client = "ip saddr" + ("" if is_node else " . ct original ip daddr")
        return Chain(
            tuple(
                f"meta l4proto {one} update @{_prefix(one, is_node)}affinity {{ {client} . "
                f"ct original proto-dst timeout {number}s : ip daddr . {one} dport }}"
                for one in PROTOCOLS
            )
        )
    return None


def _mark(is_node: bool, seconds: int) -> int:
    return seconds << _SECONDS_SHIFT | (_TO_NODE if is_node else 0)


@dataclass(slots=True)
class Table:
    """What the kernel has: digests of rules by chain, types of collections, elements."""

    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    collections: dict[str, str] = field(default_factory=dict)
    elements: dict[Key, str] = field(default_factory=dict)

    def carry_out(self, changes: "Changes") -> None:
        """Follows what the kernel has done."""
        if changes.afresh:
            self.chains, self.collections, self.elements = {}, {}, {}
        for name, made in changes.chains.items():
            self.chains[name] = tuple(digest(rule) for rule in made.rules)
        for name in changes.collections:
            self.collections[name] = COLLECTIONS[name].type
        for key in changes.removed:
            self.elements.pop(key, None)
        self.elements |= changes.added


@dataclass(slots=True)
class Changes:
    """One transaction. `afresh`: the table goes first, and the rest is all there is."""

    afresh: bool = False
    collections: list[str] = field(default_factory=list)
    chains: dict[str, Chain] = field(default_factory=dict)
    removed: dict[Key, None] = field(default_factory=dict)
    added: dict[Key, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.afresh or self.collections or self.chains or self.removed or self.added)


def key_of(front: Frontend) -> tuple[str, str]:
    """The prefix of the collections that a frontend is in, and its key there."""
    is_node = front.address == NODE
    key = str(front.port) if is_node else f"{front.address} . {front.port}"
    return _prefix(front.protocol, is_node), key


def front_of(name: str, key: str) -> Frontend | None:
    """Whose element it is, of those that say where a frontend leads and who stays there."""
    found = re.fullmatch(r"(tcp|udp|sctp)-(node-)?(endpoints|unserved|affine)", name)
    if found is None:
        return None
    words = key.split(" . ")
    address = NODE if found[2] else words.pop(0)
    return Frontend(address, found[1], int(words[0]))


def hairpin(address: str) -> Key:
    """The element by which an endpoint of this node may reach itself."""
    return ("hairpin", f"{address} . {address}")


def place(before: Sequence[Backend], backends: Iterable[Backend]) -> tuple[Backend, ...]:
    """The slots of backends: each that stays keeps its own, the last ones move into gaps."""
    wanted = set(backends)
    slots: list[Backend | None] = []
    for one in before:
        slots.append(one if one in wanted else None)
        wanted.discard(one)
    fresh = sorted(wanted)
    for at, held in enumerate(slots):
        if held is None and fresh:
            slots[at] = fresh.pop(0)
    slots += fresh
    while None in slots:
        last = slots.pop()
        if last is not None:
            slots[slots.index(None)] = last
    return tuple(one for one in slots if one is not None)


def elements(front: Frontend, slots: Sequence[Backend], behind: Behind) -> dict[Key, str]:
    """What a frontend puts where."""
    prefix, key = key_of(front)
    if not slots:
        return {(f"{prefix}unserved", key): MEMBER}
    found = {(f"{prefix}services", key): f"goto {prefix}to-{len(slots)}"}
    for at, one in enumerate(slots):
        found[f"{prefix}endpoints", f"{key} . {at}"] = f"{one.address} . {one.port}"
    if behind.masquerade:
        found[f"{prefix}hidden", key] = MEMBER
    if behind.affinity_seconds:
        is_node, seconds = front.address == NODE, behind.affinity_seconds
        what = "node-" if is_node else ""
        found[f"{prefix}affine", key] = f"jump {what}stay-{seconds}"
        found["remember", f"{_mark(is_node, seconds):#010x}"] = f"goto {what}remember-{seconds}"
    return found


def slots_of(table: Table, front: Frontend) -> tuple[Backend, ...]:
    """The slots that a frontend has in the table."""
    prefix, key = key_of(front)
    found: list[Backend] = []
    while True:
        value = table.elements.get((f"{prefix}endpoints", f"{key} . {len(found)}"))
        if value is None:
            return tuple(found)
        address, _, port = value.partition(" . ")
        found.append(Backend(address, int(port)))


def remembers(table: Table, front: Frontend) -> str:
    """The map that remembers the frontend's clients; "" where it has none that stay."""
    prefix, key = key_of(front)
    return f"{prefix}affinity" if (f"{prefix}affine", key) in table.elements else ""


def keys_of(table: Table, front: Frontend) -> Iterator[Key]:
    """The keys that may be a frontend's; more than it has."""
    prefix, key = key_of(front)
    for name in ("services", "hidden", "affine", "unserved"):
        yield f"{prefix}{name}", key
    for at in range(len(slots_of(table, front))):
        yield f"{prefix}endpoints", f"{key} . {at}"


def difference(table: Table, wanted: Mapping[Key, str], gone: Iterable[Key] = ()) -> Changes:
    """What makes the table have all that is wanted; and of `gone`, only what is wanted."""
    made = Changes()
    for key in gone:
        if key in table.elements and key not in wanted:
            made.removed[key] = None
    for key, value in wanted.items():
        known = table.elements.get(key)
        if known == value:
            continue
        if known is not None:
            made.removed[key] = None
        made.added[key] = value
    for value in made.added.values():
        _, _, name = value.partition(" ")
        target = chain(name)
        if target is not None and name not in table.chains:
            made.chains[name] = target
    return made


def repair(table: Table, services: str, wanted: Mapping[Key, str]) -> Changes:
    """What makes the whole table right, whatever it is: nothing good is touched."""
    fixed = chains(services)
    types = {name: collection.type for name, collection in COLLECTIONS.items()}
    if any(types.get(name, "") != kind for name, kind in table.collections.items()):
        # Another version's: a map that is in use cannot be made anew by itself.
        made = difference(Table(), wanted)
        made.afresh, made.collections = True, list(COLLECTIONS)
        made.chains |= fixed
        return made
    made = difference(table, wanted, list(table.elements))
    made.collections = [name for name in COLLECTIONS if name not in table.collections]
    for name, held in table.chains.items():
        one = fixed.get(name) or chain(name)
        if one is not None and held != tuple(digest(rule) for rule in one.rules):
            made.chains[name] = one
    made.chains |= {name: one for name, one in fixed.items() if name not in table.chains}
    return made


def script(changes: Changes) -> str:
    """The changes as nft reads them."""
    lines = []
    if changes.afresh:
        lines += [f"add table {WHERE}", f"delete table {WHERE}"]
    if changes.afresh or changes.collections:
        lines.append(f"add table {WHERE}")
    for name in changes.collections:
        one = COLLECTIONS[name]
        kind = "map" if one.values else "set"
        values = f" : {one.values}" if one.values else ""
        # As a type by its name it takes no expression.
        typed = f"type mark{values}" if one.keys == "meta mark" else f"typeof {one.keys}{values}"
        more = f" flags dynamic,timeout; size {_MOST_CLIENTS}; timeout 3h;" if one.clients else ""
        lines.append(f"add {kind} {WHERE} {name} {{ {typed};{more} }}")
    for name, made in changes.chains.items():
        hook = f" {{ {made.hook}; policy accept; }}" if made.hook else ""
        lines += [f"add chain {WHERE} {name}{hook}", f"flush chain {WHERE} {name}"]
    for name, made in changes.chains.items():
        for rule in made.rules:
            lines.append(f'add rule {WHERE} {name} {rule} comment "{digest(rule)}"')
    for name, keys in _by_collection(changes.removed).items():
        lines.append(f"delete element {WHERE} {name} {{ {', '.join(keys)} }}")
    for name, keys in _by_collection(changes.added).items():
        pairs = (f"{key} : {value}" if (value := changes.added[name, key]) else key for key in keys)
        lines.append(f"add element {WHERE} {name} {{ {', '.join(pairs)} }}")
    return "\n".join((*lines, ""))


def _by_collection(keys: Iterable[Key]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, key in keys:
        found.setdefault(name, []).append(key)
    return found


def digest(rule: str) -> str:
    """By which a rule is known."""
    return hashlib.sha256(rule.encode()).hexdigest()[:12]


def parse(listing: str) -> Table:
    """A table as `nft --json list table` shows it; an empty one where there is none."""
    table = Table()
    rules: dict[str, list[str]] = {}
    for one in json.loads(listing)["nftables"] if listing else ():
        ((what, said),) = one.items()
        if what == "chain":
            rules[said["name"]] = []
        elif what == "rule":
            rules[said["chain"]].append(said.get("comment", ""))
        elif what in ("map", "set"):
            name = said["name"]
            keys = said["type"]
            kind = keys if isinstance(keys, str) else " . ".join(keys)
            if "map" in said:
                kind += f": {said['map']}"
            table.collections[name] = kind
            if name in COLLECTIONS and COLLECTIONS[name].clients:
                continue
            for element in said.get("elem", ()):
                key, value = element if "map" in said else (element, None)
                words = f"{key:#010x}" if kind.startswith("mark") else _words(key)
                table.elements[name, words] = _words(value)
    table.chains = {name: tuple(found) for name, found in rules.items()}
    return table


def clients(listing: str) -> Iterator[tuple[Key, Frontend, Backend]]:
    """The clients that a map of `AFFINITY` remembers, as `nft --json list map` shows it."""
    for one in json.loads(listing)["nftables"] if listing else ():
        said = one.get("map", {})
        name = said.get("name", "")
        for key, value in said.get("elem", ()):
            # With a timeout it is wrapped.
            words = (key["elem"]["val"] if "elem" in key else key)["concat"]
            address, port = value["concat"]
            protocol, is_node = name.split("-")[0], "-node-" in name
            front = Frontend(NODE if is_node else words[1], protocol, int(words[-1]))
            text = " . ".join(str(word) for word in words)
            yield (name, text), front, Backend(address, int(port))


def _words(value: Any) -> str:
    """A key or a value of an element, as `elements` says it."""
    if value is None:
        return MEMBER
    if isinstance(value, int | str):
        return str(value)
    if "concat" in value:
        return " . ".join(str(part) for part in value["concat"])
    ((verb, target),) = value.items()
    return f"{verb} {target['target']}" if isinstance(target, dict) else verb
