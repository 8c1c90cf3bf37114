"""What connects sandboxes, one module for each kind of network. `contract.py` says what all have in common."""
