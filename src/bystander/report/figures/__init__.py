"""Every figure of the report as an Altair chart."""

from bystander.report.figures.all import charts

__all__ = ["charts"]
