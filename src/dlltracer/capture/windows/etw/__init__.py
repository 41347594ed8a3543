"""Event Tracing for Windows: the kernel's image events, and what the loader of Windows says of its work."""
