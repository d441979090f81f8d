"""Run the analysis: python -m analysis.dynamics."""

from analysis.dynamics import main

main()
