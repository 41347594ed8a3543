"""The rules, one file a family. A rule reads a case, and yields the causes that it can prove or that fit."""
