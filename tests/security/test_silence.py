"""A connection that falls silent, as behind a NAT that has forgotten it, is noticed by both ends.

Part of `make attack`: it takes most of a minute, and needs root for a network namespace.
"""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.server import Server

MOST_SECONDS = 45.0
NAME = f"kcsilent{os.getpid() % 100_000}"
OUTSIDE, INSIDE = "10.213.77.1", "10.213.77.2"

WATCHER = """
import asyncio, sys, time
from pathlib import Path
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore.client import channel
from kcore.client.kubeconfig import Target
from kcore.wire.errors import ApiError

async def main():
    where, ca, token = sys.argv[1:]
    target = Target(
        grpc=where, authority=Path(ca).read_bytes(), token_file=token, server_name="localhost"
    )
    asked = pb.WatchRequest(
        selections=[pb.Selection(kind="kcore.core.v1.Namespace")], progress_ms=600_000
    )
    async with channel.connect(target) as dialled:
        while True:
            try:
                async for message in dialled.watch(asked):
                    if message.synced:
                        print("synced", flush=True)
                    asked.selections[0].from_revision = message.revision
            except ApiError as error:
                print("lost", error.message, flush=True)
                await asyncio.sleep(0.5)

asyncio.run(main())
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def inside(*words: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{NAME}", *words]


@pytest.fixture
def namespace() -> Iterator[None]:
    """A network namespace, joined to this one."""
    ip("netns", "add", NAME)
    try:
        ip("link", "add", "kcsilent0", "type", "veth", "peer", "name", "eth0", "netns", NAME)
        ip("addr", "add", f"{OUTSIDE}/24", "dev", "kcsilent0")
        ip("link", "set", "kcsilent0", "up")
        ip("-n", NAME, "addr", "add", f"{INSIDE}/24", "dev", "eth0")
        ip("-n", NAME, "link", "set", "eth0", "up")
        yield
    finally:
        ip("netns", "del", NAME)


@pytest.mark.skipif("KCORE_ATTACK_SECONDS" not in os.environ, reason="takes most of a minute")
def test_silence_is_noticed_by_both_ends_and_watches_resume(
    server: Server, namespace: None
) -> None:
    def watchers() -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.setup.probe_port}/metrics") as said:
            for line in said.read().decode().splitlines():
                if line.startswith("kcore_feed_watchers "):
                    return int(float(line.split()[1]))
        raise AssertionError("no such metric")

    root = Path(__file__).parents[2]
    command = inside(sys.executable, "-c", WATCHER, f"{OUTSIDE}:{server.setup.port}")
    command += [str(server.setup.place.ca), str(server.setup.place.admin_token)]
    before = watchers()
    client = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'generated'}"},
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "synced\n"
        assert watchers() == before + 1
        rules = "add table inet silence; "
        for hook in ("input", "output"):
            rules += f"add chain inet silence {hook} {{ type filter hook {hook} priority 0; "
            rules += "policy drop; }; "
        subprocess.run(inside("nft", rules), check=True)
        begun = time.monotonic()
        assert client.stdout.readline().startswith("lost ")
        by_client = time.monotonic() - begun
        while watchers() > before and time.monotonic() - begun < 2 * MOST_SECONDS:
            time.sleep(0.2)
        by_server = time.monotonic() - begun
        subprocess.run(inside("nft", "delete table inet silence"), check=True)
        while (line := client.stdout.readline()) != "synced\n":
            assert line.startswith("lost ")
        resumed = time.monotonic() - begun
        print(
            f"\nsilence: client {by_client:.1f} s, server {by_server:.1f} s, again {resumed:.1f} s"
        )
        assert by_client < MOST_SECONDS
        assert by_server < MOST_SECONDS
        assert watchers() == before + 1
    finally:
        client.kill()
        client.wait()
