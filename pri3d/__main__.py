"""`python -m pri3d` is `pri3d`."""

from pri3d.cli import main

main()
