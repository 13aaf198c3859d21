"""Core ML packages without Core ML: an `.mlpackage` that holds ML programs is read and evaluated with NumPy.

What an op does is taken from its documented definition in MIL, the language of ML programs. This shows that a package
says what it should; what Apple's hardware makes of it, only Core ML itself can show.
"""

from __future__ import annotations

from .package import Package, read_package
from .program import Observer, Program

__all__ = ["Observer", "Package", "Program", "read_package"]
