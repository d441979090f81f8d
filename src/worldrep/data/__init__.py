"""The world, its tasks, and rows of questions as tokens.

May import the top-level modules of `worldrep` only.
"""
