"""The JSON Schemas of what dlltracer writes, as data files. `report.schema` reads them."""
