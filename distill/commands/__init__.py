"""The commands of the distillation layer."""
