"""Quantization under a budget on the restored image: one plan for all layers, proved on photos no search has seen."""
