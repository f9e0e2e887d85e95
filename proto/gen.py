import re, shutil, subprocess, sys
from pathlib import Path
ROOT = Path(__file__).resolve().parent.parent
import google.rpc.status_pb2 as s
inc = Path(s.__file__).parent.parent.parent
from grpc_tools import protoc
import grpc_tools
out = ROOT / "generated/kcore_api"
files = sorted(str(p.relative_to(ROOT / "proto")) for p in (ROOT / "proto").rglob("*.proto"))
tops = sorted({f.split("/")[0] for f in files})
import tempfile
tmp = Path(tempfile.mkdtemp())
rc = protoc.main(["protoc", f"-I{ROOT/'proto'}", f"-I{inc}", f"-I{Path(grpc_tools.__file__).parent/'_proto'}", f"--python_out={tmp}", f"--pyi_out={tmp}", *files])
if rc: sys.exit(rc)
pat = re.compile(rf"^(\s*)from ((?:{'|'.join(tops)})(?:\.\w+)*) import", re.M)
for p in sorted(tmp.rglob("*.py*")):
    d = out / p.relative_to(tmp); d.parent.mkdir(parents=True, exist_ok=True)
    d.write_text(pat.sub(r"\1from kcore_api.\2 import", p.read_text()))
for d in [x for x in out.rglob("*") if x.is_dir() and x.name != "__pycache__"]:
    if not (d / "__init__.py").exists(): (d / "__init__.py").write_text("")
shutil.rmtree(tmp)
