"""Exact rewriting of networks for deployment, and training under fake quantization."""
