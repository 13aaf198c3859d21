"""From photos to proved packs by one recipe: train, distill, export, quantize, parity, each of them resumed."""
