"""NumPy-only heart of the package: pictures, noise, samplers, packs, the restore pipeline, metrics."""
