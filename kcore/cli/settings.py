"""`kcore create configmap` and `secret`: settings of literals, files, key pairs and registries."""

import base64
import json
import os
from collections.abc import Sequence
from typing import Any

import click

from kcore.cli import files as files_
from kcore.cli.generator import generator


@click.command(name="configmap")
@click.argument("name")
@click.option("--from-literal", "literals", multiple=True, metavar="KEY=VALUE")
@click.option("--from-file", "files", multiple=True, metavar="[KEY=]FILE|DIRECTORY")
@click.option("--from-env-file", "env_files", multiple=True, metavar="FILE")
@generator
def configmap(
    name: str, literals: Sequence[str], files: Sequence[str], env_files: Sequence[str]
) -> dict[str, Any]:
    """Make a config map of literals and files.

    \b
    kcore create configmap colors --from-literal=sky=blue --from-file=web.yaml
    """
    text: dict[str, Any] = {}
    binary: dict[str, Any] = {}
    for key, data in _entries(literals, files, env_files):
        if key in text or key in binary:
            raise click.UsageError(f'the key "{key}" is given twice')
        try:
            text[key] = data.decode()
        except UnicodeDecodeError:
            binary[key] = _base64(data)
    made: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    return made | ({"data": text} if text else {}) | ({"binaryData": binary} if binary else {})


@click.group()
def secret() -> None:
    """Make a secret.

    \b
    kcore create secret generic login --from-literal=password=hunter2
    """


@secret.command(name="generic")
@click.argument("name")
@click.option("--from-literal", "literals", multiple=True, metavar="KEY=VALUE")
@click.option("--from-file", "files", multiple=True, metavar="[KEY=]FILE|DIRECTORY")
@click.option("--from-env-file", "env_files", multiple=True, metavar="FILE")
@click.option("--type", "type_", default="", help="The secret's type.")
@generator
def generic(
    name: str, literals: Sequence[str], files: Sequence[str], env_files: Sequence[str], type_: str
) -> dict[str, Any]:
    """Make a secret of literals and files.

    \b
    kcore create secret generic login --from-literal=password=hunter2
    """
    data: dict[str, Any] = {}
    for key, value in _entries(literals, files, env_files):
        if key in data:
            raise click.UsageError(f'the key "{key}" is given twice')
        data[key] = _base64(value)
    made: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
    return made | ({"data": data} if data else {}) | ({"type": type_} if type_ else {})


@secret.command(name="tls")
@click.argument("name")
@click.option("--cert", "certificate", required=True, metavar="FILE", help="Certificate, in PEM.")
@click.option("--key", "key", required=True, metavar="FILE", help="Its private key, in PEM.")
@generator
def tls(name: str, certificate: str, key: str) -> dict[str, Any]:
    """Make a secret of a certificate and its key.

    \b
    kcore create secret tls web --cert=web.crt --key=web.key
    """
    pair = {"tls.crt": files_.read(certificate), "tls.key": files_.read(key)}
    _check_pair(pair["tls.crt"], pair["tls.key"])
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": "kubernetes.io/tls",
        "data": {name: _base64(data) for name, data in pair.items()},
    }


@secret.command(name="docker-registry")
@click.argument("name")
@click.option("--docker-server", "server", default="https://index.docker.io/v1/",
              show_default=True, help="The registry.")  # fmt: skip
@click.option("--docker-username", "username", default="", help="Who pulls.")
@click.option("--docker-password", "password", default="", help="Their password or token.")
@click.option("--docker-email", "email", default="", help="Their address.")
@click.option("--from-file", "file", default="", metavar="FILE", help="A docker config instead.")
@generator
def docker_registry(
    name: str, server: str, username: str, password: str, email: str, file: str
) -> dict[str, Any]:
    """Make a secret that images are pulled with.

    \b
    kcore create secret docker-registry pull --docker-username=me --docker-password=hunter2
    """
    if file:
        config = files_.read(file.removeprefix(".dockerconfigjson="))
    elif not username or not password:
        raise click.UsageError("say --docker-username and --docker-password, or --from-file")
    else:
        entry = {"username": username, "password": password}
        entry |= {"email": email} if email else {}
        entry["auth"] = _base64(f"{username}:{password}".encode())
        config = json.dumps({"auths": {server: entry}}).encode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": _base64(config)},
    }


def _check_pair(certificate: bytes, key: bytes) -> None:
    """Refuses what is no certificate with its key: servers would find out only later."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        public = x509.load_pem_x509_certificate(certificate).public_key()
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError) as wrong:
        raise click.UsageError(f"tls: {str(wrong).splitlines()[0]}") from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*form) != private.public_key().public_bytes(*form):
        raise click.UsageError("tls: the private key is not the certificate's")


def _entries(
    literals: Sequence[str], files: Sequence[str], env_files: Sequence[str]
) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for literal in literals:
        key, equals, value = literal.partition("=")
        if not equals or not key:
            raise click.UsageError(f'"{literal}" is not of the form key=value')
        found.append((key, value.encode()))
    for entry in files:
        key, equals, path = entry.rpartition("=")
        if not equals and os.path.isdir(path):
            names = sorted(n for n in os.listdir(path) if os.path.isfile(os.path.join(path, n)))
            found += [(name, files_.read(os.path.join(path, name))) for name in names]
        else:
            found.append((key or os.path.basename(path), files_.read(path)))
    for path in env_files:
        for number, line in enumerate(files_.text(path).splitlines(), 1):
            bare = line.lstrip()
            if not bare or bare.startswith("#"):
                continue
            key, equals, value = bare.partition("=")
            if not equals or not key:
                raise click.UsageError(f"{path}:{number}: is not of the form key=value")
            found.append((key, value.encode()))
    return found


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
