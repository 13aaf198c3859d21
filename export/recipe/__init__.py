"""From photos to proved packs by one recipe: train, distill, export, quantize, parity, each step resumable."""
