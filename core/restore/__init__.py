"""Restoring a photo with a pack."""
