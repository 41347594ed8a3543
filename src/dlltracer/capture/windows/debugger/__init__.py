"""The Windows debugging functions: of this process by a helper process, of a program by its debugger."""
