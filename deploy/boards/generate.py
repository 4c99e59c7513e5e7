"""Writes the boards in `deploy/grafana/boards`: `python -m deploy.boards.generate`, in the project's folder. Needs
grafana-foundation-sdk, which is among the packages for development."""

from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.boards.board import Board, built
from deploy.boards.generations import GENERATIONS
from deploy.boards.overview import OVERVIEW
from deploy.boards.retrieval import RETRIEVAL
from deploy.boards.stages import STAGES

FOLDER: Final = Path(__file__).parent.parent / "grafana" / "boards"
BOARDS: Final[tuple[Board, ...]] = (OVERVIEW, *STAGES, RETRIEVAL, GENERATIONS)


def rendered(board: Board) -> str:
    return JSONEncoder(sort_keys=True, indent=2).encode(built(board)) + "\n"


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    for board in BOARDS:
        (FOLDER / f"{board.name}.json").write_text(rendered(board))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
