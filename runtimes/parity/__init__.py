"""Is what runs here what was trained: a pack against a recorded reference, call by call and as a whole."""
