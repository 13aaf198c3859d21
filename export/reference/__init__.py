"""The reference of a parity run: what plain PyTorch makes of photos, recorded call by call."""
