"""Show a recording: each renderer is a pure function from a recording to text."""
