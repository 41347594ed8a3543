"""The JSON Schemas of what dlltracer writes, as data files. `report.render_json` reads them."""
