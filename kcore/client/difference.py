"""What changed between two plain values, as a JSON patch (RFC 6902).

What is replaced or removed is tested first, so that the patch does nothing where somebody else has
changed the same since. Lists are taken as wholes: an index is no name. Pure; knows no message.
"""

from collections.abc import Mapping
from typing import Any

from kcore.client.problem import Path

Operation = dict[str, Any]


def operations(before: Any, after: Any, at: Path = ()) -> list[Operation]:
    """The patch that makes `before` into `after`."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        found: list[Operation] = []
        for key in before:
            if key not in after:
                found += [_test((*at, key), before[key]), _at("remove", (*at, key))]
        for key, value in after.items():
            if key in before:
                found += operations(before[key], value, (*at, key))
            else:
                found.append({**_at("add", (*at, key)), "value": value})
        return found
    if before == after and type(before) is type(after):
        return []
    return [_test(at, before), {**_at("replace", at), "value": after}]


def path(pointer: str) -> Path:
    """The path that a JSON pointer names."""
    return tuple(p.replace("~1", "/").replace("~0", "~") for p in pointer.split("/")[1:])


def _test(at: Path, value: Any) -> Operation:
    return {**_at("test", at), "value": value}


def _at(what: str, at: Path) -> Operation:
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in at)
    return {"op": what, "path": "".join(f"/{part}" for part in parts)}
