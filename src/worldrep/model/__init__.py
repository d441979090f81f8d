"""The Qwen2 decoder and its forward passes.

May import `data` and the top-level modules of `worldrep`.
"""
