"""``python -m rigs.cli`` is ``gnomon``."""

from rigs.cli import main

main()
