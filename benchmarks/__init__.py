"""Figures: what things cost, alone or beside a peer in the same run. `scripts/bench` runs them."""
