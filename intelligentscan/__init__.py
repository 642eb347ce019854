"""IntelligentScan: track, compare, register and govern MLflow runs, models and scans by conversation."""

__version__ = "0.1.0"
