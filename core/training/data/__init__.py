"""What training reads: photos, pairs, shards, streams."""
