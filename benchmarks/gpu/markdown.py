"""A page of a run's JSON, to be kept in `benchmarks/results`: `python -m benchmarks.gpu.markdown F.json`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.kit.table import Figure, bound_text, number_text


def page(whole: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in whole["versions"].items())
    lines = [f"# {whole['device']}", "", f"{versions}. {whole['seconds']:.0f} s."]
    if whole["quick"]:
        lines += ["", "Tiny sizes: these figures mean nothing."]
    if not whole["finished"]:
        lines += ["", "The run was killed: what came later is missing."]
    lines += ["", "| figure | value | bound | holds |", "|---|---|---|---|"]
    for row in whole["figures"]:
        figure = Figure(row["figure"], row["value"], row["bound"], row["sense"])
        holds = "" if figure.bound is None else "yes" if figure.holds else "**no**"
        lines.append(f"| {figure.name} | {number_text(figure.value)} | {bound_text(figure)} | {holds} |")
    for title, key, reason in (("Left out", "left_out", "why"), ("Failed", "failed", "error")):
        if whole[key]:
            lines += ["", f"{title}:", "", *(f"- {entry['what']}: {entry[reason]}" for entry in whole[key])]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path)
    sys.stdout.write(page(json.loads(parser.parse_args().json.read_text())))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
