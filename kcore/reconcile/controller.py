"""What a controller is, and what it answers.

A controller declares what it `reads` (for each kind, a function from a change to the keys that it
concerns), what it `writes`, and `reconcile(view, key, now) -> Result`: pure, synchronous, total. It
is asked again whenever something that it reads has changed, so it looks at how things are, never at
what happened. Values only; `loop` gives them life.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.reconcile import owner
from kcore.reconcile.view import Index, Trait, View

# What a reconcile is about, mostly (namespace, name). Keys of one controller can be sorted.
Key = tuple[str, ...]

# From a change, seen from the view that it led to, to the keys that it concerns. Pure.
Keys = Callable[[View, Any, Any], Iterable[Key]]

# In `reads`: every kind; the view then holds the metadata of those that nobody reads by class.
EVERY_KIND = "*"


@dataclass(frozen=True, slots=True)
class Said:
    """An event for people: something happened to `regarding`.

    With `of` it is said only if that transaction of the same Result was accepted; with `failed`,
    only if it was refused, and the error follows the message.
    """

    regarding: Message
    reason: str
    message: str
    type: str = "Normal"
    of: pb.Transaction | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What a reconcile wants: transactions, a time to look again (seconds since 1970), events."""

    transactions: tuple[pb.Transaction, ...] = ()
    again_at: float | None = None
    events: tuple[Said, ...] = ()


NOTHING = Result()


@dataclass(frozen=True, slots=True)
class Controller:
    """A behaviour. `name` is the manager of the fields that it writes."""

    name: str
    # By class of the kind, or EVERY_KIND.
    reads: Mapping[type[Message] | str, Keys]
    # Full names of kinds, "kind/subresource" for those, or EVERY_KIND. Anything else is refused.
    writes: tuple[str, ...]
    reconcile: Callable[[View, Key, float], Result]
    indexes: Mapping[type[Message], Mapping[str, Index]] = field(default_factory=dict)
    # What `View.held_seconds` is asked about.
    traits: Mapping[type[Message], Mapping[str, Trait]] = field(default_factory=dict)

    def may_write(self, operation: pb.Operation) -> bool:
        """Whether the operation is among what it declared."""
        kind = operation.ref.kind
        target = f"{kind}/{operation.subresource}" if operation.subresource else kind
        return target in self.writes or EVERY_KIND in self.writes


def itself(_view: View, old: Any, new: Any) -> Iterable[Key]:
    """Keys: the object that changed."""
    meta = (new or old).metadata
    yield (meta.namespace, meta.name)


def its_manager(kind: type[Message]) -> Keys:
    """Keys: the object of `kind` that manages the one that changed, now or until now."""
    name = kind.DESCRIPTOR.name
    api_version = owner.api_version(kind.DESCRIPTOR)

    def keys(_view: View, old: Any, new: Any) -> Iterable[Key]:
        for obj in (old, new):
            found = None if obj is None else owner.manager(obj.metadata)
            if found is not None and found.kind == name and found.api_version == api_version:
                yield (obj.metadata.namespace, found.name)

    return keys
