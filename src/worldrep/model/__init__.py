"""The Qwen2 decoder and its forward passes.

Imports `data`.
"""
