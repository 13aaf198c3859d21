"""The networks of the three systems, in PyTorch, written to be compared with the papers."""
