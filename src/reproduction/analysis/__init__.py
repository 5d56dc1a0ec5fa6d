"""What the results say: derived variables, statistics, claims and verdicts."""
