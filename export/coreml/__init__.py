"""Core ML packages: a graph converted once in float32, then rewritten for 16 bits, for a plan, for several tasks."""
