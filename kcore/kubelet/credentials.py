"""With which user an image is pulled: what the pod's imagePullSecrets say of its registry. Pure.

A secret speaks of registries by host and port, perhaps with the beginning of a path. The image's
own host and port must be just these: no part of a name, no other port, nothing before an `@`.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kcore_api.runtime.v1 import api_pb2 as pb

DOCKER_HUB = "docker.io"
# What Docker has always called its own registry.
_HUB_NAMES = ("index.docker.io", "registry-1.docker.io", DOCKER_HUB)


def find(image: str, secrets: Iterable[Mapping[str, bytes]]) -> pb.AuthConfig | None:
    """The first credentials for the longest path that the image is in; None: nobody's."""
    host, path = _place(image)
    best: tuple[int, pb.AuthConfig] | None = None
    for registry, said in _entries(secrets):
        their_host, their_path = _registry(registry)
        within = not their_path or path == their_path or path.startswith(f"{their_path}/")
        if their_host == host and within and (best is None or len(their_path) > best[0]):
            best = len(their_path), _credentials(said, host)
    return best[1] if best is not None else None


def _place(image: str) -> tuple[str, str]:
    """Host with port, and path, of an image."""
    name = image.partition("@")[0] if "/" not in image.partition("@")[2] else image
    first, slash, rest = name.partition("/")
    if not slash or not (set(first) & {".", ":"} or first == "localhost"):
        first, rest = DOCKER_HUB, name
    path, _, last = rest.rpartition("/")
    last = last.partition(":")[0]
    return first, f"{path}/{last}" if path else last


def _registry(key: str) -> tuple[str, str]:
    """Host with port, and path, that an entry is about."""
    plain = key.removeprefix("https://").removeprefix("http://").strip("/")
    host, _, path = plain.partition("/")
    if host in _HUB_NAMES:
        return DOCKER_HUB, "" if path in ("v1", "v2") else path
    return host, "" if path in ("v1", "v2") else path


def _entries(secrets: Iterable[Mapping[str, bytes]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for data in secrets:
        for key in (".dockerconfigjson", ".dockercfg"):
            try:
                said = json.loads(data.get(key, b"{}"))
            except (ValueError, RecursionError):
                # Somebody's file that is none: as if it said nothing.
                continue
            table = said.get("auths") if isinstance(said, dict) and key[7:] != "cfg" else said
            if isinstance(table, dict):
                for registry in sorted(table):
                    if isinstance(table[registry], dict):
                        yield registry, table[registry]


def _credentials(said: Mapping[str, Any], host: str) -> pb.AuthConfig:
    made = pb.AuthConfig(
        username=str(said.get("username", "")),
        password=str(said.get("password", "")),
        identity_token=str(said.get("identitytoken", "")),
        registry_token=str(said.get("registrytoken", "")),
        server_address=host,
    )
    if not made.username and isinstance(said.get("auth"), str):
        try:
            both = base64.b64decode(said["auth"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return made
        made.username, _, made.password = both.partition(":")
    return made
