"""Images: the same bytes each time, and what OCI and docker find in them."""

import hashlib
import io
import json
import os
import struct
import tarfile
from pathlib import Path

import pytest

from kcore.boot import images
from kcore.boot.images import Config, Entry

CONFIG = Config(entrypoint=("/a",), env=("X=1",), user="65534", labels={"k": "v"})


def small(name: str = "kcore.local/small:1") -> bytes:
    """An image of one file."""
    return images.image_tar(name, [images.layer([Entry("a", 0o755, data=b"x")])], CONFIG, "amd64")


def files(tar: bytes) -> dict[str, bytes]:
    """The regular files of a tar."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        found = {info.name: opened.extractfile(info) for info in opened}
        return {name: file.read() for name, file in found.items() if file is not None}


def program(*, interpreter: bool) -> bytes:
    """A 64-bit program of nothing but one program header."""
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return ident + head + struct.pack("<I", 3 if interpreter else 1) + bytes(52)


def test_the_same_input_gives_the_same_bytes() -> None:
    assert small() == small()
    # Neither the order of the files nor time has a say, nor another machine.
    one, two = Entry("a", data=b"1"), Entry("b", data=b"2")
    assert images.layer([one, two]) == images.layer([two, one])
    assert hashlib.sha256(small()).hexdigest() == (
        "b7ad6a0c00821f3d79f2710c546416ca5757d8f5ffac6c6e169389a449503996"
    )


def test_every_blob_is_what_its_name_and_its_descriptor_say() -> None:
    found = files(small())
    for name, content in found.items():
        if name.startswith("blobs/sha256/"):
            assert name.rpartition("/")[2] == hashlib.sha256(content).hexdigest()
    index = json.loads(found["index.json"])
    (described,) = index["manifests"]
    assert described["annotations"]["io.containerd.image.name"] == "kcore.local/small:1"
    assert described["platform"] == {"architecture": "amd64", "os": "linux"}
    manifest = blob(found, described)
    config = blob(found, json.loads(manifest)["config"])
    (layer,) = json.loads(manifest)["layers"]
    assert json.loads(config)["rootfs"]["diff_ids"] == [layer["digest"]]
    assert files(blob(found, layer)) == {"a": b"x"}
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}


def blob(found: dict[str, bytes], descriptor: dict[str, object]) -> bytes:
    """What a descriptor points at."""
    content = found["blobs/" + str(descriptor["digest"]).replace(":", "/")]
    assert len(content) == descriptor["size"]
    return content


def test_docker_finds_its_own_file() -> None:
    found = files(small())
    (docker,) = json.loads(found["manifest.json"])
    assert docker["RepoTags"] == ["kcore.local/small:1"]
    assert json.loads(found[docker["Config"]])["config"] == {
        "Entrypoint": ["/a"],
        "Env": ["X=1"],
        "User": "65534",
        "Labels": {"k": "v"},
    }
    assert files(found[docker["Layers"][0]]) == {"a": b"x"}


def test_an_image_needs_a_tag() -> None:
    for name in ("kcore.local/small", "kcore.local:5000/small"):
        with pytest.raises(images.ImageError, match="no tag"):
            small(name)


def test_a_layer_of_a_directory(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (root / "run").symlink_to("/etc")
    (root / "program").write_bytes(b"#!")
    (root / "program").chmod(0o4755)
    os.mkfifo(root / "pipe")
    with (tmp_path / "layer.tar").open("wb") as out:
        images.write_layer(out, images.tree(root))
    with tarfile.open(tmp_path / "layer.tar") as tar:
        listed = {info.name: (info.type, oct(info.mode), info.uid, info.mtime) for info in tar}
    assert set(listed) == {"etc", "etc/passwd", "program", "run"}
    assert listed["run"][0] == tarfile.SYMTYPE
    assert listed["program"] == (tarfile.REGTYPE, "0o4755", 0, 0)
    layer = images.layer_file(tmp_path / "layer.tar")
    content = (tmp_path / "layer.tar").read_bytes()
    assert layer.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    with (tmp_path / "image.tar").open("wb") as out:
        images.write_image(out, "kcore.local/tree:1", [layer], Config())
    found = files((tmp_path / "image.tar").read_bytes())
    assert found["blobs/" + layer.digest.replace(":", "/")] == content


def test_a_pause_program_that_needs_libraries_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pause"
    for content in (program(interpreter=True), b"#!/bin/sh\n", b""):
        path.write_bytes(content)
        with pytest.raises(images.ImageError, match=str(path)):
            images.pause_image(path)
    with pytest.raises(images.ImageError, match="not there"):
        images.pause_image(tmp_path / "none")
    path.write_bytes(program(interpreter=False))
    (docker,) = json.loads(files(images.pause_image(path))["manifest.json"])
    assert docker["RepoTags"] == [images.PAUSE]


@pytest.mark.skipif(not Path("/usr/bin/busybox").exists(), reason="needs busybox")
def test_busybox_has_its_applets() -> None:
    found = files(images.busybox_image())
    (docker,) = json.loads(found["manifest.json"])
    with tarfile.open(fileobj=io.BytesIO(found[docker["Layers"][0]])) as layer:
        links = {info.name: info.linkname for info in layer if info.issym()}
        modes = {info.name: info.mode for info in layer}
    for applet in ("sh", "cat", "wget", "httpd", "nc", "nslookup", "tar"):
        assert links[f"bin/{applet}"] == "busybox"
    assert modes["tmp"] == 0o1777 and modes["root"] == 0o700
    assert json.loads(found[docker["Config"]])["config"]["Cmd"] == ["sh"]
