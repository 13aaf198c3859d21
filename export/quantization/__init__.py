"""Fewer bits: what each layer costs on the restored image, one plan for all layers, and its graphs for each runtime."""
