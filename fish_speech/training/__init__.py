"""One step of training: losses, schedules, the Lightning module and its callbacks."""
