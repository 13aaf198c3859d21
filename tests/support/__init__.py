"""What several tests build: models, checkpoints, packs, photos, faults."""
