"""The API as Python classes, made from proto/ by `make gen`; never edited."""
