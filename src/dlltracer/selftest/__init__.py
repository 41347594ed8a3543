"""`dlltracer selftest`: checks on this machine everything that dlltracer assumes of it."""
