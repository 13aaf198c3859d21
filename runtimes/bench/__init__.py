"""What `pocketprior bench` measures here: restoration quality and speed, compared with baselines, and single graphs."""

from __future__ import annotations

from .quality_report import QualityOptions, measure_quality
from .speed import measure_graphs, measure_speed

__all__ = ["QualityOptions", "measure_graphs", "measure_quality", "measure_speed"]
