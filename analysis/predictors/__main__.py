"""`python -m analysis.predictors`."""

from analysis.predictors import main

main()
