"""PocketPrior: diffusion texture priors for photo restoration on phones and laptops."""

__version__ = "0.1.0"
