"""FAISS alone: an IndexFlatIP over the newest posts, searched one query at a time on both cores. On each line
`K SECONDS` from stdin it searches for so long and prints searches/s.

`python -m benchmarks.kit.flat_process POSTS HOT DIMENSION`
"""

import sys
import time

from benchmarks.kit.flat_search import FlatSearch
from benchmarks.kit.vectors import draw

_QUERIES = 64


def main() -> None:
    num_posts, num_hot, dimension = map(int, sys.argv[1:])
    flat = FlatSearch(draw(num_posts, dimension)[-num_hot:])
    queries = draw(_QUERIES, dimension, seed=1)
    print("ready", flush=True)
    for k, seconds in map(str.split, sys.stdin):
        start, count = time.perf_counter(), 0
        while time.perf_counter() < start + float(seconds):
            flat.both_cores(queries[count % _QUERIES], int(k))
            count += 1
        print(count / (time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main()
