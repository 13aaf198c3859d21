"""Measurements behind design decisions; each is a command of `pocketprior bench`."""
