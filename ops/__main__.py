"""`python -m ops`: the `horae` command, as processes of Horae start each other."""

from ops.cli import main

main()
