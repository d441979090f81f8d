"""`python -m analysis.probes`."""

from analysis.probes import main

main()
