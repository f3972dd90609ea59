"""The prepared set that every stage reads: on disk, and its rows on the device."""
