"""`python -m didact.cli` is `didact`."""

from didact.cli.verbs import main

main()
