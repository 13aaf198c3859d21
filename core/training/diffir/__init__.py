"""The stages of DiffIR: `pretrain` (stage 1), `warmup` and `joint` (the two phases of stage 2)."""
