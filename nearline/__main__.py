"""`python -m nearline` is the command `nearline`."""

from nearline.cli import main

main()
