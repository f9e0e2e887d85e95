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
a pod the service account's mount. What a kubeconfig asks for and kcore does not do (programs that
make credentials, proxies, passwords) is refused, and no program is ever run. `put`, `remove` and
`use_context` change the files. Must not know gRPC.
"""

import base64
import binascii
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from kcore.client.problem import meant

EXTENSION: Final = "kcore.dev/endpoint"
SOCKET: Final = "/run/kcore/kcore.sock"
# Where to go back to: the context before this one, and each context's namespace before.
PREVIOUS: Final = "kcore.dev/previous"
_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
# What a kubeconfig may weigh, and a certificate or a key.
_FILE_BYTES: Final = 4 << 20
_CONTENT_BYTES: Final = 1 << 20
# What is asked for in vain, and what to do instead.
_NOT_FOR_CLUSTERS: Final = {
    "proxy-url": "kcore goes through no proxy",
    "insecure-skip-tls-verify": "servers are always verified; give certificate-authority",
}
_NOT_FOR_USERS: Final = {
    "exec": "programs that make credentials are never run; give a token or a client certificate",
    "auth-provider": "there are no auth providers; give a token or a client certificate",
    "username": "there are no passwords; give a token or a client certificate",
    "password": "there are no passwords; give a token or a client certificate",
    "as": "nobody acts as somebody else from here",
    "as-uid": "nobody acts as somebody else from here",
    "as-groups": "nobody acts as somebody else from here",
    "as-user-extra": "nobody acts as somebody else from here",
}


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
    # Where new entries are written to.
    default: str = ""
    current_context: str = ""
    contexts: dict[str, dict[str, Any]] = field(default_factory=dict)
    clusters: dict[str, dict[str, Any]] = field(default_factory=dict)
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    previous_context: str = ""
    previous_namespaces: dict[str, str] = field(default_factory=dict)
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
            text = _text(path)
        except FileNotFoundError:
            if required:
                raise Unusable(f"{path}: no such file") from None
            continue
        except (OSError, ValueError) as wrong:
            raise Unusable(f"{path}: {wrong}") from None
        _merge(config, path, _parsed(text, path))
    config.default = config.files[-1] if config.files else (files[-1] if files else "")
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
    path = next((p for p in config.files if _read(p).get("current-context")), config.default)

    def change(plain: dict[str, Any]) -> None:
        former = plain.get("current-context")
        plain["current-context"] = name
        if former and former != name:
            _previous(plain)["context"] = former

    _change(path, change)
    return path


def set_namespace(config: Config, name: str, namespace: str) -> None:
    """Sets a context's namespace in the file that it stands in."""
    if name not in config.contexts:
        raise Unusable(f'there is no context "{name}"{meant(name, config.contexts)}')
    former = _namespace(config.contexts[name])
    path = put(config, "contexts", name, {"namespace": namespace})
    if former != namespace:

        def change(plain: dict[str, Any]) -> None:
            previous = _previous(plain)
            previous["namespaces"] = {**(previous.get("namespaces") or {}), name: former}

        _change(path, change)


def put(config: Config, plural: str, name: str, values: Mapping[str, Any]) -> str:
    """Sets values of an entry where it stands, or makes one; returns the file.

    A value of None is taken away.
    """
    singular = plural.removesuffix("s")

    def change(plain: dict[str, Any]) -> None:
        entries = plain.setdefault(plural, None) or []
        plain[plural] = entries
        entry = next((one for one in entries if one.get("name") == name), None)
        if entry is None:
            entry = {"name": name}
            entries.append(entry)
        merged = {**(entry.get(singular) or {}), **values}
        entry[singular] = {key: value for key, value in merged.items() if value is not None}

    path = _home(config, plural, name) or config.default
    _change(path, change)
    return path


def remove(config: Config, plural: str, name: str) -> str:
    """Takes an entry away from every file; returns the one that it was read from."""
    found = _home(config, plural, name)
    if not found:
        known = [one["name"] for path in config.files for one in _entries(_read(path), plural)]
        raise Unusable(f'there is no {plural.removesuffix("s")} "{name}"{meant(name, known)}')

    def change(plain: dict[str, Any]) -> None:
        plain[plural] = [one for one in _entries(plain, plural) if one.get("name") != name]

    for path in config.files:
        if any(one.get("name") == name for one in _entries(_read(path), plural)):
            _change(path, change)
    return found


def rename_context(config: Config, name: str, to: str) -> None:
    """Gives a context another name; it stays the current one if it was."""
    if to in config.contexts:
        raise Unusable(f'there is a context "{to}" already')
    path = _home(config, "contexts", name)
    if not path:
        raise Unusable(f'there is no context "{name}"{meant(name, config.contexts)}')

    def change(plain: dict[str, Any]) -> None:
        for one in _entries(plain, "contexts"):
            if one.get("name") == name:
                one["name"] = to

    _change(path, change)
    if config.current_context == name:
        for file in config.files:
            if _read(file).get("current-context") == name:
                _change(file, lambda plain: plain.update({"current-context": to}))


def _home(config: Config, plural: str, name: str) -> str:
    """The file that an entry was read from; "" where there is none."""
    for path in config.files:
        if any(one.get("name") == name for one in _entries(_read(path), plural)):
            return path
    return ""


def _entries(plain: Mapping[str, Any], plural: str) -> list[dict[str, Any]]:
    return plain.get(plural) or []


def _change(path: str, change: Callable[[dict[str, Any]], None]) -> None:
    if not path:
        raise Unusable("there is no kubeconfig to write to")
    plain = _read(path) if os.path.exists(path) else {"apiVersion": "v1", "kind": "Config"}
    change(plain)
    write(path, plain)


def _previous(plain: dict[str, Any]) -> dict[str, Any]:
    """What a file says of the past, to be changed."""
    extensions = plain.get("extensions") or []
    plain["extensions"] = extensions
    for one in extensions:
        if one.get("name") == PREVIOUS and isinstance(one.get("extension"), dict):
            found: dict[str, Any] = one["extension"]
            return found
    made: dict[str, Any] = {}
    extensions.append({"name": PREVIOUS, "extension": made})
    return made


def write(path: str, plain: Mapping[str, Any]) -> None:
    """Replaces a kubeconfig file, readable by its owner only; a link to it stays one."""
    from kcore.client import yaml_writer

    path = os.path.realpath(path)
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
    # Not more than a kubeconfig has: there are files without end.
    with open(path, "rb") as file:
        data = file.read(_FILE_BYTES + 1)
    if len(data) > _FILE_BYTES:
        raise Unusable(f"{path}: is longer than a kubeconfig can be ({_FILE_BYTES >> 20} MiB)")
    return data.decode()


def _read(path: str) -> dict[str, Any]:
    return _parsed(_text(path), path)


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
    for extension in plain.get("extensions") or []:
        if isinstance(extension, dict) and extension.get("name") == PREVIOUS:
            said = extension.get("extension") or {}
            config.previous_context = config.previous_context or str(said.get("context") or "")
            config.previous_namespaces = {
                **(said.get("namespaces") or {}),
                **config.previous_namespaces,
            }


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
    if endpoint:
        _check(f'cluster "{cluster_name}"', cluster, _NOT_FOR_CLUSTERS)
        _check(f'user "{user_name}"', user, _NOT_FOR_USERS)
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


def _check(what: str, entry: Mapping[str, Any], refused: Mapping[str, str]) -> None:
    for key, why in refused.items():
        if entry.get(key):
            raise Unusable(f"{what} has {key}, which is not supported: {why}")


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
        # Not waiting for anybody to write into a pipe.
        handle = os.open(os.path.join(directory, str(path)), os.O_RDONLY | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Unusable(f"{key}: {path} is not a regular file")
            content = file.read(_CONTENT_BYTES + 1)
    except (OSError, ValueError) as wrong:
        raise Unusable(f"{key}: {wrong}") from None
    if len(content) > _CONTENT_BYTES:
        raise Unusable(f"{key}: {path} is too long ({_CONTENT_BYTES >> 20} MiB at most)")
    return content


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
