"""kubeconfig: which server, as whom, in which namespace.

The shape is Kubernetes' own. kcore's addresses stand in the cluster's extensions:

    clusters:
    - name: kcore
      cluster:
        server: https://127.0.0.1:6444
        certificate-authority: /etc/kcore/ca.crt
        extensions:
        - name: kcore.dev/endpoint
          extension: {grpc: "127.0.0.1:6443", unix: /run/kcore/kcore.sock}

`load` merges the files of $KUBECONFIG (or ~/.kube/config), the first to say something wins;
`target` tells where to connect to. Where no file speaks of kcore it is the local socket, or within
a pod the service account's mount. Must not know gRPC.
"""

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from kcore.client.problem import meant

EXTENSION: Final = "kcore.dev/endpoint"
SOCKET: Final = "/run/kcore/kcore.sock"
_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"


class Unusable(Exception):
    """The configuration leads to no server; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect to, and as whom."""

    # "host:port", or empty where only the socket is known.
    grpc: str = ""
    # Path of a Unix socket, or empty.
    unix: str = ""
    authority: bytes | None = None
    client_certificate: bytes | None = field(default=None, repr=False)
    client_key: bytes | None = field(default=None, repr=False)
    # Read again from here when they are renewed.
    client_certificate_file: str = ""
    client_key_file: str = ""
    token: str = field(default="", repr=False)
    # Read again from here when it is renewed.
    token_file: str = ""
    # The name that the server's certificate must have, where it differs from the address.
    server_name: str = ""
    namespace: str = "default"
    context: str = ""


@dataclass(slots=True)
class Config:
    """Merged files. Each entry is a named dict, as in the files."""

    files: list[str] = field(default_factory=list)
    current_context: str = ""
    contexts: dict[str, dict[str, Any]] = field(default_factory=dict)
    clusters: dict[str, dict[str, Any]] = field(default_factory=dict)
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Directory of the file that each ("cluster" or "user", name) came from.
    directories: dict[tuple[str, str], str] = field(default_factory=dict)


def paths(environ: Mapping[str, str], explicit: str = "") -> list[str]:
    """The files to read: the one given, those of $KUBECONFIG, or the one in the home directory."""
    if explicit:
        return [explicit]
    listed = [path for path in environ.get("KUBECONFIG", "").split(os.pathsep) if path]
    home = environ.get("HOME") or "/root"
    return listed or [os.path.join(home, ".kube", "config")]


def load(files: list[str], *, required: bool = False) -> Config:
    """What the files say together. `required`: a file that is not there is an error."""
    config = Config()
    for path in files:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except FileNotFoundError:
            if required:
                raise Unusable(f"{path}: no such file") from None
            continue
        except (OSError, UnicodeDecodeError) as wrong:
            raise Unusable(f"{path}: {wrong}") from None
        _merge(config, path, _parsed(text, path))
    return config


def target(
    config: Config,
    environ: Mapping[str, str],
    *,
    context: str = "",
    socket: str = SOCKET,
) -> Target:
    """Where the context (the current one) leads. `Unusable` if nowhere."""
    name = context or config.current_context
    if name and name not in config.contexts:
        raise Unusable(f'there is no context "{name}"{meant(name, config.contexts)}')
    if name:
        found = _target(config, name)
        if found.grpc or found.unix:
            return found
    if not context:
        namespace = _namespace(config.contexts[name]) if name else "default"
        pod = _within_pod(environ)
        if pod is not None:
            return pod
        if os.path.exists(socket):
            return Target(unix=socket, namespace=namespace)
    if name:
        raise Unusable(
            f'the cluster of context "{name}" has no extension {EXTENSION}: it is not a kcore'
            " cluster; name another with --context"
        )
    raise Unusable(
        f"no kubeconfig names a kcore cluster and there is no {socket};"
        " start one with `kcore up`, or set KUBECONFIG"
    )


def use_context(config: Config, name: str) -> str:
    """Makes the context the current one; returns the file that says so now."""
    if name not in config.contexts:
        raise Unusable(f'there is no context "{name}"{meant(name, config.contexts)}')
    for path in config.files:
        plain = _parsed(_text(path), path)
        if plain.get("current-context") or path == config.files[-1]:
            plain["current-context"] = name
            write(path, plain)
            return path
    raise Unusable("there is no kubeconfig to write to")


def set_namespace(config: Config, name: str, namespace: str) -> None:
    """Sets a context's namespace in the file that it stands in."""
    if name not in config.contexts:
        raise Unusable(f'there is no context "{name}"{meant(name, config.contexts)}')
    for path in config.files:
        plain = _parsed(_text(path), path)
        for entry in plain.get("contexts") or []:
            if entry.get("name") == name:
                entry["context"] = {**(entry.get("context") or {}), "namespace": namespace}
                write(path, plain)
                return


def write(path: str, plain: Mapping[str, Any]) -> None:
    """Replaces a kubeconfig file, readable by its owner only."""
    from kcore.client import yaml_writer

    directory = os.path.dirname(os.path.abspath(path))
    os.makedirs(directory, mode=0o700, exist_ok=True)
    draft = f"{path}.new"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(yaml_writer.write(dict(plain)))
    os.replace(draft, path)


def plain(config: Config, *, secrets: bool = False) -> dict[str, Any]:
    """The merged files as one; without `secrets` they are covered."""
    users = config.users
    if not secrets:
        users = {
            name: {
                key: "REDACTED"
                if key in ("token", "password")
                else "DATA+OMITTED"
                if key.endswith("-data")
                else value
                for key, value in user.items()
            }
            for name, user in users.items()
        }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"cluster": v, "name": k} for k, v in config.clusters.items()],
        "contexts": [{"context": v, "name": k} for k, v in config.contexts.items()],
        "current-context": config.current_context,
        "preferences": {},
        "users": [{"name": k, "user": v} for k, v in users.items()],
    }


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _parsed(text: str, path: str) -> dict[str, Any]:
    # Without a file to read there is no need for a parser.
    from kcore.client import document

    documents = document.read(text, path)
    for one in documents:
        for problem, place in one.problems:
            raise Unusable(f"{path}:{place.line}:{place.column}: {problem}")
    made = documents[0].plain if documents else None
    if made is None:
        return {}
    if not isinstance(made, dict):
        raise Unusable(f"{path}: is not a kubeconfig")
    return made


def _merge(config: Config, path: str, plain: dict[str, Any]) -> None:
    config.files.append(path)
    config.current_context = config.current_context or str(plain.get("current-context") or "")
    directory = os.path.dirname(os.path.abspath(path))
    for plural, singular, into in (
        ("contexts", "context", config.contexts),
        ("clusters", "cluster", config.clusters),
        ("users", "user", config.users),
    ):
        entries = plain.get(plural) or []
        if not isinstance(entries, list):
            raise Unusable(f"{path}: {plural} is not a list")
        for entry in entries:
            if not isinstance(entry, dict) or not isinstance(entry.get(singular) or {}, dict):
                raise Unusable(f"{path}: an entry of {plural} is not a mapping")
            name = str(entry.get("name") or "")
            if name and name not in into:
                into[name] = entry.get(singular) or {}
                config.directories[singular, name] = directory


def _namespace(context: Mapping[str, Any]) -> str:
    return str(context.get("namespace") or "default")


def _target(config: Config, name: str) -> Target:
    context = config.contexts[name]
    cluster_name, user_name = str(context.get("cluster", "")), str(context.get("user", ""))
    cluster = config.clusters.get(cluster_name)
    if cluster is None:
        raise Unusable(f'context "{name}" names cluster "{cluster_name}", which is not there')
    user = config.users.get(user_name)
    if user is None:
        if user_name:
            raise Unusable(f'context "{name}" names user "{user_name}", which is not there')
        user = {}
    endpoint = _endpoint(cluster)
    at_cluster = config.directories["cluster", cluster_name]
    at_user = config.directories.get(("user", user_name), "")
    made = Target(
        grpc=str(endpoint.get("grpc") or ""),
        unix=str(endpoint.get("unix") or ""),
        namespace=_namespace(context),
        context=name,
    )
    if not made.grpc:
        return made
    token_file = str(user.get("tokenFile") or "")
    return replace(
        made,
        authority=_content(cluster, "certificate-authority", at_cluster),
        client_certificate=_content(user, "client-certificate", at_user),
        client_key=_content(user, "client-key", at_user),
        client_certificate_file=_file(user, "client-certificate", at_user),
        client_key_file=_file(user, "client-key", at_user),
        token=str(user.get("token") or ""),
        token_file=os.path.join(at_user, token_file) if token_file else "",
        server_name=str(cluster.get("tls-server-name") or ""),
    )


def _endpoint(cluster: Mapping[str, Any]) -> Mapping[str, Any]:
    for entry in cluster.get("extensions") or []:
        if isinstance(entry, dict) and entry.get("name") == EXTENSION:
            said = entry.get("extension")
            return said if isinstance(said, dict) else {}
    return {}


def _content(entry: Mapping[str, Any], key: str, directory: str) -> bytes | None:
    """What stands in `key`-data, or in the file that `key` names."""
    data = entry.get(f"{key}-data")
    if data:
        try:
            return base64.b64decode(str(data), validate=True)
        except (binascii.Error, ValueError):
            raise Unusable(f"{key}-data is not base64") from None
    path = entry.get(key)
    if not path:
        return None
    try:
        with open(os.path.join(directory, str(path)), "rb") as file:
            return file.read()
    except OSError as wrong:
        raise Unusable(f"{key}: {wrong}") from None


def _file(entry: Mapping[str, Any], key: str, directory: str) -> str:
    """The file that `key` names, unless `key`-data says it all."""
    path = "" if entry.get(f"{key}-data") else str(entry.get(key) or "")
    return os.path.join(directory, path) if path else ""


def _within_pod(environ: Mapping[str, str]) -> Target | None:
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    token = f"{_ACCOUNT}/token"
    if not host or not os.path.exists(token):
        return None
    namespace = "default"
    if os.path.exists(f"{_ACCOUNT}/namespace"):
        namespace = _text(f"{_ACCOUNT}/namespace").strip() or "default"
    shown = f"[{host}]" if ":" in host else host
    return Target(
        grpc=f"{shown}:{port or '443'}",
        authority=_content({"ca": f"{_ACCOUNT}/ca.crt"}, "ca", ""),
        token_file=token,
        namespace=namespace,
    )
