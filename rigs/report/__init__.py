"""The report: one self-contained HTML page, and the same numbers as metrics.json."""

from rigs.report.content import Metric, Report, SphereSight, Surface
from rigs.report.directory import report_directory
from rigs.report.page import write_metrics, write_report

__all__ = [
    "Metric",
    "Report",
    "SphereSight",
    "Surface",
    "report_directory",
    "write_metrics",
    "write_report",
]
