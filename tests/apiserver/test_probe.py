"""The HTTP port for probes, and what is counted."""

import asyncio
import re
from contextlib import aclosing
from pathlib import Path

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.apiserver.probe import Probe
from kcore.wire.errors import ApiError
from tests.apiserver.world import CONFIG_MAP, config_map, create, ref, world


async def fetch(port: int, head: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_probe_is_answered_over_http() -> None:
    probe = Probe(lambda: b"kcore_x 1\n", {"kernel": lambda: ""})
    port = await probe.start("127.0.0.1", 0)
    answer = await fetch(port, b"GET /readyz?verbose HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"[+]kernel ok\nreadyz check passed\n"
    assert (await fetch(port, b"GET /metrics HTTP/1.1\r\n\r\n")).endswith(b"kcore_x 1\n")
    assert (await fetch(port, b"POST /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405")
    assert await fetch(port, b"nonsense\r\n\r\n") == b""
    assert await fetch(port, b"GET /" + b"x" * (1 << 16)) == b""
    await probe.stop()


def test_a_server_that_is_not_ready_says_why() -> None:
    probe = Probe(lambda: b"", {"kernel": lambda: "the store failed", "other": lambda: ""})
    assert probe.answer("GET", "/livez") == (200, b"ok")
    status, body = probe.answer("GET", "/readyz")
    assert status == 503
    assert body == b"[-]kernel failed: the store failed\n[+]other ok\nreadyz check failed\n"
    assert probe.answer("GET", "/nope")[0] == 404


async def test_calls_are_counted_under_the_names_that_people_know(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        before = there.apiserver.metrics.text().count(b"\n")
        await there.channel.commit(create(CONFIG_MAP, config_map("a")))
        with pytest.raises(ApiError):
            await there.channel.commit(create(CONFIG_MAP, config_map("a")))
        await there.channel.list(pb.ListRequest(selection=pb.Selection(kind=CONFIG_MAP)))
        with pytest.raises(ApiError):
            await there.channel.get(pb.GetRequest(ref=ref("kcore.core.v1.None", "a")))
        request = pb.WatchRequest(selections=[pb.Selection(kind=CONFIG_MAP)])
        async with aclosing(there.channel.watch(request)) as responses:
            await anext(responses)
            text = there.apiserver.metrics.text().decode()
        for line in (
            'apiserver_request_duration_seconds_count{code="200",resource="configmaps",'
            'subresource="",verb="POST"} 1.0',
            'apiserver_request_duration_seconds_count{code="409",resource="configmaps",'
            'subresource="",verb="POST"} 1.0',
            'apiserver_request_duration_seconds_count{code="404",resource="",'
            'subresource="",verb="GET"} 1.0',
            'grpc_server_handled_total{grpc_code="ALREADY_EXISTS",grpc_method="Commit",'
            'grpc_service="kcore.api.v1.ApiService",grpc_type="unary"} 1.0',
            'kcore_commit_transactions_total{outcome="applied"} 1.0',
            "kcore_feed_watchers 1.0",
            "kcore_feed_messages_total 1.0",
        ):
            assert line in text, text
        assert re.search(r"^kcore_commit_head_revision \d+\.0$", text, re.MULTILINE)
        # The number of series does not grow with the objects.
        after = there.apiserver.metrics.text().count(b"\n")
        names = [f"c{number}" for number in range(200)]
        await asyncio.gather(
            *(there.channel.commit(create(CONFIG_MAP, config_map(name))) for name in names)
        )
        assert there.apiserver.metrics.text().count(b"\n") <= after + 20
        assert before < after
