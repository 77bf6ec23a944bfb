"""Measure scores against labels: metrics, protocols, statistics, and the table of results."""
