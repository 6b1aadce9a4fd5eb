"""`python -m fusionlearn` is the command line."""

from fusionlearn.cli import main

main()
