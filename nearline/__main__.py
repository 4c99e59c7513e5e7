"""The command `nearline`, also as `python -m nearline`. Where only the client is installed it says what is missing."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """The console script."""
    try:
        from nearline.cli import main as run
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("nearline: only the client is installed; for the commands: pip install 'nearline[server]'")
    run()


if __name__ == "__main__":
    main()
