"""Very many broken inputs for each door, fast: `python -m tests.security.mutate [count]`.

test_fuzz.py makes good inputs and breaks them well, some tens a second; here known ones are broken
blindly, by seed, thousands a second. Anything but a door's own error ends it, with the input.
"""

import contextlib
import json
import random
import sys
import time
from collections.abc import Callable

from google.protobuf.message import DecodeError
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.client import codec, document
from kcore.wire import cel, quantity, selector
from kcore.wire.errors import ApiError
from tests.apiserver.world import CONFIG_MAP, POD, compiled, config_map, create, pod
from tests.security.test_fuzz import POOL, Door

SEEDS = {
    "yaml": [
        "a: &a [1, 'x', \"y\\n\"]\nb: {c: *a, <<: {d: 0x1f}}\n--- |\n  text\n...\n",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n- a\n? b\n: c\n# x\n",
    ],
    "json": ['{"metadata": {"name": "a", "labels": {"a": "b"}}, "spec": {"containers": [{}]}}'],
    "labels": ["a=b,c in (d, e),!f,g!=h,i notin (j)", "a==b"],
    "fields": ["metadata.name=a,spec.nodeName!=b\\,c"],
    "quantity": ["100m", "1.5Gi", "-3e2", "128974848"],
    "cel": ["self.spec.containers.all(c, c.name != '' && size(c.ports) < 10)", "old_self == self"],
}


def broken(chance: random.Random, seed: bytes) -> bytes:
    data = bytearray(seed)
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(data) + 1)
        what = chance.randrange(5)
        if what == 0 and at < len(data):
            data[at] = chance.randrange(256)
        elif what == 1:
            del data[at : at + chance.randrange(1, 9)]
        elif what == 2:
            start = chance.randrange(len(data) + 1)
            data[at:at] = data[start : start + chance.randrange(1, 17)]
        elif what == 3:
            data[at:at] = chance.randbytes(chance.randrange(1, 5))
        elif seed and at < len(seed):
            data[at:at] = seed[at : at + 1] * chance.randrange(1, 40)
    return bytes(data)


def doors(door: Door) -> dict[str, tuple[list[bytes], Callable[[bytes], object]]]:
    """What each is tried with, and how."""
    engine = cel.Engine(POOL)
    empty = compiled().kinds[POD].parse(b"")
    selectable = ["metadata.name", "spec.nodeName"]

    def text(function: Callable[[str], object]) -> Callable[[bytes], object]:
        return lambda data: function(data.decode(errors="replace"))

    def read_json(said: str) -> object:
        plain: object = None
        with contextlib.suppress(ValueError):
            plain = json.loads(said)
        if not isinstance(plain, dict):
            return None
        return codec.from_plain(pod_pb2.Pod.DESCRIPTOR, plain)

    def number(said: str) -> object:
        try:
            return quantity.value(said)
        except ValueError:
            return None

    def rule(said: str) -> object:
        try:
            expression = engine.compile(said, POD)
        except ValueError:
            return None
        return expression.evaluate(expression.bind(empty, empty))

    tried: dict[str, Callable[[bytes], object]] = {
        "yaml": text(lambda said: document.read(said, "x.yaml")),
        "json": text(read_json),
        "labels": text(selector.parse_labels),
        "fields": text(lambda said: selector.parse_fields(said, selectable)),
        "quantity": text(number),
        "cel": text(rule),
    }
    found = {
        name: ([seed.encode() for seed in SEEDS[name]], function)
        for name, function in tried.items()
    }
    requests = []
    for made in (create(POD, pod("a", "n1")), create(CONFIG_MAP, config_map("a", k="v"))):
        made.dry_run = True
        requests.append(made.SerializeToString())
    commit = "/kcore.api.v1.ApiService/Commit"
    found["commit"] = requests, lambda data: _commit(door, commit, data)
    return found


def _commit(door: Door, path: str, data: bytes) -> None:
    answer = door.ask(path, data)
    for result in pb.CommitResponse.FromString(answer or b"").results:
        assert result.error.code not in (2, 13, 14), result.error


def main(count: int) -> None:
    """Tries them all."""
    door = Door()
    for name, (seeds, function) in doors(door).items():
        chance = random.Random(f"{name} {count}")
        started, slowest = time.process_time(), 0.0
        for _ in range(count):
            data = broken(chance, chance.choice(seeds))
            begun = time.process_time()
            try:
                with contextlib.suppress(ApiError, DecodeError):
                    function(data)
            except BaseException:
                print(f"{name}: {data!r}")
                raise
            slowest = max(slowest, time.process_time() - begun)
        each = (time.process_time() - started) / count
        print(
            f"{name:10} {count} tried, {each * 1e6:.0f} µs each, the slowest {slowest * 1e3:.1f} ms"
        )
    door.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
