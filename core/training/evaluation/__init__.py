"""What the trained systems do to held-back photos: one file per system, one page of tables."""
