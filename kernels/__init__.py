"""Operations with a plain PyTorch reference and, beside it, a fused Triton twin."""
