"""How long it takes from a fault to its alert in a real Prometheus, and from the mend to its end: encode stopped, a
frozen consumer, poison records, the cold tier gone, a full disk. The windows of the rules are 60 times shorter than in
production, the bounds are not.

`python -m benchmarks.symptoms [--only NAME ...] [--json F]`. A real instance of `nearline up`, with the
demo's package and a light load, on a small disk of its own, for which it needs root; some minutes. Prometheus comes by
`make test`.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.kit.symptoms import SYMPTOMS, produce
from benchmarks.kit.table import report


def main() -> int:
    names = [symptom.name for symptom in SYMPTOMS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as folder:
        return report(produce(Path(folder), arguments.only), arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
