"""From a trained checkpoint to a pack: graphs per target, quantization, calibration, the writer."""
