"""How a fine-tuning keeps what its base knew. `state.py` chooses; `feed.py` mixes replayed rows."""
