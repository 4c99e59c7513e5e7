"""Ids, revisions, offsets and times, each as its own type: mypy then finds, say, an offset that is passed as an id."""

import re
from typing import Annotated, Final, Literal, NewType

from msgspec import Meta

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""The integers that msgpack, Kafka and numpy can hold. JSON and Python have no limit."""

PostId = NewType("PostId", str)
MemberId = NewType("MemberId", str)
Revision = NewType("Revision", Int64)
"""Grows with every published context of one entity; 0 stands for "never published"."""
Generation = NewType("Generation", str)
_GENERATION: Final = "^[a-z0-9][a-z0-9-]{0,99}$"
GenerationName = Annotated[Generation, Meta(pattern=_GENERATION)]
"""As the manifest of a package has it. A folder gets this name, so it is nothing that leads elsewhere."""
is_generation_name = re.compile(_GENERATION).fullmatch
ContextVersion = NewType("ContextVersion", int)
"""Which rows and contexts: 1 for those of the start, and one more with each `nearline rebuild contexts`."""
Partition = NewType("Partition", Int64)
Offset = NewType("Offset", Int64)
Micros = NewType("Micros", Int64)
"""Microseconds since 1970-01-01T00:00:00Z."""
Millis = NewType("Millis", int)
"""Milliseconds since 1970, the unit of a Kafka record's timestamp."""

Kind = Literal["post", "member"]
"""The two kinds of entity."""
KINDS: Final[tuple[Kind, ...]] = ("post", "member")

MAX_ID_BYTES = 256
MAX_TEXT_CHARS = 100_000
