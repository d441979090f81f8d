"""`python -m analysis.seeds`."""

from analysis.seeds import main

main()
