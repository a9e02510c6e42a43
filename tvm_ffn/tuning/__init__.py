"""Autotuning with MetaSchedule: what is tuned, how candidates are made, measured and remembered."""
