"""Results that other builds stand on (`docker buildx bake`, contexts "target:NAME").

A client hands a result on as the definition (LLB) it got with it. Ours has one source, which names the result here.
"""

import hashlib

from google.protobuf.message import DecodeError

from wherry.buildkit.messages import buildkit_pb2 as pb
from wherry.errors import Unimplemented

_SCHEME = "wherry-result://"
_OPERATIONS_MAX = 64


def definition_of(id: str) -> pb.Definition:
    """A definition that stands for the result `id`."""
    source = pb.Op(source=pb.SourceOp(identifier=f"{_SCHEME}{id}")).SerializeToString()
    digest = "sha256:" + hashlib.sha256(source).hexdigest()
    last = pb.Op(inputs=[pb.Input(digest=digest, index=0)]).SerializeToString()
    return pb.Definition(operations=[source, last], metadata={digest: pb.OpMetadata()})


def input_of(definition: pb.Definition) -> str:
    """The id a definition stands for. Unimplemented for one that is not ours."""
    for data in list(definition.operations)[:_OPERATIONS_MAX]:
        try:
            operation = pb.Op.FromString(data)
        except DecodeError:
            continue
        identifier = operation.source.identifier
        if identifier.startswith(_SCHEME):
            return identifier.removeprefix(_SCHEME)
    raise Unimplemented("a context that is a build definition (LLB) is not supported")
