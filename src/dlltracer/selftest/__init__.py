"""`dlltracer selftest`: asks this machine everything that dlltracer assumes of it."""
