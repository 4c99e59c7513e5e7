"""The processes of the service as it was at `COMMIT`, before it became the service of `nearline.proto`. Both are copied
into a copy of that commit and run there, so they use what that commit has and nothing newer.
"""

from typing import Final

COMMIT: Final = "60a5ce84859d2bc8cbee85dde2e86c89466b99de"
