"""Names for children, derived instead of drawn.

A name that is a hash of what led to it is the same when the same decision is taken twice, so a
repeated creation meets itself. Letters are those of Kubernetes' generated names.
"""

import hashlib

from kcore import chance

# What Kubernetes leaves of the prefix, so that five more letters fit into a DNS label.
_PREFIX_LENGTH = 58


def letters(*parts: bytes | str | int, length: int = 5) -> str:
    """`length` letters of the safe alphabet, decided by the parts alone."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        # Lengths keep ("ab", "c") and ("a", "bc") apart.
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    number = int.from_bytes(digest.digest(), "big")
    found = []
    for _ in range(length):
        number, index = divmod(number, len(chance.SAFE_ALPHABET))
        found.append(chance.SAFE_ALPHABET[index])
    return "".join(found)


def child(prefix: str, owner_uid: str, revision: int, ordinal: int) -> str:
    """The name of the `ordinal`th child that is decided on at `revision`; like generateName's."""
    return prefix[:_PREFIX_LENGTH] + letters(owner_uid, revision, ordinal)
