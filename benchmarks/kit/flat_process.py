"""FAISS alone: an IndexFlatIP over the newest posts, searched one query at a time on both cores. On each line
`K SECONDS` from stdin it searches for so long and prints searches/s.

`python -m benchmarks.kit.flat_process POSTS HOT DIMENSION`
"""

import sys
import time

import faiss

from benchmarks.kit.vectors import draw

_THREADS = 2
_QUERIES = 64


def main() -> None:
    num_posts, num_hot, dimension = map(int, sys.argv[1:])
    flat = faiss.IndexFlatIP(dimension)
    flat.add(draw(num_posts, dimension)[-num_hot:])
    queries = draw(_QUERIES, dimension, seed=1)
    faiss.omp_set_num_threads(_THREADS)
    print("ready", flush=True)
    for k, seconds in map(str.split, sys.stdin):
        start, count = time.perf_counter(), 0
        while time.perf_counter() < start + float(seconds):
            flat.search(queries[count % _QUERIES].reshape(1, -1), int(k))
            count += 1
        print(count / (time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main()
