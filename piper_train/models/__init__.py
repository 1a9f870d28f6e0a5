"""The VITS model of a Piper voice: its parts, and how they are put together. Knows no command line and no data set."""
