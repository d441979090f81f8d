"""How a fine-tuning keeps what its base knew. `state.py` chooses; replayed rows are of `feed.py`."""
