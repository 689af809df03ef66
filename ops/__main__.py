"""`python -m ops`: the `horae` command, for processes that start each other."""

from ops.cli import main

main()
