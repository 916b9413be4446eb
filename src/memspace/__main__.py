"""``python -m memspace``."""

from memspace.cli import main

main()
