"""The five verbs through a real gRPC server: as in process, and errors as they were raised."""

from pathlib import Path

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2

from tests.apiserver.world import CONFIG_MAP, config_map, create, ref, world


async def test_an_object_goes_in_and_out(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        response = await there.channel.commit(create(CONFIG_MAP, config_map("a", key="value")))
        stored = response.results[0].operations[0].object
        answer = await there.channel.get(pb.GetRequest(ref=ref(CONFIG_MAP, "a")))
        assert answer.object == stored
        assert config_map_pb2.ConfigMap.FromString(stored).data["key"] == "value"
        assert await there.session().get(pb.GetRequest(ref=ref(CONFIG_MAP, "a"))) == answer
