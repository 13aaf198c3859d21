"""The pack: its manifest, its rules, its files."""
