"""Owns a small embedded cold tier and serves it on a Unix socket until it is killed. Made to be frozen.

python -m tests.kit.children.cold_owner FOLDER SOCKET. It holds the posts p0 to p199 and the member m1.
"""

import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

from indexer.cold.socket.server import ColdServer
from schemas.ids import Offset, Partition
from tests.kit.data.embeddings import index_records, member_embedding, post_embedding
from tests.kit.tiers import open_edge_tier

NUM_POSTS: Final = 200


def main() -> None:
    with closing(open_edge_tier(Path(sys.argv[1]))) as tier, closing(ColdServer(tier, Path(sys.argv[2]))) as server:
        tier.write("post", index_records(*(post_embedding(f"p{number}") for number in range(NUM_POSTS))))
        tier.write("member", index_records(member_embedding("m1")))
        tier.flush()
        tier.reached({Partition(0): Offset(NUM_POSTS)})
        server.start()
        print("ready", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
