"""Reading mangled C++ names."""
