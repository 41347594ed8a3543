"""Resolvers: they work out from files what a loader would do. Pure: the files come in through a `Filesystem`."""
