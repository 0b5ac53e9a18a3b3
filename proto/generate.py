"""Generates the protobuf code beside the protos, and the descriptor set `proto/shop.binpb`.

`python proto/generate.py release` makes what is generated now the baseline that may only be extended.

Run as `python proto/generate.py`; does nothing when no proto and no generator changed. The descriptor set holds every
imported file and the comments: Envoy's JSON transcoder, Buf and the access tests read it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent
STAMP = ROOT / ".generated"
DESCRIPTORS = ROOT / "shop.binpb"
RELEASED = ROOT / "released.binpb"


def main() -> int:
    """Generates if anything changed; returns protoc's exit code."""
    protos = sorted((ROOT / "shop").rglob("*.proto"))
    fingerprint = _fingerprint(protos)
    if STAMP.exists() and STAMP.read_text() == fingerprint and DESCRIPTORS.exists():
        return 0
    for stale in [*ROOT.rglob("*_pb2*.py"), *ROOT.rglob("*_pb2*.pyi")]:
        stale.unlink()
    code = _protoc(protos)
    if code == 0:
        STAMP.write_text(fingerprint)
    return code


def release() -> None:
    """Keeps the descriptors, without comments, as the baseline of Buf's breaking check. It is committed."""
    from google.protobuf import descriptor_pb2

    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    for file in files.file:
        file.ClearField("source_code_info")
    RELEASED.write_bytes(files.SerializeToString(deterministic=True))


def _fingerprint(protos: list[Path]) -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for tool in ("grpcio-tools", "mypy-protobuf", "protovalidate"):
        digest.update(importlib.metadata.version(tool).encode())
    for proto in protos:
        digest.update(str(proto.relative_to(ROOT)).encode() + proto.read_bytes())
    return digest.hexdigest()


def _validate_descriptors() -> bytes:
    """The descriptors of buf/validate/validate.proto and what it imports.

    protovalidate's wheel carries no .proto file, only the descriptor: it is handed to protoc in that form.
    """
    from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
    from protovalidate._gen.buf.validate import validate_pb

    files = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    files.file.add().ParseFromString(validate_pb._DESC.proto.to_binary())
    return files.SerializeToString()


def _protoc(protos: list[Path]) -> int:
    from grpc_tools import protoc

    validate = ROOT / ".validate.binpb"
    validate.write_bytes(_validate_descriptors())
    site_packages = sysconfig.get_path("purelib")
    grpc_include = Path(protoc.__file__).parent / "_proto"
    scripts = sysconfig.get_path("scripts")
    shop = [str(p.relative_to(ROOT)) for p in protos]
    include = [f"-I{ROOT}", f"-I{site_packages}", f"-I{grpc_include}", f"--descriptor_set_in={validate}"]
    plugins = [
        f"--plugin=protoc-gen-mypy={scripts}/protoc-gen-mypy",
        f"--plugin=protoc-gen-mypy_grpc={scripts}/protoc-gen-mypy_grpc",
    ]
    steps = [
        # buf/validate is generated too, since no wheel has it as Python; googleapis-common-protos has the google ones.
        ["protoc", *include, f"--python_out={ROOT}", f"--pyi_out={ROOT}", "buf/validate/validate.proto"],
        [
            "protoc", *include, *plugins,
            f"--python_out={ROOT}", f"--grpc_python_out={ROOT}",
            f"--mypy_out=quiet:{ROOT}", f"--mypy_grpc_out=quiet:{ROOT}",
            "--include_imports", "--include_source_info", f"--descriptor_set_out={DESCRIPTORS}", *shop,
        ],
    ]  # fmt: skip
    for step in steps:
        code: int = protoc.main(step)
        if code:
            return code
    return 0


if __name__ == "__main__":
    done = main()
    if done == 0 and sys.argv[1:] == ["release"]:
        release()
    sys.exit(done)
