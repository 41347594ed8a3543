"""What a loader would do, worked out from files. Pure: the files come in through a `Filesystem`."""
