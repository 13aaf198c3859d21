"""The networks of the three systems, in PyTorch, written to be read beside the papers."""
