"""The command line. Kept empty: `runner.py` lies in this folder and must bring nothing into the traced process."""
