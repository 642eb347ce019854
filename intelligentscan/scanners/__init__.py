"""Scanning: engines as child processes, SARIF in and out, matching of findings between scans."""
