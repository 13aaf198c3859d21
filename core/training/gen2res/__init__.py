"""The stages of Gen2Res: the unconditional base, the album it is constrained by, the constraining itself."""
