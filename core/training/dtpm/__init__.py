"""Training of DTPM: the predictor and the texture prior (stage I), then the adapters and their finish (stage II)."""
