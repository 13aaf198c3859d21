"""Writing a pack: its files and manifest, golden restorations, several tasks, the model card."""
