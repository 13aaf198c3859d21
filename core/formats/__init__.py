"""What one file format needs each: how its samples, its metadata and its traps become a `Photo` and back."""
