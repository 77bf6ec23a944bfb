"""``python -m loligo``: the same as ``loligo``."""

from loligo.cli import main

main()
