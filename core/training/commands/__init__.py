"""The commands of the training layer."""
