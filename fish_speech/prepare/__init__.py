"""From recordings to clips with transcripts: find, name, convert, and explain every file in a manifest."""
