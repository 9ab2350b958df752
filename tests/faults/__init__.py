"""What happens when a process, a database or a disk fails while people are writing."""
