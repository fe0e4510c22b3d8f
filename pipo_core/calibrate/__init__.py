"""Calibration: what each threshold gives and costs on this machine, as a profile that the server reads."""
