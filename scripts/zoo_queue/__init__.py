"""The training queue of a clone: `scripts/zoo`."""
