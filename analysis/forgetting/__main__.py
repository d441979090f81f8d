"""Run the analysis: python -m analysis.forgetting."""

from analysis.forgetting import main

main()
