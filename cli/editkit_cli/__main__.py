"""``python -m editkit_cli`` is ``editkit``."""

from editkit_cli.main import main

main()
