"""How a fine-tuning keeps what its base knew: one file for each way, and none for `plain`."""
