"""Figures drawn with matplotlib, the only package that imports it.

May import `analysis.statistics` and `worldrep`.
"""
