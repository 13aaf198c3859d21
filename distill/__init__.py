"""Step distillation: one method per file."""
