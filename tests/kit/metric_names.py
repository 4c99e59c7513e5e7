"""The names of all metrics that the code defines, as Prometheus sees them, and the labels that it may find on them."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
_ENCODER: Final = "nearline_encode_"
"""`encoders/metrics.py` puts it before the names of its counters."""
_SUFFIXES: Final = {
    "Counter": ("_total",),
    "CounterMetricFamily": ("_total",),
    "_counter": ("_total",),
    "Histogram": ("_bucket", "_count", "_sum"),
    "HistogramMetricFamily": ("_bucket", "_count", "_sum"),
    "Gauge": ("",),
    "GaugeMetricFamily": ("",),
    "InfoMetricFamily": ("_info",),
    "_gauge": ("",),
}
OF_PROMETHEUS: Final = {"up"}
"""Of Prometheus itself."""
OF_THE_CLIENT: Final = {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"}
"""Of its client library, about the process in which it is."""
_PROMQL: Final = frozenset(
    (
        *(
            "absent",
            "and",
            "bool",
            "by",
            "count",
            "delta",
            "group_left",
            "group_right",
            "histogram_quantile",
            "ignoring",
            "increase",
        ),
        *("max", "min", "offset", "on", "or", "predict_linear", "rate", "sum", "time", "unless", "vector", "without"),
    )
)
"""What our queries use of the language."""


@cache
def defined_metrics() -> dict[str, frozenset[str]]:
    """By name, the words of the file that defines it: its labels are among them."""
    found: dict[str, frozenset[str]] = {
        name: frozenset(("job", "instance", "process")) for name in OF_PROMETHEUS | OF_THE_CLIENT
    }
    for folder in ("encoders", "indexer", "streams", "retriever", "nearline"):
        for file in (ROOT / folder).rglob("*.py"):
            if "prometheus_client" in (text := file.read_text()):
                found |= _of_file(ast.parse(text))
    return found


def _of_file(tree: ast.Module) -> dict[str, frozenset[str]]:
    words = frozenset(
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    found = {}
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or not call.args:
            continue
        name = call.args[0]
        if call.func.id in _SUFFIXES and isinstance(name, ast.Constant) and isinstance(name.value, str):
            base = _ENCODER + name.value if call.func.id == "_counter" else name.value
            found |= {base + suffix: words for suffix in _SUFFIXES[call.func.id]}
    return found


def names_in(query: str) -> set[str]:
    """The names of metrics in a query in PromQL. What a recording rule of ours made has a colon."""
    matching = r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)"
    bare = re.sub(rf'\{{[^}}]*\}}|\[[^\]]*\]|"[^"]*"|{matching}', " ", query)
    return set(re.findall(r"\b[a-z_][a-z0-9_:]*\b", bare)) - _PROMQL


def labels_in(query: str) -> dict[str, set[str]]:
    """Of each metric the labels that a query selects by."""
    found: dict[str, set[str]] = {}
    for name, selector in re.findall(r"([a-z_:][a-z0-9_:]*)\{([^}]*)\}", query):
        found.setdefault(name, set()).update(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", selector))
    return found
