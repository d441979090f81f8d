"""The world, its tasks, and rows of questions as tokens.

Imports only the top-level modules of `worldrep`.
"""
