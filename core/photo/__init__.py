"""File -> Photo -> file: reading, colour, metadata and writing of image files."""
