"""`python -m analysis.cka`."""

from analysis.cka import main

main()
