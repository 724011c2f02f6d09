"""Measuring retrieval: data sets, metrics, the runner, and its tables and plots."""
