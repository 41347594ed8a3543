"""Facts about the world outside, as data files, and what reads them."""
