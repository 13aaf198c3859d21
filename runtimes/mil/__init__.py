"""Core ML packages without Core ML: reads an `.mlpackage` that holds ML programs and evaluates it with NumPy.

Core ML runs only on Apple's systems, and no library evaluates its programs elsewhere; without this, a Core ML file that
is exported on Linux could not be tested there. What an op does is taken from its documented definition in MIL, the
language of ML programs. This shows that a package says what it should; what Apple's hardware makes of it, only Core ML
itself can show. The ops are those that our own writer and coremltools' conversions of our models emit.
"""

from __future__ import annotations

from .interpreter import MilProgram, Observer
from .reader import MilPackage, read_package

__all__ = ["MilPackage", "MilProgram", "Observer", "read_package"]
