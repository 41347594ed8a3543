"""The command line. Kept empty: `child_main.py` lies in this folder and must bring nothing into the traced process."""
