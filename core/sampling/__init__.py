"""Noise, schedules, samplers and their steps: pure functions, which the native SDK and the web engine mirror."""
