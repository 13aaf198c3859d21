"""The training loop: recipes, steps, weights, resuming, logging."""
