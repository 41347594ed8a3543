"""Joins the stages: reads what is needed from this machine, resolves, diagnoses."""
