"""Check wheels and files before they are shipped: would they load where their tags promise it?"""
