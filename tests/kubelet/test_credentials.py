"""Whose password goes to which registry: S68."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcore.kubelet import credentials


def secret(*registries: str) -> dict[str, bytes]:
    """A pull secret; each registry's password is its name."""
    return {".dockerconfigjson": json.dumps({"auths": {
        one: {"auth": base64.b64encode(f"user:{one}".encode()).decode()} for one in registries
    }}).encode()}  # fmt: skip


SECRETS = [
    secret("reg.example", "reg.example:5000", "localhost:1", "https://index.docker.io/v1/"),
    secret("path.example/team", "path.example", "http://old.example/v2/"),
]


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("reg.example/x", "reg.example"),
        ("reg.example/a/b/x:1", "reg.example"),
        ("reg.example/x@sha256:00", "reg.example"),
        ("reg.example:5000/x", "reg.example:5000"),
        ("localhost:1/x", "localhost:1"),
        ("busybox", "https://index.docker.io/v1/"),
        ("busybox:1", "https://index.docker.io/v1/"),
        ("library/busybox", "https://index.docker.io/v1/"),
        ("docker.io/library/busybox:1", "https://index.docker.io/v1/"),
        ("path.example/team/x:1", "path.example/team"),
        ("path.example/team:1", "path.example/team"),
        ("path.example/teams/x", "path.example"),
        ("old.example/x", "http://old.example/v2/"),
        # Another one's, however it looks.
        ("reg.example.evil/x", ""),
        ("evil.reg.example/x", ""),
        ("reg.example@evil/x", ""),
        ("user@reg.example/x", ""),
        ("reg.example:5001/x", ""),
        ("reg.example:/x", ""),
        ("evil.example/reg.example/x", ""),
        ("localhost/x", ""),
    ],
)
def test_only_the_registry_itself_is_told(image: str, registry: str) -> None:
    found = credentials.find(image, SECRETS)
    assert (found.password if found is not None else "") == registry
    assert found is None or found.username == "user"


def test_all_ways_to_say_it() -> None:
    for said in (
        {"username": "u", "password": "p"},
        {"auth": base64.b64encode(b"u:p").decode()},
    ):
        for body in ({".dockerconfigjson": {"auths": {"r.example": said}}},
                     {".dockercfg": {"r.example": said}}):  # fmt: skip
            data = {key: json.dumps(value).encode() for key, value in body.items()}
            found = credentials.find("r.example/x", [data])
            assert found is not None and (found.username, found.password) == ("u", "p")


@given(st.text(max_size=40), st.binary(max_size=40), st.recursive(
    st.none() | st.text(max_size=5) | st.integers(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["auths", "auth", "r.example"]), inner, max_size=3),
))  # fmt: skip
def test_secrets_are_whatever_people_write(image: str, raw: bytes, value: object) -> None:
    said = json.dumps(value).encode()
    for body in (raw, said):
        credentials.find(image, [{".dockerconfigjson": body, ".dockercfg": body}])
